"""The imitation audit in a report: conclusion, gains with intervals, and form."""

import json
from collections.abc import Mapping
from typing import Any

from spyhop.evaluate.auditing import AUDIT
from spyhop.report.charts import spans
from spyhop.report.html import ReportSection, Table
from spyhop.store import Artifact

AUDITS = "audits.json"
"""Of a report: the conclusion of each audit."""
TITLE = "Imitation audit: reasoning or style?"
UNKNOWN = "cannot be separated"
NO_AUDIT = "Not made: no responses of base and student to the same items, or none of a teacher."
NO_JUDGE = (
    "No verdicts of a judge: what a reader would prefer is not known, the rest does not need it. "
    "Set `judge` in the recipe to a model's file (TOML) or folder, and run again: nothing else is "
    "made again."
)


def sentences(audits: Mapping[str, Artifact]) -> dict[str, str]:
    """Return each audit's conclusion by judge."""
    return {
        name: json.loads(each.file(AUDIT).read_text(encoding="utf-8"))["sentence"]
        for name, each in audits.items()
    }


def audit_section(audits: Mapping[str, Artifact] | None) -> ReportSection:
    """Say what a student's gain over its base is, under each judge, with every interval drawn."""
    section = ReportSection(TITLE)
    for name, artifact in (audits or {}).items():
        _add(section, name, json.loads(artifact.file(AUDIT).read_text(encoding="utf-8")))
    if not audits:
        section.text(NO_AUDIT)
    return section


def _add(section: ReportSection, judge: str, found: Mapping[str, Any]) -> None:
    section.text(f"Judge: {judge}. {found['sentence']}")
    shares = {
        name: gain and [round(100 * gain[part], 1) + 0.0 for part in ("value", "low", "high")]
        for name, gain in found["gains"].items()
    }
    ends = ("value", "low", "high")
    known = [{"row": n, **dict(zip(ends, g, strict=True))} for n, g in shares.items() if g]
    caption = f"Student minus base in points, with 95 % intervals, on {found['n']:,} items."
    section.chart(spans(known, "points", reference=0), caption)
    rows = [
        [name, *((f"{gain[0]:+.1f}", f"{gain[1]:.1f} to {gain[2]:.1f}") if gain else ("", UNKNOWN))]
        for name, gain in shares.items()
    ]
    section.table(Table(["gain", "points", "95 % interval"], rows))
    if not found["num_judged"]:
        section.text(NO_JUDGE)
    else:
        section.text(_judged(found))
    section.table(
        Table(
            ["form", "base", "student", "teacher"],
            [[name, *(f"{each:.2f}" for each in means)] for name, means in found["form"].items()],
            "Means; 1 is a doubling of the count, or for overlap a quarter of the word pairs.",
        )
    )


def _judged(found: Mapping[str, Any]) -> str:
    return (
        f"The judge compared {found['num_judged']:,} items in both orders: "
        f"{100 * found['missing']:.1f} % of the verdicts are missing, and on "
        f"{100 * found['flips']:.0f} % of the items the two orders disagree. Preference runs "
        "from -100 (always the base) to 100. The judge's rewards are measured on these verdicts, "
        "and their uncertainty is part of the intervals."
    )
