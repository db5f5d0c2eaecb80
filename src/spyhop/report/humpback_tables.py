"""Sections on further students: quality against quantity, sources, system messages, scaling."""

from collections.abc import Callable, Sequence
from typing import Any

from spyhop.report.arm_figures import verdict
from spyhop.report.charts import Spec, curves
from spyhop.report.html import ReportSection, Table
from spyhop.report.humpback_figures import Measure, StudentScores, TableName, fits, lines_of
from spyhop.statistics import SlopeTest, equal_slopes, holm

AXES: dict[Measure, str] = {
    "accuracy": "accuracy %",
    "held_out": "held-out log-likelihood a token",
    "win_rate": "win rate % against the base",
}
DIFFERENCES: dict[Measure, str] = {
    "accuracy": "difference in accuracy, points",
    "held_out": "difference in log-likelihood",
    "win_rate": "difference in win rate, points",
}
ONE_RUN = (
    "Each student is trained once: intervals are over items and say nothing on another order of "
    "training. Of many comparisons one in twenty differs by chance."
)
PAPER_ALPHA = {
    "Humpback": 6.95, "WizardLLM": 5.69, "Alpaca-GPT4": 5.40, "Vicuna": 4.53, "OA": 4.43,
    "LIMA": 2.86, "Alpaca": 1.99, "FLAN v2": 0.22,
}  # fmt: skip
"""Win rate in points against text-davinci-003, 7B (Table 3); the logarithm's base is not said."""
Seen = Sequence[StudentScores]
Measures = Sequence[Measure]


def levels(each: StudentScores, measures: Measures) -> dict[str, Any]:
    """Return a student's means with their intervals, as cells by heading."""
    return {AXES[measure]: each.level(measure) for measure in measures}


def differences(second: StudentScores, first: StudentScores, measures: Measures) -> dict[str, Any]:
    """Return paired differences with what they show, as cells by heading."""
    cells: dict[str, Any] = {}
    for measure in measures:
        found = second.against(first, measure).difference
        by = measure.replace("_", " ")
        cells |= {DIFFERENCES[measure]: found, f"so by {by}": verdict(found)}
    return cells


def paired_table(seen: Seen, measures: Measures) -> Table:
    """Return every student's level and, but for the first, its difference from the first."""
    first, *others = seen
    rows = [{"student": first.run.kind, **levels(first, measures)}]
    rows += [
        {"student": each.run.kind, **levels(each, measures), **differences(each, first, measures)}
        for each in others
    ]
    caption = f"95 % intervals over items; paired differences from {first.run.kind}."
    return Table.of(rows, caption)


def quality_section(seen: Seen, measures: Measures) -> ReportSection:
    """Web pairs alone, N of each grade, for every size of student."""
    section = ReportSection(
        "Quality against quantity",
        "Students of the web pairs alone, drawn at random from all of them, from those of score 4 "
        "and more (A4) or of 4.5 and more (A5), at growing number and the same steps (Figure 3).",
    )
    for measure in measures:
        section.chart(_curves(seen, measure), f"{AXES[measure]}, 95 % interval over items.")
    section.rows(
        {"student": each.run.student, "pairs": each.run.kind, "number": _number(each),
         **levels(each, measures)}
        for each in seen
    )  # fmt: skip
    plain = {
        (each.run.student, each.run.num_rows): each
        for each in seen
        if each.run.kind == "no curation"
    }
    pairs = [
        (first, each)
        for each in seen
        if (first := plain[each.run.student, each.run.num_rows]) is not each
        and first.num_rows == each.num_rows
    ]
    section.rows(
        (
            {"student": first.run.student, "number": first.run.num_rows,
             "pairs": f"{second.run.kind} against {first.run.kind}",
             **differences(second, first, measures)}
            for first, second in pairs
        ),
        "Paired differences on the same items.",
    )  # fmt: skip
    section.text(ONE_RUN)
    return section


def sources_section(seen: Seen, measures: Measures) -> ReportSection:
    """Seeds alone, web pairs alone, both."""
    section = ReportSection(
        "Seeds, web pairs, both", "Trained alike, each from the base (Figure 7)."
    )
    section.table(paired_table(seen, measures))
    section.text(ONE_RUN)
    return section


def messages_section(seen: Seen, measures: Measures) -> ReportSection:
    """Tags in training and inference."""
    section = ReportSection(
        "System messages",
        "System messages that distinguish seed pairs from web pairs, in training and in prompts "
        "(Table 5 of version 3, where 66.5 ± 3.0 against 60.0 ± 3.1 is 1.5 standard errors).",
    )
    section.table(paired_table(seen, measures))
    section.text(ONE_RUN)
    return section


def scaling_section(seen: Seen, measures: Measures) -> ReportSection:
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
            row = {"data set": kind, "points": str(sum(each.run.kind == kind for each in seen))}
            if found is None:
                rows.append({**row, "α": "too few points, or equal scores"})
                continue
            alpha = found.alpha
            rows.append({
                **row, "α": f"{alpha.value:+.3f}",
                "95 % interval": f"{alpha.low:+.3f} to {alpha.high:+.3f}",
                "C": f"{found.constant:.3f}", "of more rows": verdict(alpha),
            })  # fmt: skip
        section.rows(rows, f"w: {AXES[measure]}.")
        if test := slopes_of(seen, measure):
            _add_slopes(section, test, measure)
    theirs = ", ".join(f"{name} {alpha:g}" for name, alpha in PAPER_ALPHA.items())
    section.text(f"In the paper, where w is a win rate of 7B students: {theirs}.")
    return section


def slopes_of(seen: Seen, measure: Measure) -> SlopeTest | None:
    """Return the test of equal slopes of the data sets, where there are lines to compare."""
    every = lines_of(seen, measure)
    lines = {kind: line for kind, line in every.items() if len(set(line[0])) > 1}
    is_possible = len(lines) > 1 and sum(len(sizes) - 2 for sizes, _ in lines.values()) > 0
    return equal_slopes(lines) if is_possible else None


def _add_slopes(section: ReportSection, found: SlopeTest, measure: Measure) -> None:
    said = "differ" if found.p_value < 0.05 else "are not shown to differ"
    section.text(f"Slopes {said}: F = {found.f:.2f}, p = {found.p_value:.3g} ({AXES[measure]}).")
    p_values = holm([each.p_value for each in found.differences.values()])
    pairs = zip(found.differences.items(), p_values, strict=True)
    section.rows(
        {"slopes": f"{second} minus {first}", "difference of α": each.difference,
         "p (Holm)": f"{p:.3g}"}
        for ((first, second), each), p in pairs
    )  # fmt: skip


TITLES: dict[TableName, Callable[[Seen, Measures], ReportSection]] = {
    "quality": quality_section,
    "sources": sources_section,
    "messages": messages_section,
    "scaling": scaling_section,
}


def results_of(seen: Seen, measures: Measures) -> list[dict[str, Any]]:
    """Return every student's figures as plain data, and the scaling coefficients after them."""
    ends = ("value", "low", "high")
    lines: list[dict[str, Any]] = []
    for each in seen:
        found = {measure: each.level(measure) for measure in measures}
        figures: dict[str, Any] = {
            name: {end: getattr(level, end) for end in ends} for name, level in found.items()
        }
        lines.append({**each.run.model_dump(), "num_rows": each.num_rows, **figures})
    scaled = [each for each in seen if each.run.table == "scaling"]
    for measure in measures:
        if test := slopes_of(scaled, measure):
            line = {"table": "equal slopes", "measure": measure, "f": test.f}
            lines.append({**line, "p_value": test.p_value})
        for kind, fit in fits(scaled, measure).items():
            if fit is not None:
                alpha = {end: getattr(fit.alpha, end) for end in ends}
                lines.append({"table": "alpha", "kind": kind, "measure": measure, **alpha})
    return lines


def _number(each: StudentScores) -> str:
    if each.num_found is None:
        return f"{each.run.num_rows:,}"
    return f"{each.num_found:,} (all there are; the point is {each.run.num_rows:,})"


def _curves(seen: Seen, measure: Measure) -> Spec:
    unit = 1 if measure == "held_out" else 100
    values = [
        {
            "line": f"{each.run.kind} {each.run.student}".strip(),
            "x": each.run.num_rows,
            "y": unit * found.value,
            "low": unit * found.low,
            "high": unit * found.high,
        }
        for each in seen
        for found in [each.level(measure)]
    ]
    return curves(values, "rows", AXES[measure], is_log=True, dots=True)
