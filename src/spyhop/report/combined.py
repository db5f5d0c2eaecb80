"""The report of both whales together: three data sets, three students, equal tokens."""

import json
from collections.abc import Iterator, Sequence

from spyhop.report.html import Section, Table, render_page
from spyhop.report.humpback_figures import Measure, Seen, StudentRun, seen_by
from spyhop.report.humpback_tables import AXES, level, paired_table, results_of
from spyhop.report.page import PAGE, RESULTS
from spyhop.report.sections import (
    data_section,
    mask_section,
    samples_section,
    training_section,
)
from spyhop.schema import Answer, Config
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact
from spyhop.train import read_metrics

COMBINED = "combined"
CAVEATS = (
    "Each student is asked under the system message that its own recipe asks under: tags for "
    "Humpback's pairs, none for the two sets of explanations. All start from one base and read "
    "the same number of tokens, so a small set is read more often.",
    "Held-out responses are those of the seeds: a measure that favours whoever learned from the "
    "other seeds.",
)


class CombinedPageConfig(Config):
    """What the inputs are."""

    title: str
    tokens: int
    """Training tokens of each student."""
    sizes: tuple[int, ...]
    """Artifacts of each student's rows in `answers`, in order."""
    students: tuple[str, ...]
    has_accuracy: bool
    has_held_out: bool


def plan_page(config: CombinedPageConfig, **inputs: list[Estimate]) -> Estimate:
    """A few seconds for the charts."""
    return Estimate(seconds=5)


@stage(version=1, writes=FOLDER, plan=plan_page)
def combined_page(
    ctx: Context,
    config: CombinedPageConfig,
    *,
    answers: list[Artifact],
    students: list[Artifact],
    accuracy: list[Artifact],
    held_out: list[Artifact],
) -> None:
    """Write `report.html` and `results.json` of the comparison."""
    runs = tuple(StudentRun(table="sources", kind=name) for name in config.students)
    seen = seen_by(runs, accuracy, held_out)
    taken = (("accuracy", config.has_accuracy), ("held_out", config.has_held_out))
    measures: list[Measure] = [name for name in AXES if dict(taken)[name]]
    sets = dict(zip(config.students, _divided(config.sizes, answers), strict=True))
    sections = [
        _students_section(config, sets, students, seen, measures),
        _checks_section(sets[COMBINED]),
        samples_section(sets[COMBINED]),
        mask_section(students[-1]),
        training_section(
            [(name, [each]) for name, each in zip(config.students, students, strict=True)]
        ),
        data_section([*answers, *students]),
    ]
    lead = (
        f"Three students of {config.tokens:,} tokens each: Humpback's pairs, Orca's answers on "
        "collections, and Humpback's curated instructions as Orca's queries."
    )
    footer = "\n".join(each.path.name for each in [*answers, *students])
    html = render_page(config.title, lead, sections, f"Made by spyhop from:\n{footer}")
    (ctx.out / PAGE).write_text(html, encoding="utf-8")
    (ctx.out / RESULTS).write_text(json.dumps(results_of(seen, measures), indent=1))


def _divided(sizes: Sequence[int], answers: Sequence[Artifact]) -> Iterator[list[Artifact]]:
    start = 0
    for size in sizes:
        yield list(answers[start : start + size])
        start += size


def _students_section(
    config: CombinedPageConfig,
    sets: dict[str, list[Artifact]],
    students: Sequence[Artifact],
    seen: Sequence[Seen],
    measures: Sequence[Measure],
) -> Section:
    section = Section("Three data sets at equal tokens")
    rows = [
        [
            name,
            f"{sum(each.num_rows for each in sets[name]):,}",
            f"{student.record.counts.get('rows/trained', 0):,}",
            f"{read_metrics(student)['tokens']:,}",
            *(level(one, measure) for measure in measures),
        ]
        for name, student, one in zip(config.students, students, seen, strict=True)
    ]
    headings = ["data set", "rows", "rows trained on", "tokens", *(AXES[m] for m in measures)]
    section.table(Table(headings, rows))
    if measures:
        section.table(paired_table(seen, measures))
    for caveat in CAVEATS:
        section.text(caveat)
    return section


def _checks_section(answers: Sequence[Artifact]) -> Section:
    section = Section(
        "Checked against the texts",
        "Each explanation was compared with the web text that its instruction was written for; "
        "the text is evidence, not the answer, and no part of what is trained on.",
    )
    kinds = ("supported", "silent", "revised", "contradicted", "unparsed")
    rows = []
    for each in answers:
        record = each.record
        dropped = ", ".join(f"{name} {num:,}" for name, num in record.dropped.items()) or "none"
        counts = [f"{record.counts.get(f'outcome/{kind}', 0):,}" for kind in kinds]
        model = next((row.model for row in each.rows(Answer)), "")
        rows.append([model, *counts, dropped])
    section.table(Table(["explained by", *kinds, "dropped"], rows))
    return section
