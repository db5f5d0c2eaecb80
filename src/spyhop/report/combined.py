"""The report of both whales together: three data sets, three students, equal tokens."""

import json
from collections.abc import Mapping

from spyhop.report.html import RESULTS, ReportSection, write_page
from spyhop.report.humpback_figures import Measure, StudentRun, seen_by
from spyhop.report.humpback_tables import levels, paired_table, results_of
from spyhop.report.sections import (
    audit_section,
    data_section,
    mask_section,
    rows_section,
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
OUTCOMES = ("supported", "silent", "revised", "contradicted", "unparsed")


class CombinedPageConfig(Config):
    """What the inputs are."""

    title: str
    tokens: int
    """Training tokens of each student."""
    sets: dict[str, tuple[str, ...]]
    """Names of the answers that each student was trained on."""


@stage(
    version=4, writes=FOLDER, shows_names=True, plan=lambda config, **inputs: Estimate(seconds=5)
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
    taken: dict[Measure, Mapping[str, Artifact]] = {"accuracy": accuracy, "held_out": held_out}
    measures = [measure for measure, scores in taken.items() if scores]
    seen = seen_by({name: StudentRun(table="sources", kind=name) for name in students}, taken)
    sets = {name: {each: answers[each] for each in config.sets[name]} for name in students}
    compared = ReportSection("Three data sets at equal tokens")
    compared.rows(
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
    for caveat in CAVEATS:
        compared.text(caveat)
    sections = [
        compared,
        *([audit_section(audits)] if accuracy else []),
        _checks_section(sets[COMBINED]),
        rows_section(sets[COMBINED]),
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


def _checks_section(answers: Mapping[str, Artifact]) -> ReportSection:
    section = ReportSection(
        "Checked against the texts",
        "Each explanation was compared with the web text that its instruction was written for; "
        "the text is evidence, not the answer, and no part of what is trained on.",
    )
    section.rows(
        {
            "explained by": next((row.model for row in each.rows(Answer)), ""),
            **{name: each.record.counts.get(f"outcome/{name}", 0) for name in OUTCOMES},
            "dropped": ", ".join(f"{name} {num:,}" for name, num in each.record.dropped.items())
            or "no row",
        }
        for each in answers.values()
    )
    return section
