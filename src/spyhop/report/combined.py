"""Reports that compare data sets: by equal tokens (both whales together), and as they grow."""

from spyhop.report.html import prose, report_stage, section, write_page
from spyhop.report.humpback_figures import Measure, StudentRun, seen_by
from spyhop.report.humpback_tables import (
    costs_section,
    levels,
    paired_table,
    results_of,
    scaling_section,
)
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
from spyhop.store import Artifact, Artifacts
from spyhop.train import read_metrics

COMBINED = "combined"
OUTCOMES = ("supported", "silent", "revised", "contradicted", "unparsed")
SCALED = "Every student starts from one base; at one N all data sets are trained for equal steps."


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
    taken: dict[Measure, Artifacts] = {"accuracy": accuracy, "held_out": held_out}
    measures = [measure for measure, scores in taken.items() if scores]
    seen = seen_by({name: StudentRun(table="sources", kind=name) for name in students}, taken)
    sets = {name: {each: answers[each] for each in config.sets[name]} for name in students}
    compared = section("compared").rows(
        {
            "data set": name,
            "rows": sum(each.num_rows for each in sets[name].values()),
            "rows trained on": student.record.counts.get("rows/trained", 0),
            "tokens": read_metrics(student)["tokens"],
            **levels(seen[name], measures),
        }
        for name, student in students.items()
    )
    if measures:
        compared.table(paired_table(list(seen.values()), measures))
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
    results = results_of(list(seen.values()), measures)
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
    every: dict[Measure, Artifacts | None] = {
        "accuracy": accuracy, "held_out": held_out, "win_rate": win_rate
    }  # fmt: skip
    taken = {measure: scores for measure, scores in every.items() if scores}
    seen, measures = seen_by(config.runs, taken), list(taken)
    sections = [
        scaling_section(list(seen.values()), measures),
        *costs_section(ctx.root, seen, students),
        training_section({name: [step] for name, step in students.items()}),
        data_section(students=students),
    ]
    results = results_of(list(seen.values()), measures)
    write_page(ctx.out, config.title, SCALED, sections, students, results=results)
