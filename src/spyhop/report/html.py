"""The page itself: sections of text, tables, charts and rows in one HTML file without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spyhop.charts import draw_svg
from spyhop.lazy import Lazy
from spyhop.store import Artifact

if TYPE_CHECKING:
    import altair as alt
else:
    alt = Lazy("altair")

PAGE, RESULTS = "report.html", "results.json"
INK, ACCENT = "#1c2b33", "#0b6e8f"
PALETTE = ("#0b6e8f", "#d1603d", "#6a994e", "#8d5a97", "#c9a227", "#4f6d7a", "#b56576", "#3d5a80")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; a cell is text, a number or ready markup."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""


@dataclass(slots=True)
class ReportSection:
    """A headed part of the page."""

    title: str
    lead: str = ""
    blocks: list[Markup] = field(default_factory=list)

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self.blocks.append(Markup("<p>{}</p>").format(text))

    def table(self, table: Table) -> None:
        """Add a table."""
        self.blocks.append(_render("table.html", table=table))

    def chart(self, chart: alt.TopLevelMixin, caption: str) -> None:
        """Add a chart, drawn as SVG now, so that the page needs no script."""
        svg = draw_svg(chart.to_dict())
        if svg is None:
            self.text(f"{caption} (The chart could not be drawn on this machine.)")
            return
        figure = Markup("<figure>{}<figcaption>{}</figcaption></figure>")
        self.blocks.append(figure.format(Markup(svg), caption))

    def conversation(self, turns: Sequence[Mapping[str, str]], note: str = "") -> None:
        """Add the turns of one row."""
        self.blocks.append(_render("conversation.html", turns=turns, note=note))

    def masked(self, pieces: Sequence[tuple[str, bool]], note: str) -> None:
        """Add a row's tokens; those that are trained on are marked."""
        self.blocks.append(_render("masked.html", pieces=pieces, note=note))


def render_page(title: str, lead: str, sections: Sequence[ReportSection], footer: str) -> str:
    """Return the whole page."""
    return str(_render("page.html", title=title, lead=lead, sections=sections, footer=footer))


def write_page(
    folder: Path,
    title: str,
    lead: str,
    sections: Sequence[ReportSection],
    *made_from: Mapping[str, Artifact],
) -> None:
    """Write `report.html`; its footer names the artifacts that it was made from."""
    names = dict.fromkeys(each.path.name for group in made_from for each in group.values())
    footer = "Made by spyhop from:\n" + "\n".join(names)
    html = render_page(title, lead, sections, footer)
    (folder / PAGE).write_text(html, encoding="utf-8")


def percent(value: float) -> str:
    """Return a share as a percentage with one decimal."""
    return f"{100 * value:.1f}"


def percent_interval(low: float, high: float) -> str:
    """Return an interval of shares in percent."""
    return f"{100 * low:.1f} to {100 * high:.1f}"


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("spyhop.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render(template: str, **values: Any) -> Markup:  # noqa: ANN401 (template values)
    return Markup(_environment().get_template(template).render(**values))
