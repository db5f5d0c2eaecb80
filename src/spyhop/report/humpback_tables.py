"""Sections on further students: quality against quantity, sources, system messages, scaling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from spyhop.lazy import alt
from spyhop.report.arm_figures import verdict
from spyhop.report.html import PALETTE, ReportSection, Table
from spyhop.report.humpback_figures import (
    Measure,
    StudentScores,
    TableName,
    fits,
    lines_of,
)
from spyhop.statistics import Interval, SlopeTest, equal_slopes, holm

AXES: dict[Measure, str] = {
    "accuracy": "accuracy %",
    "held_out": "held-out log-likelihood a token",
    "win_rate": "win rate % against the base",
}
ONE_RUN = (
    "Each student is trained once: intervals are over items and say nothing on another order of "
    "training. Of many comparisons one in twenty differs by chance."
)
PAPER_ALPHA = {
    "Humpback": 6.95,
    "WizardLLM": 5.69,
    "Alpaca-GPT4": 5.40,
    "Vicuna": 4.53,
    "OA": 4.43,
    "LIMA": 2.86,
    "Alpaca": 1.99,
    "FLAN v2": 0.22,
}
"""Win rate in points against text-davinci-003, 7B (Table 3); the logarithm's base is not said."""


def level(each: StudentScores, measure: Measure) -> str:
    """Return a student's mean with its interval, for a table."""
    return _interval(each.level(measure), measure)


def quality_section(seen: Sequence[StudentScores], measures: Sequence[Measure]) -> ReportSection:
    """Web pairs alone, N of each grade, for every size of student."""
    section = ReportSection(
        "Quality against quantity",
        "Students of the web pairs alone, drawn at random from all of them, from those of score 4 "
        "and more (A4) or of 4.5 and more (A5), at growing number and the same steps (Figure 3).",
    )
    for measure in measures:
        section.chart(_curves(seen, measure), f"{AXES[measure]}, 95 % interval over items.")
    rows = [
        [each.run.student, each.run.kind, _number(each), *(level(each, m) for m in measures)]
        for each in seen
    ]
    section.table(Table(["student", "pairs", "number", *(AXES[m] for m in measures)], rows))
    pairs = _pairs(seen)
    compared = [
        [
            first.run.student,
            first.run.num_rows,
            f"{second.run.kind} against {first.run.kind}",
            *_difference(second, first, measures),
        ]
        for first, second in pairs
    ]
    if compared:
        headings = ["student", "number", "", *_difference_headings(measures)]
        section.table(Table(headings, compared, "Paired differences on the same items."))
    section.text(ONE_RUN)
    return section


def sources_section(seen: Sequence[StudentScores], measures: Sequence[Measure]) -> ReportSection:
    """Seeds alone, web pairs alone, both."""
    text = "Trained alike, each from the base (Figure 7)."
    section = ReportSection("Seeds, web pairs, both", text)
    section.table(paired_table(seen, measures))
    section.text(ONE_RUN)
    return section


def messages_section(seen: Sequence[StudentScores], measures: Sequence[Measure]) -> ReportSection:
    """Tags in training and inference."""
    text = (
        "System messages that distinguish seed pairs from web pairs, in training and in prompts "
        "(Table 5 of version 3, where 66.5 ± 3.0 against 60.0 ± 3.1 is 1.5 standard errors)."
    )
    section = ReportSection("System messages", text)
    section.table(paired_table(seen, measures))
    section.text(ONE_RUN)
    return section


def scaling_section(seen: Sequence[StudentScores], measures: Sequence[Measure]) -> ReportSection:
    """Data sets at the same sizes and steps, and their coefficients."""
    section = ReportSection(
        "What a data set gains by growing",
        "w = α log N + C, natural logarithm, least squares over the points; the interval is over "
        "points. All sets are trained for the same steps at the same N (Table 3).",
    )
    for measure in measures:
        section.chart(_curves(seen, measure), f"{AXES[measure]}, 95 % interval over items.")
        rows = []
        for kind, found in fits(seen, measure).items():
            num = sum(each.run.kind == kind for each in seen)
            if found is None:
                rows.append([kind, num, "too few points, or equal scores", "", "", ""])
                continue
            interval = found.alpha
            has_interval = interval.high > interval.low  # none where all scores are equal
            shown = f"{interval.low:+.3f} to {interval.high:+.3f}" if has_interval else "n/a"
            said = verdict(interval) if has_interval else "n/a"
            line = [f"{interval.value:+.3f}", shown, f"{found.constant:.3f}", said]
            rows.append([kind, num, *line])
        headings = ["data set", "points", "α", "95 % interval", "C", "of more rows"]
        section.table(Table(headings, rows, f"w: {AXES[measure]}."))
        if test := slopes_of(seen, measure):
            _add_slopes(section, test, measure)
    theirs = ", ".join(f"{name} {alpha:g}" for name, alpha in PAPER_ALPHA.items())
    section.text(f"In the paper, where w is a win rate of 7B students: {theirs}.")
    return section


def slopes_of(seen: Sequence[StudentScores], measure: Measure) -> SlopeTest | None:
    """Return the test of equal slopes of the data sets, where there are lines to compare."""
    every = lines_of(seen, measure)
    lines = {kind: line for kind, line in every.items() if len(set(line[0])) > 1}
    is_possible = len(lines) > 1 and sum(len(sizes) - 2 for sizes, _ in lines.values()) > 0
    return equal_slopes(lines) if is_possible else None


def _add_slopes(section: ReportSection, found: SlopeTest, measure: Measure) -> None:
    said = "differ" if found.p_value < 0.05 else "are not shown to differ"
    section.text(f"Slopes {said}: F = {found.f:.2f}, p = {found.p_value:.3g} ({AXES[measure]}).")
    p_values = holm([each.p_value for each in found.differences.values()])
    rows = []
    for ((first, second), each), p in zip(found.differences.items(), p_values, strict=True):
        d = each.difference
        shown = [f"{d.value:+.3f}", f"{d.low:+.3f} to {d.high:+.3f}", f"{p:.3g}"]
        rows.append([f"{second} minus {first}", *shown])
    section.table(Table(["slopes", "α", "95 % interval", "p (Holm)"], rows))


TITLES: dict[TableName, Callable[[Sequence[StudentScores], Sequence[Measure]], ReportSection]] = {
    "quality": quality_section,
    "sources": sources_section,
    "messages": messages_section,
    "scaling": scaling_section,
}


def results_of(seen: Sequence[StudentScores], measures: Sequence[Measure]) -> list[dict[str, Any]]:
    """Return every student's figures as plain data, and the scaling coefficients after them."""
    lines: list[dict[str, Any]] = []
    for each in seen:
        figures: dict[str, Any] = {
            measure: {"value": found.value, "low": found.low, "high": found.high}
            for measure in measures
            for found in [each.level(measure)]
        }
        lines.append({**each.run.model_dump(), "num_rows": each.num_rows, **figures})
    scaled = [each for each in seen if each.run.table == "scaling"]
    for measure in measures:
        if test := slopes_of(scaled, measure):
            line = {"table": "equal slopes", "measure": measure, "f": test.f}
            lines.append({**line, "p_value": test.p_value})
        for kind, found in fits(scaled, measure).items():
            if found is not None:
                alpha = {name: getattr(found.alpha, name) for name in ("value", "low", "high")}
                if found.alpha.low == found.alpha.high:
                    alpha |= {"low": None, "high": None}
                lines.append({"table": "alpha", "kind": kind, "measure": measure, **alpha})
    return lines


def paired_table(seen: Sequence[StudentScores], measures: Sequence[Measure]) -> Table:
    """Return every student's level and, but for the first, its difference from the first."""
    first, *others = seen
    rows = [[first.run.kind, *(level(first, m) for m in measures), *[""] * 2 * len(measures)]]
    for each in others:
        figures = [level(each, measure) for measure in measures]
        rows.append([each.run.kind, *figures, *_difference(each, first, measures)])
    headings = ["", *(AXES[m] for m in measures), *_difference_headings(measures)]
    caption = f"95 % intervals over items; paired differences from {first.run.kind}."
    return Table(headings, rows, caption)


def _pairs(seen: Sequence[StudentScores]) -> list[tuple[StudentScores, StudentScores]]:
    """Return (uncurated, curated) students of the same size, steps and number of rows."""
    plain = {
        (each.run.student, each.run.num_rows): each
        for each in seen
        if each.run.kind == "no curation"
    }
    both = [
        (plain[each.run.student, each.run.num_rows], each)
        for each in seen
        if each.run.kind != "no curation"
    ]
    return [(first, second) for first, second in both if first.num_rows == second.num_rows]


def _number(each: StudentScores) -> str:
    if each.num_found is None:
        return f"{each.run.num_rows:,}"
    return f"{each.num_found:,} (all there are; the point is {each.run.num_rows:,})"


def _difference(
    second: StudentScores, first: StudentScores, measures: Sequence[Measure]
) -> list[str]:
    cells = []
    for measure in measures:
        found = second.against(first, measure)
        cells += [_interval(found.difference, measure, sign="+"), verdict(found.difference)]
    return cells


def _difference_headings(measures: Sequence[Measure]) -> list[str]:
    named = {"held_out": "difference, log-likelihood"}
    return [t for measure in measures for t in (named.get(measure, "difference, points"), "")]


def _interval(found: Interval, measure: Measure, sign: str = "") -> str:
    unit, digits = (1, 3) if measure == "held_out" else (100, 1)
    value, low, high = (
        f"{unit * each:{sign}.{digits}f}" for each in (found.value, found.low, found.high)
    )
    return f"{value} [{low}, {high}]"


def _curves(seen: Sequence[StudentScores], measure: Measure) -> alt.TopLevelMixin:
    unit = 1 if measure == "held_out" else 100
    values = []
    for each in seen:
        found = each.level(measure)
        line = f"{each.run.kind} {each.run.student}".strip()
        figures = {name: unit * getattr(found, name) for name in ("value", "low", "high")}
        values.append({"line": line, "rows": each.num_rows, "seed": each.run.seed, **figures})
    base = alt.Chart(alt.Data(values=values))
    x = alt.X("rows:Q", title="rows", scale=alt.Scale(type="log", nice=False, padding=12))
    y = alt.Y("value:Q", title=AXES[measure], scale=alt.Scale(zero=False))
    color = alt.Color("line:N", title=None, scale=alt.Scale(range=list(PALETTE)))
    lines = base.mark_line(strokeWidth=1.6).encode(x=x, y=alt.Y("mean(value):Q"), color=color)
    dots = base.mark_circle(size=40, opacity=1).encode(x=x, y=y, color=color)
    rules = base.mark_rule().encode(x=x, y="low:Q", y2="high:Q", color=color)
    return alt.layer(lines, rules, dots).properties(width=600, height=260)
