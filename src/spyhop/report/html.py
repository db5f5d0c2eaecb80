"""The page itself: sections of text, tables, charts and rows in one HTML file without scripts."""

from __future__ import annotations

import json
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, Self

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spyhop import __version__
from spyhop.charts import draw_svg
from spyhop.report.charts import Spec
from spyhop.schema import Message
from spyhop.stage import FOLDER, Estimate, Stage, stage
from spyhop.statistics import Interval
from spyhop.store import Artifacts
from spyhop.text.escape import visible

MOST_CHARS = 2000
"""Characters of a text that the page shows."""
_FIGURE = re.compile(r"(?:[<>]? ?[+\u2212-]?\d[\d,.]*(?:e[+-]?\d+)?|to|±|/|[\[\](),% ])+")
PAGE, RESULTS = "report.html", "results.json"


def report_stage(version: int) -> Callable[[Callable[..., Any]], Stage]:
    """Turn a function that writes a page into a stage."""
    plan = lambda config, **inputs: Estimate(seconds=5)  # noqa: E731
    return stage(version=version, writes=FOLDER, shows_names=True, plan=plan)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; a cell is text, a number or ready markup."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], caption: str = "") -> Table:
        """Return a table of rows by heading, without empty columns; `cell` shows the values."""
        found = [{name: cell(value, name) for name, value in row.items()} for row in rows]
        every = dict.fromkeys(name for row in found for name in row)
        headings = [name for name in every if any(row.get(name, "") != "" for row in found)]
        return cls(headings, [[row.get(name, "") for name in headings] for row in found], caption)

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds figures only, which are aligned to the right."""
        columns = [[str(row[place]) for row in self.rows] for place in range(len(self.headings))]
        return [
            any(column) and all(not cell or _FIGURE.fullmatch(cell) for cell in column)
            for column in columns
        ]


class Turn(NamedTuple):
    """A labelled text, shown as a turn of a conversation."""

    role: str
    content: str


@dataclass(slots=True)
class ReportSection:
    """A headed part of the page; each method adds a block and returns the section."""

    title: str
    lead: str = ""
    blocks: list[Markup] = field(default_factory=list)

    def text(self, *paragraphs: str) -> Self:
        """Add paragraphs."""
        self.blocks += [Markup("<p>{}</p>").format(visible(text)) for text in paragraphs]
        return self

    def table(self, table: Table) -> Self:
        """Add a table."""
        return self.add("table.html", table=table)

    def rows(self, rows: Iterable[Mapping[str, Any]], caption: str = "") -> Self:
        """Add a table of rows by heading, if there are any."""
        table = Table.of(rows, caption)
        return self.table(table) if table.rows else self

    def chart(self, chart: Spec, caption: str) -> Self:
        """Add a chart (`report.charts`), drawn as SVG now, so that the page needs no script."""
        svg = draw_svg(chart)
        if svg is None:
            return self.text(f"{caption} (The chart could not be drawn on this machine.)")
        figure = Markup("<figure>{}<figcaption>{}</figcaption></figure>")
        self.blocks.append(figure.format(Markup(visible(svg)), visible(caption)))
        return self

    def conversation(self, turns: Iterable[Turn | Message], note: str = "") -> Self:
        """Add the turns of one row."""
        return self.add("conversation.html", turns=turns, note=note)

    def details(self, summary: str, text: str) -> Self:
        """Add a text behind a line to open."""
        block = Markup("<details><summary>{}</summary>\n<pre>{}</pre></details>")
        self.blocks.append(block.format(visible(summary), visible(text)))
        return self

    def add(self, template: str, **values: Any) -> Self:  # noqa: ANN401 (template values)
        """Add a template, filled in."""
        self.blocks.append(_render(template, **values))
        return self


def section(key: str, /, **values: object) -> ReportSection:
    """Return an empty section with the title and the lead that `texts.toml` has for it."""
    title, lead = (text.format(**values) for text in _texts()["sections"][key])
    return ReportSection(title, lead)


def prose(key: str, /, **values: object) -> str:
    """Return a paragraph or caption of `texts.toml`."""
    return str(_texts()["texts"][key].format(**values))


def render_page(title: str, lead: str, sections: Sequence[ReportSection]) -> str:
    """Return the whole page; it ends with the version, the time and the command."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    footer = f"spyhop {__version__}, {now}\n{shlex.join(['spyhop', *sys.argv[1:]])}"
    return str(_render("page.html", title=title, lead=lead, sections=sections, footer=footer))


def write_page(
    folder: Path,
    title: str,
    lead: str,
    sections: Sequence[ReportSection],
    *made_from: Artifacts,
    **figures: object,
) -> None:
    """Write `report.html`, and the figures for programs, each as `NAME.json`.

    The page ends with the settings of the artifacts that it was made from.
    """
    settings = section("settings")
    made = {each.key: (name, each) for group in made_from for name, each in group.items()}
    for name, artifact in made.values():
        record = artifact.record
        about = f"{record.stage} version {record.version}, {record.created}, key {artifact.key}"
        config = json.dumps(record.config, indent=1, ensure_ascii=False)
        settings.details(f"{name}: {about}", config)
    html = render_page(title, lead, [*sections, settings])
    (folder / PAGE).write_text(html, encoding="utf-8")
    for name, value in figures.items():
        (folder / f"{name}.json").write_text(json.dumps(value, indent=1), encoding="utf-8")


def asset(name: str) -> str:
    """Return a file beside the templates, such as the style sheet."""
    return (files("spyhop.report") / "templates" / name).read_text(encoding="utf-8")


def short(text: str, most: int = MOST_CHARS) -> str:
    """Return the beginning of a text."""
    return text if len(text) <= most else f"{text[:most]}..."


def percent(value: float) -> str:
    """Return a share as a percentage with one decimal."""
    return f"{100 * value:.1f}"


def percent_interval(low: float, high: float) -> str:
    """Return an interval of shares in percent."""
    return f"{percent(low)} to {percent(high)}"


def cell(value: Any, heading: str = "") -> Any:  # noqa: ANN401 (any figure)
    """Return a figure as a heading's unit shows it.

    Shares are percentages under a heading with `%`; an interval follows its value. Differences of
    shares are points with their sign under one with `points`. Whole numbers have separators, and
    None is an empty cell.
    """
    if isinstance(value, Interval):
        unit, form = (100, ".1f") if "%" in heading or "points" in heading else (1, ".3f")
        sign = "+" if "points" in heading or "difference" in heading else ""
        limits = (value.value, value.low, value.high)
        shown = [f"{unit * each:{sign}{form}}" for each in limits]
        return "{} [{}, {}]".format(*shown) if sign or unit == 1 else "{} ({} to {})".format(*shown)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return percent(value) if "%" in heading else f"{value:.4g}"
    return "" if value is None else value


@cache
def _texts() -> dict[str, dict[str, Any]]:
    return tomllib.loads(asset("texts.toml"))


@cache
def environment(package: str) -> Environment:
    """Return the templates of a package; control characters of their values are shown."""
    found = Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"],
        finalize=lambda value: visible(value) if type(value) is str else value,  # markup is ready
    )  # fmt: skip
    found.filters["short"] = short
    return found


def _render(template: str, **values: Any) -> Markup:  # noqa: ANN401 (template values)
    return Markup(environment("spyhop.report").get_template(template).render(**values))
