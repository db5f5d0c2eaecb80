"""Sections on further students: quality against quantity, sources, system messages, scaling."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spyhop.report.arm_figures import verdict
from spyhop.report.charts import Spec, curves, span
from spyhop.report.costs import CostedStudent, costed, mean_student, point_cost_section
from spyhop.report.html import ReportSection, Table, prose, section
from spyhop.report.humpback_figures import Measure, StudentScores, TableName, fits, lines_of
from spyhop.statistics import SlopeTest, equal_slopes, holm
from spyhop.store import Artifacts
from spyhop.train import read_metrics

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
    first = seen[0]
    rows = (
        {"student": each.run.kind, **levels(each, measures),
         **(differences(each, first, measures) if each is not first else {})}
        for each in seen
    )  # fmt: skip
    return Table.of(rows, f"95 % intervals over items; paired differences from {first.run.kind}.")


def costs_section(
    root: Path, seen: Mapping[str, StudentScores], students: Artifacts, tokens: float = 0
) -> list[ReportSection]:
    """What a point over guessing cost, for each kind of data at its sizes.

    Each student was trained on `tokens`; 0: on those of its last phase.
    """
    arms: dict[str, dict[int | None, list[CostedStudent]]] = {}
    for name, each in seen.items():
        if "accuracy" in each.scores and each.run.table != "messages":  # students asked differently
            trained = tokens or read_metrics(students[name])["tokens"]
            scores = each.scores["accuracy"]
            sizes = arms.setdefault(f"{each.run.kind} {each.run.student}".strip(), {})
            one = costed(root, students[name], scores, None, trained)
            sizes.setdefault(each.run.num_rows, []).append(one)
    means = {kind: list(map(mean_student, sizes.values())) for kind, sizes in arms.items()}
    found = point_cost_section(means, "guessing")
    return [found] if found else []


def quality_section(seen: Seen, measures: Measures) -> ReportSection:
    """Web pairs alone, N of each grade, for every size of student."""
    made = section("quality")
    for measure in measures:
        made.chart(_curves(seen, measure), f"{AXES[measure]}, 95 % interval over items.")
    made.rows(
        {"student": each.run.student, "pairs": each.run.kind, "number": _number(each),
         **levels(each, measures)}
        for each in seen
    )  # fmt: skip
    plain = {
        (each.run.student, each.run.num_rows): each
        for each in seen
        if each.run.kind == "no curation"
    }
    rows = (
        {"student": first.run.student, "number": first.run.num_rows,
         "pairs": f"{second.run.kind} against {first.run.kind}",
         **differences(second, first, measures)}
        for second in seen
        if (first := plain[second.run.student, second.run.num_rows]) is not second
        and first.num_rows == second.num_rows
    )  # fmt: skip
    return made.rows(rows, "Paired differences on the same items.").text(prose("one_run"))


def scaling_section(seen: Seen, measures: Measures) -> ReportSection:
    """Data sets at the same sizes and steps, and their coefficients."""
    made = section("scaling")
    for measure in measures:
        made.chart(_curves(seen, measure), f"{AXES[measure]}, 95 % interval over items.")
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
        made.rows(rows, f"w: {AXES[measure]}.")
        if test := slopes_of(seen, measure):
            said = "differ" if test.p_value < 0.05 else "are not shown to differ"
            made.text(f"Slopes {said}: F = {test.f:.2f}, p = {test.p_value:.3g} ({AXES[measure]}).")
            p_values = holm([each.p_value for each in test.differences.values()])
            tests = zip(test.differences.items(), p_values, strict=True)
            made.rows(
                {"slopes": f"{second} minus {first}", "difference of α": each.difference,
                 "p (Holm)": f"{p:.3g}"}
                for ((first, second), each), p in tests
            )  # fmt: skip
    theirs = ", ".join(f"{name} {alpha:g}" for name, alpha in PAPER_ALPHA.items())
    return made.text(f"In the paper, where w is a win rate of 7B students: {theirs}.")


def slopes_of(seen: Seen, measure: Measure) -> SlopeTest | None:
    """Return the test of equal slopes of the data sets, where there are lines to compare."""
    every = lines_of(seen, measure)
    lines = {kind: line for kind, line in every.items() if len(set(line[0])) > 1}
    is_possible = len(lines) > 1 and sum(len(sizes) - 2 for sizes, _ in lines.values()) > 0
    return equal_slopes(lines) if is_possible else None


def _paired_section(name: str) -> Callable[[Seen, Measures], ReportSection]:
    def make(seen: Seen, measures: Measures) -> ReportSection:
        return section(name).table(paired_table(seen, measures)).text(prose("one_run"))

    return make


SECTIONS: dict[TableName, Callable[[Seen, Measures], ReportSection]] = {
    "quality": quality_section,
    "sources": _paired_section("sources"),
    "messages": _paired_section("tags"),
    "scaling": scaling_section,
}


def results_of(seen: Seen, measures: Measures) -> list[dict[str, Any]]:
    """Return every student's figures as plain data, and the scaling coefficients after them."""
    lines: list[dict[str, Any]] = []
    for each in seen:
        figures = {str(measure): span(each.level(measure), 1) for measure in measures}
        lines.append({**each.run.model_dump(), "num_rows": each.num_rows, **figures})
    scaled = [each for each in seen if each.run.table == "scaling"]
    for measure in measures:
        if test := slopes_of(scaled, measure):
            line = {"table": "equal slopes", "measure": measure, "f": test.f}
            lines.append({**line, "p_value": test.p_value})
        lines += [
            {"table": "alpha", "kind": kind, "measure": measure, **span(fit.alpha, 1)}
            for kind, fit in fits(scaled, measure).items()
            if fit is not None
        ]
    return lines


def _number(each: StudentScores) -> str:
    if each.num_rows == each.run.num_rows:
        return f"{each.run.num_rows:,}"
    return f"{each.num_rows:,} (all there are; the point is {each.run.num_rows:,})"


def _curves(seen: Seen, measure: Measure) -> Spec:
    values = []
    for each in seen:
        ends = span(each.level(measure), 1 if measure == "held_out" else 100)
        line = f"{each.run.kind} {each.run.student}".strip()
        values.append({"line": line, "x": each.run.num_rows, "y": ends["value"], **ends})
    return curves(values, "rows", AXES[measure], is_log=True, dots=True)
