"""The report of both whales together: three data sets, three students, equal tokens."""

import json
from collections.abc import Mapping, Sequence

from spyhop.report.audit import audit_section
from spyhop.report.html import RESULTS, ReportSection, Table, write_page
from spyhop.report.humpback_figures import Measure, StudentRun, StudentScores, measures_of, seen_by
from spyhop.report.humpback_tables import AXES, level, paired_table, results_of
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
    "Held-out responses are those of the seeds: a measure that favours a student "
    "trained on the other seeds.",
)


class CombinedPageConfig(Config):
    """What the inputs are."""

    title: str
    tokens: int
    """Training tokens of each student."""
    sets: dict[str, tuple[str, ...]]
    """Names of the answers that each student was trained on."""


@stage(
    version=3, writes=FOLDER, shows_names=True, plan=lambda config, **inputs: Estimate(seconds=5)
)
def combined_page(
    ctx: Context,
    config: CombinedPageConfig,
    *,
    answers: Mapping[str, Artifact],
    students: Mapping[str, Artifact],
    accuracy: Mapping[str, Artifact],
    held_out: Mapping[str, Artifact],
    audits: Mapping[str, Artifact],
) -> None:
    """Write `report.html` and `results.json` of the comparison; scores are named by student."""
    runs = {name: StudentRun(table="sources", kind=name) for name in students}
    seen = seen_by(runs, accuracy, held_out)
    measures = measures_of(accuracy, held_out)
    sets = {name: {each: answers[each] for each in config.sets[name]} for name in students}
    sections = [
        _students_section(sets, students, seen, measures),
        *([audit_section(audits)] if accuracy else []),
        _checks_section(sets[COMBINED]),
        samples_section(sets[COMBINED]),
        mask_section(students[COMBINED]),
        training_section({name: [each] for name, each in students.items()}),
        data_section(answers=answers, students=students),
    ]
    lead = (
        f"Three students of {config.tokens:,} tokens each: Humpback's pairs, Orca's answers on "
        "collections, and Humpback's curated instructions as Orca's queries."
    )
    write_page(ctx.out, config.title, lead, sections, answers, students)
    (ctx.out / RESULTS).write_text(json.dumps(results_of(list(seen.values()), measures), indent=1))


def _students_section(
    sets: Mapping[str, Mapping[str, Artifact]],
    students: Mapping[str, Artifact],
    seen: Mapping[str, StudentScores],
    measures: Sequence[Measure],
) -> ReportSection:
    section = ReportSection("Three data sets at equal tokens")
    rows = [
        [
            name,
            f"{sum(each.num_rows for each in sets[name].values()):,}",
            f"{student.record.counts.get('rows/trained', 0):,}",
            f"{read_metrics(student)['tokens']:,}",
            *(level(seen[name], measure) for measure in measures),
        ]
        for name, student in students.items()
    ]
    headings = ["data set", "rows", "rows trained on", "tokens", *(AXES[m] for m in measures)]
    section.table(Table(headings, rows))
    if measures:
        section.table(paired_table(list(seen.values()), measures))
    for caveat in CAVEATS:
        section.text(caveat)
    return section


def _checks_section(answers: Mapping[str, Artifact]) -> ReportSection:
    section = ReportSection(
        "Checked against the texts",
        "Each explanation was compared with the web text that its instruction was written for; "
        "the text is evidence, not the answer, and no part of what is trained on.",
    )
    kinds = ("supported", "silent", "revised", "contradicted", "unparsed")
    rows = []
    for each in answers.values():
        record = each.record
        dropped = ", ".join(f"{name} {num:,}" for name, num in record.dropped.items()) or "none"
        counts = [f"{record.counts.get(f'outcome/{kind}', 0):,}" for kind in kinds]
        model = next((row.model for row in each.rows(Answer)), "")
        rows.append([model, *counts, dropped])
    section.table(Table(["explained by", *kinds, "dropped"], rows))
    return section
