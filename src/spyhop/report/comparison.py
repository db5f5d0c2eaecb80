"""Two models on the same items: a table for the terminal, and a page."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import rich.table

from spyhop.evaluate.comparison import ComparedLogs, PairedResult
from spyhop.report.charts import Spec, spans
from spyhop.report.html import ReportSection, Table, prose, render_page

MOST_BARS = 60
"""Groups that a chart shows."""


def summary_lines(compared: ComparedLogs) -> list[str]:
    """Return what was paired and what was not, and the result over all items."""
    metrics = list(dict.fromkeys(compared.metrics.values()))
    more = " and others" if len(metrics) > 4 else ""
    lines = [f"{compared.matched:,} common items, {compared.kind}, {', '.join(metrics[:4])}{more}"]
    for name, counts in zip(compared.names, compared.counts.values(), strict=True):
        shown = [f"{name}: {counts['items']:,} items in {counts['rows']:,} rows"]
        shown += [f"{counts[key]:,} {key}" for key in ("unmatched", "duplicates", "missing")
                  if counts[key]]  # fmt: skip
        lines.append(", ".join(shown))
    if compared.missing:
        lines.append(f"{compared.missing:,} common items are not compared: a score is missing")
    if compared.other_prompts:
        lines.append(f"the prompts of {compared.other_prompts:,} common items differ")
    result, cells = compared.overall, _cells(compared.overall)
    unit = " points" if result.is_share else ""
    said = f"{compared.names[1]} minus {compared.names[0]}: {cells['difference']}{unit}"
    for name, text in (("95 % interval", "95 % interval"), ("p", "p =")):
        said += f", {text} {cells[name]}" if cells[name] else ""
    sides = f"better on {result.gained:,} of {result.n:,} items, worse on {result.lost:,}"
    return [*lines, f"{said}; {sides}"]


def terminal_table(compared: ComparedLogs, by: str) -> rich.table.Table:
    """Return one line per task, topic or quarter of the lengths."""
    found, shown = _table(compared, by), rich.table.Table(box=None, pad_edge=False)
    for head in found.headings:
        shown.add_column(head, justify="right" if shown.columns else "left", overflow="fold")
    for row in found.rows:
        shown.add_row(*row)
    return shown


def comparison_page(compared: ComparedLogs) -> str:
    """Return the page: tables, forest plots, and rows to read."""
    sections = comparison_sections(compared)
    for is_gain in (True, False):
        rows = [row for row in compared.disagreements
                if (row.second_value > row.first_value) == is_gain]  # fmt: skip
        if rows:
            read = ReportSection(f"{compared.names[is_gain]} is better", prose("sample"))
            sections.append(read.add("disagreements.html", rows=rows, names=compared.names))
    return render_page(" and ".join(compared.names), "Two models, item by item.", sections)


def comparison_sections(compared: ComparedLogs) -> list[ReportSection]:
    """Return the result in a sentence, and a table with a forest plot of each kind of groups."""
    first, second = compared.names
    *lines, result = summary_lines(compared)
    sections = [ReportSection("Result", f"{result}.").text(". ".join(lines) + ".")]
    quarters = f"Quarters of the items by the number of characters of the {compared.length_of}."
    leads = {"task": ("Tasks", ""), "topic": ("Topics", ""), "length": ("Length", quarters)}
    for by, (title, lead) in leads.items():
        if results := getattr(compared, f"by_{by}"):
            section = ReportSection(title, lead)
            if 1 < len(results) <= MOST_BARS:
                chart = draw_differences([*results, compared.overall])
                section.chart(chart, f"{second} minus {first}, with 95 % intervals.")
            sections.append(section.table(_table(compared, by)))
    return sections


def draw_differences(results: Sequence[PairedResult]) -> Spec:
    """Return a forest plot of differences, those of shares in points."""
    values = [
        {"row": each.group, "value": scale * each.difference, "low": scale * each.low,
         "high": scale * each.high}
        for each in results
        if each.low is not None and each.high is not None
        for scale in (100 if each.is_share else 1,)
    ]  # fmt: skip
    return spans(values, "difference", reference=0)


def differences_table(
    found: Iterable[tuple[str, PairedResult]], more: Mapping[str, Sequence[str]] | None = None
) -> Table:
    """Return one row for each result and its models (`student minus base`), and `more` columns."""
    rows = (
        {"task": each.group.replace("_", " "), "models": models, **_cells(each),
         **{name: cells[place] for name, cells in (more or {}).items()}}
        for place, (models, each) in enumerate(found)
    )  # fmt: skip
    return Table.of(rows, prose("differences"))


def _table(compared: ComparedLogs, by: str) -> Table:
    """Return one row per group, that of all items last."""
    found: list[PairedResult] = getattr(compared, f"by_{by}")
    first, second = compared.names
    rows = (
        {by: each.group, "n": each.n, first: _value(each, each.first),
         second: _value(each, each.second), **_cells(each), "method": each.method}
        for each in ([*found, compared.overall] if len(found) != 1 else found)
    )  # fmt: skip
    return Table.of(rows, prose("differences"))


def _cells(result: PairedResult) -> dict[str, Any]:
    low, high = _value(result, result.low), _value(result, result.high)
    tests = {"p": result.p_value, "Holm": result.adjusted}
    return {
        "n": result.n, "difference": _value(result, result.difference, "+"),
        "95 % interval": low and high and f"{low} to {high}",
        **{name: "" if value is None else f"{value:.3g}" for name, value in tests.items()},
        "better": result.gained, "worse": result.lost,
        "detectable": _value(result, result.detectable),
    }  # fmt: skip


def _value(result: PairedResult, value: float | None, sign: str = "") -> str:
    if value is None:
        return ""
    return f"{100 * value:{sign}.1f}" if result.is_share else f"{value:{sign}.4g}"
