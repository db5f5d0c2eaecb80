"""Two models on the same items: a table for the terminal, a JSON object, a page."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import rich.table

from spyhop.evaluate.comparison import ComparedLogs, PairedResult
from spyhop.lazy import Lazy
from spyhop.report.html import ACCENT, INK, ReportSection, Table, page_footer, render_page

if TYPE_CHECKING:
    import altair as alt
else:
    alt = Lazy("altair")

GROUPINGS = ("task", "length", "topic")
MOST_BARS = 60
"""Groups that a chart shows."""
_CAPTION = (
    "Second minus first, on the same items; shares in percent. Right and wrong: Tango's interval "
    "and McNemar's exact test; other values: paired t-test; items that share a passage: bootstrap "
    "over passages. Holm: the p-value corrected for the number of groups. Detectable: the smallest "
    "difference that so many items find with 80 % power at a level of 5 %."
)


def groups(compared: ComparedLogs, by: str) -> list[PairedResult]:
    """Return the results by `task`, `length` or `topic`, those of all items last."""
    found: list[PairedResult] = getattr(compared, f"by_{by}")
    return [*found, compared.overall] if len(found) != 1 else found


def terminal_table(compared: ComparedLogs, by: str) -> rich.table.Table:
    """Return one line per group."""
    table = rich.table.Table(box=None, pad_edge=False)
    heads, rows = _cells(compared, by)
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def summary_lines(compared: ComparedLogs) -> list[str]:
    """Return what was paired and what was not, in sentences."""
    counts, pairs = compared.counts, compared.counts["pairs"]
    lines = [
        f"{pairs['matched']:,} items in common, of {compared.kind}; metric: {_metrics(compared)}"
    ]
    for name, side in zip(compared.names, ("first", "second"), strict=True):
        found = counts[side]
        more = ", ".join(
            f"{found[key]:,} {key}" for key in ("unmatched", "duplicates", "missing") if found[key]
        )
        rows = f" in {found['rows']:,} rows" if found["rows"] != found["items"] else ""
        lines.append(f"{name}: {found['items']:,} items{rows}{f' ({more})' if more else ''}")
    if pairs["missing"]:
        lines.append(f"{pairs['missing']:,} common items without a score in one log: not compared")
    if pairs["other_prompts"]:
        lines.append(f"the prompts of {pairs['other_prompts']:,} common items differ")
    return lines


def comparison_json(compared: ComparedLogs) -> dict[str, Any]:
    """Return the comparison as plain data."""
    sides = zip(("first", "second"), compared.names, compared.paths, strict=True)
    return {
        **{side: {"name": name, "path": path} for side, name, path in sides},
        "kind": compared.kind,
        "metrics": compared.metrics,
        "counts": compared.counts,
        "overall": asdict(compared.overall),
        "by_task": [asdict(each) for each in compared.by_task],
        "by_topic": [asdict(each) for each in compared.by_topic],
        "by_length": [asdict(each) for each in compared.by_length],
        "length_of": compared.length_of,
        "disagreements": [
            {
                "task": each.task,
                "item": each.first.item,
                "topic": each.first.topic,
                "question": each.first.question or each.second.question,
                "gold": each.first.gold,
                "first": _answer(each.first_value, each.first),
                "second": _answer(each.second_value, each.second),
            }
            for each in compared.disagreements
        ],
    }


def comparison_page(compared: ComparedLogs) -> str:
    """Return the page: tables, forest plots, and rows to read."""
    first, second = compared.names
    whole = ReportSection("Result", " ".join(f"{line}." for line in summary_lines(compared)))
    whole.text(sentence(compared))
    sections = [whole]
    for by, title in zip(GROUPINGS, ("Tasks", "Length", "Topics"), strict=True):
        if results := getattr(compared, f"by_{by}"):
            lead = "" if by != "length" else _length_lead(compared)
            section = ReportSection(title, lead)
            if 1 < len(results) <= MOST_BARS:
                section.chart(forest(groups(compared, by)), "Differences with 95 % intervals.")
            section.table(Table(*_cells(compared, by), caption=_CAPTION))
            sections.append(section)
    for title, is_gain in ((f"{second} is better", True), (f"{first} is better", False)):
        rows = [
            row for row in compared.disagreements if (row.second_value > row.first_value) == is_gain
        ]
        if rows:
            lead = "Rows to read: of each task, those of the lowest digests, a fixed random sample."
            section = ReportSection(title, lead)
            section.disagreements(rows, compared.names)
            sections.append(section)
    lead = f"{second} minus {first}, item by item."
    return render_page(f"{first} and {second}", lead, sections, page_footer())


def forest(results: Sequence[PairedResult]) -> Any:  # noqa: ANN401 (Altair's chart)
    """Return a forest plot of differences, those of shares in points."""
    values = [
        {"group": each.group, "difference": scale * each.difference, "low": scale * each.low,
         "high": scale * each.high}
        for each in results
        if each.low is not None and each.high is not None
        for scale in (100 if each.is_share else 1,)
    ]  # fmt: skip
    base = alt.Chart(alt.Data(values=values))
    y = alt.Y("group:N", sort=None, title=None, axis=alt.Axis(labelLimit=260))
    bars = base.mark_rule(strokeWidth=3, color=ACCENT).encode(
        x=alt.X("low:Q", title="difference"), x2="high:Q", y=y
    )
    dots = base.mark_point(filled=True, size=70, color=INK, opacity=1).encode(x="difference:Q", y=y)
    zero = alt.Chart(alt.Data(values=[{"x": 0}]))
    line = zero.mark_rule(strokeDash=[5, 4], color="#b33").encode(x="x:Q")
    return alt.layer(line, bars, dots).properties(width=560, height=alt.Step(24))


def sentence(compared: ComparedLogs) -> str:
    """Return the result over all items."""
    result = compared.overall
    interval = "" if result.low is None else f", 95 % interval {_interval(result)}"
    test = "" if result.p_value is None else f", p = {result.p_value:.3g}"
    unit = " points" if result.is_share else ""
    return (
        f"{compared.names[1]} minus {compared.names[0]}: {_signed(result)}{unit}{interval}{test} "
        f"({result.n:,} items; better on {result.gained:,}, worse on {result.lost:,})."
    )


def _cells(compared: ComparedLogs, by: str) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows."""
    first, second = compared.names
    heads = [by, "n", first, second, "difference", "95 % interval", "p", "Holm", "better", "worse",
             "detectable", "method"]  # fmt: skip
    rows = [
        [
            each.group,
            f"{each.n:,}",
            _value(each, each.first),
            _value(each, each.second),
            _signed(each),
            _interval(each),
            "" if each.p_value is None else f"{each.p_value:.3g}",
            "" if each.adjusted is None else f"{each.adjusted:.3g}",
            f"{each.gained:,}",
            f"{each.lost:,}",
            "" if each.detectable is None else _value(each, each.detectable),
            each.method,
        ]
        for each in groups(compared, by)
    ]
    return heads, rows


def _value(result: PairedResult, value: float) -> str:
    return f"{100 * value:.1f}" if result.is_share else f"{value:.4g}"


def _signed(result: PairedResult) -> str:
    value = result.difference
    return f"{100 * value:+.1f}" if result.is_share else f"{value:+.4g}"


def _interval(result: PairedResult) -> str:
    if result.low is None or result.high is None:
        return ""
    return f"{_value(result, result.low)} to {_value(result, result.high)}"


def _metrics(compared: ComparedLogs) -> str:
    names = list(dict.fromkeys(compared.metrics.values()))
    return ", ".join(names[:4]) + (" and others" if len(names) > 4 else "")


def _length_lead(compared: ComparedLogs) -> str:
    whose = "responses, mean of both models" if compared.length_of == "response" else "questions"
    return f"Quarters of the items by the number of characters of the {whose}."


def _answer(value: float, row: Any) -> dict[str, Any]:  # noqa: ANN401 (a LogRow)
    return {"value": value, "answer": row.answer, "response": row.response}
