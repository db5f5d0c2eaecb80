"""Students side by side: levels, paired differences, and what data sets gain by growing.

Two pages show nothing else: data sets by equal tokens (both whales together), and as they grow.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from spyhop.evaluate import compare, outcomes
from spyhop.report.arm_figures import verdict
from spyhop.report.charts import Spec, curves, span
from spyhop.report.costs import CostedStudent, costed, mean_student, point_cost_section
from spyhop.report.html import ReportSection, Table, prose, report_stage, section, write_page
from spyhop.report.sections import (
    audit_section,
    counted,
    data_section,
    mask_section,
    rows_section,
    training_section,
)
from spyhop.schema import Answer, Config
from spyhop.stage import Context
from spyhop.statistics import (
    Interval,
    Scaling,
    SlopeTest,
    equal_slopes,
    holm,
    scaling,
    seed_interval,
    wilson,
)
from spyhop.store import Artifact, Artifacts
from spyhop.train import read_metrics

TableName = Literal["rounds", "quality", "sources", "messages", "scaling"]
Measure = Literal["accuracy", "held_out", "win_rate"]
AXES: dict[Measure, tuple[str, str]] = {
    "accuracy": ("accuracy %", "difference in accuracy, points"),
    "held_out": ("held-out log-likelihood a token", "difference in log-likelihood"),
    "win_rate": ("win rate % against the base", "difference in win rate, points"),
}
"""Headings of a level and of a difference."""
PAPER_ALPHA = {
    "Humpback": 6.95, "WizardLLM": 5.69, "Alpaca-GPT4": 5.40, "Vicuna": 4.53, "OA": 4.43,
    "LIMA": 2.86, "Alpaca": 1.99, "FLAN v2": 0.22,
}  # fmt: skip
"""Win rate in points against text-davinci-003, 7B (Table 3); the logarithm's base is not said."""
COMBINED = "combined"
OUTCOMES = ("supported", "silent", "revised", "contradicted", "unparsed")
SCALED = "Every student starts from one base; at one N all data sets are trained for equal steps."


class StudentRun(Config):
    """Table and line of a student."""

    table: TableName
    kind: str
    """Line of the table: a round, a grade of pairs, a data set, ..."""
    student: str = ""
    """Size of the student, where there are several."""
    num_rows: int | None = None
    """Rows it was to be trained on, where that is what is varied."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class StudentScores:
    """One student with its scores."""

    run: StudentRun
    scores: dict[Measure, Artifact]
    num_rows: int | None
    """Rows it was trained on, where that is what is varied; fewer than the run's if there were."""

    def level(self, measure: Measure) -> Interval:
        """Return the mean over items with a 95 % interval over items."""
        values = list(outcomes([self.scores[measure]]).values())
        if set(values) <= {0.0, 1.0}:
            return wilson(int(sum(values)), len(values))
        return seed_interval(values)

    def levels(self) -> dict[str, Interval]:
        """Return every level, as cells by heading."""
        return {AXES[measure][0]: self.level(measure) for measure in self.scores}

    def differences(self, first: "StudentScores") -> dict[str, Any]:
        """Return paired differences to another student and what they show, as cells by heading."""
        cells: dict[str, Any] = {}
        for measure, own in self.scores.items():
            found = compare([first.scores[measure]], [own])[0].difference
            by = measure.replace("_", " ")
            cells |= {AXES[measure][1]: found, f"so by {by}": verdict(found)}
        return cells


Seen = Sequence[StudentScores]


def seen_by(
    runs: Mapping[str, StudentRun],
    taken: Mapping[Measure, Artifacts | None],
    graded: Artifacts = MappingProxyType({}),
) -> dict[str, StudentScores]:
    """Return the students with their scores, by name; `graded` is what some were trained on."""
    return {
        name: StudentScores(
            run,
            {measure: each[name] for measure, each in taken.items() if each and name in each},
            graded[name].num_rows if name in graded else run.num_rows,
        )
        for name, run in runs.items()
    }


def paired_table(seen: Seen) -> Table:
    """Return every student's level and, but for the first, its difference from the first."""
    first = seen[0]
    rows = (
        {"student": each.run.kind, **each.levels()}
        | (each.differences(first) if each is not first else {})
        for each in seen
    )
    return Table.of(rows, f"95 % intervals over items; paired differences from {first.run.kind}.")


def paired_section(name: str, seen: Seen) -> ReportSection:
    """Return a section of the page's texts with the students and their differences."""
    return section(name).table(paired_table(seen)).text(prose("one_run"))


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
    return point_cost_section(means, "guessing")


def quality_section(seen: Seen) -> ReportSection:
    """Web pairs alone, N of each grade, for every size of student."""
    made, rows = section("quality"), []
    for measure in seen[0].scores:
        made.chart(_curves(seen, measure), f"{AXES[measure][0]}, 95 % interval over items.")
    for each in seen:
        number = f"{each.num_rows:,}"
        if each.num_rows != each.run.num_rows:
            number += f" (all there are; the point is {each.run.num_rows:,})"
        about = {"student": each.run.student, "pairs": each.run.kind, "number": number}
        rows.append({**about, **each.levels()})
    plain = {
        (each.run.student, each.run.num_rows): each
        for each in seen
        if each.run.kind == "no curation"
    }
    compared = (
        {"student": first.run.student, "number": first.run.num_rows,
         "pairs": f"{second.run.kind} against {first.run.kind}", **second.differences(first)}
        for second in seen
        if (first := plain[second.run.student, second.run.num_rows]) is not second
        and first.num_rows == second.num_rows
    )  # fmt: skip
    made.rows(rows).rows(compared, "Paired differences on the same items.")
    return made.text(prose("one_run"))


def scaling_section(seen: Seen) -> ReportSection:
    """Data sets at the same sizes and steps, and their coefficients."""
    made = section("scaling")
    for measure in seen[0].scores:
        title = AXES[measure][0]
        made.chart(_curves(seen, measure), f"{title}, 95 % interval over items.")
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
        made.rows(rows, f"w: {title}.")
        if test := slopes_of(seen, measure):
            said = "differ" if test.p_value < 0.05 else "are not shown to differ"
            made.text(f"Slopes {said}: F = {test.f:.2f}, p = {test.p_value:.3g} ({title}).")
            p_values = holm([each.p_value for each in test.differences.values()])
            tests = zip(test.differences.items(), p_values, strict=True)
            made.rows(
                {"slopes": f"{second} minus {first}", "difference of α": each.difference,
                 "p (Holm)": f"{p:.3g}"}
                for ((first, second), each), p in tests
            )  # fmt: skip
    theirs = ", ".join(f"{name} {alpha:g}" for name, alpha in PAPER_ALPHA.items())
    return made.text(f"In the paper, where w is a win rate of 7B students: {theirs}.")


def fits(seen: Seen, measure: Measure) -> dict[str, Scaling | None]:
    """Return each data set's scaling coefficient; None without enough points or scores."""
    return {
        kind: scaling(sizes, values)
        if len(sizes) > 2 and len(set(sizes)) > 1 and len(set(values)) > 1
        else None
        for kind, (sizes, values) in _lines(seen, measure).items()
    }


def slopes_of(seen: Seen, measure: Measure) -> SlopeTest | None:
    """Return the test of equal slopes of the data sets, where there are lines to compare."""
    lines = {kind: line for kind, line in _lines(seen, measure).items() if len(set(line[0])) > 1}
    is_possible = len(lines) > 1 and sum(len(sizes) - 2 for sizes, _ in lines.values()) > 0
    return equal_slopes(lines) if is_possible else None


def _lines(seen: Seen, measure: Measure) -> dict[str, tuple[list[int], list[float]]]:
    """Return (sizes, values) of each data set; shares are in percent."""
    found: dict[str, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
    for each in seen:
        sizes, values = found[each.run.kind]
        sizes.append(each.run.num_rows or 0)
        values.append((1 if measure == "held_out" else 100) * each.level(measure).value)
    return found


def _curves(seen: Seen, measure: Measure) -> Spec:
    values = []
    for each in seen:
        ends = span(each.level(measure), 1 if measure == "held_out" else 100)
        line = f"{each.run.kind} {each.run.student}".strip()
        values.append({"line": line, "x": each.run.num_rows, "y": ends["value"], **ends})
    return curves(values, "rows", AXES[measure][0], is_log=True, dots=True)


def results_of(seen: Seen) -> list[dict[str, Any]]:
    """Return every student's figures as plain data, and the scaling coefficients after them."""
    lines: list[dict[str, Any]] = []
    for each in seen:
        figures = {str(measure): span(each.level(measure), 1) for measure in each.scores}
        lines.append({**each.run.model_dump(), "num_rows": each.num_rows, **figures})
    scaled = [each for each in seen if each.run.table == "scaling"]
    for measure in scaled[0].scores if scaled else ():
        if test := slopes_of(scaled, measure):
            line = {"table": "equal slopes", "measure": measure, "f": test.f}
            lines.append({**line, "p_value": test.p_value})
        lines += [
            {"table": "alpha", "kind": kind, "measure": measure, **span(fit.alpha, 1)}
            for kind, fit in fits(scaled, measure).items()
            if fit is not None
        ]
    return lines


class CombinedPageConfig(Config):
    """What the inputs are."""

    title: str
    tokens: int
    """Training tokens of each student."""
    sets: dict[str, tuple[str, ...]]
    """Names of the answers that each student was trained on."""


@report_stage(version=6)
def combined_page(
    ctx: Context,
    config: CombinedPageConfig,
    *,
    answers: Artifacts,
    students: Artifacts,
    accuracy: Artifacts,
    held_out: Artifacts,
    audits: Artifacts,
) -> None:
    """Write `report.html` and `results.json` of the comparison; scores are named by student."""
    runs = {name: StudentRun(table="sources", kind=name) for name in students}
    seen = seen_by(runs, {"accuracy": accuracy, "held_out": held_out})
    sets = {name: {each: answers[each] for each in config.sets[name]} for name in students}
    compared = section("compared").rows(
        {"data set": name, "rows": sum(each.num_rows for each in sets[name].values()),
         "rows trained on": student.record.counts.get("rows/trained", 0),
         "tokens": read_metrics(student)["tokens"], **seen[name].levels()}
        for name, student in students.items()
    )  # fmt: skip
    if accuracy or held_out:
        compared.table(paired_table(list(seen.values())))
    sections = [
        compared.text(prose("asked_under"), prose("seeds_held_out")),
        *([audit_section(audits)] if accuracy else []),
        *costs_section(ctx.root, seen, students, config.tokens),
        section("evidence").rows(map(_checks, sets[COMBINED].values())),
        rows_section(sets[COMBINED]),
        mask_section(students[COMBINED]),
        training_section({name: [each] for name, each in students.items()}),
        data_section(answers=answers, students=students),
    ]
    lead = prose("three_sets", tokens=config.tokens)
    results = results_of(list(seen.values()))
    write_page(ctx.out, config.title, lead, sections, answers, students, results=results)


def _checks(answers: Artifact) -> dict[str, object]:
    counts = answers.record.counts
    return {
        "explained by": next((row.model for row in answers.rows(Answer)), ""),
        **{name: counts.get(f"outcome/{name}", 0) for name in OUTCOMES},
        "dropped": counted(answers.record.dropped) or "no row",
    }


class ScalePageConfig(Config):
    """What the students are."""

    title: str
    runs: dict[str, StudentRun]
    """Data set, size and seed of each student, by its name."""


@report_stage(version=4)
def scale_page(
    ctx: Context,
    config: ScalePageConfig,
    *,
    students: Artifacts,
    accuracy: Artifacts | None = None,
    held_out: Artifacts | None = None,
    win_rate: Artifacts | None = None,
) -> None:
    """Write `report.html` and `results.json`: curves, slopes, and whether the slopes differ."""
    taken: dict[Measure, Artifacts | None] = {
        "accuracy": accuracy, "held_out": held_out, "win_rate": win_rate
    }  # fmt: skip
    by_name = seen_by(config.runs, taken)
    seen = list(by_name.values())
    sections = [
        scaling_section(seen),
        *costs_section(ctx.root, by_name, students),
        training_section({name: [step] for name, step in students.items()}),
        data_section(students=students),
    ]
    write_page(ctx.out, config.title, SCALED, sections, students, results=results_of(seen))
