"""The imitation audit in a report: conclusion, gains with intervals, and form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from spyhop.evaluate.auditing import AUDIT
from spyhop.lazy import alt
from spyhop.report.html import ACCENT, INK, ReportSection, Table
from spyhop.store import Artifact

AUDITS = "audits.json"
"""Of a report: the conclusion of each audit."""
TITLE = "Imitation audit: reasoning or style?"
NO_JUDGE = (
    "Not made: no judge is named. A higher accuracy or a preferred response alone does not say "
    "whether a student reasons or only sounds like its teacher. Set `judge` in the recipe to a "
    "model's file (TOML) or folder, and run again: nothing else is made again."
)
GAINS = {
    "accuracy": "accuracy, no answer counted as a guess",
    "gain": "judged preference",
    "at_equal_answers": "judged preference at equal answers",
    "at_equal_form": "judged preference at equal answers and form",
    "for_right": "judge's reward for a right answer",
    "for_first": "judge's reward for the first place",
    "closed": "distance to the teacher's form closed",
}
"""Titles of the intervals in `audit.json`."""
UNKNOWN = "cannot be separated"


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
        section.text(NO_JUDGE)
    return section


def _add(section: ReportSection, judge: str, found: Mapping[str, Any]) -> None:
    section.text(f"Judge {judge}. {found['sentence']}")
    judged = found["judged"] or {}
    values = {name: found.get(name) or judged.get(name) for name in GAINS}
    known = {GAINS[name]: each for name, each in values.items() if each}
    section.chart(
        _chart(known),
        f"Student minus base in points of 100, with 95 % intervals, on {found['n']:,} items.",
    )
    rows = [[title, *_cells(values[name])] for name, title in GAINS.items()]
    section.table(Table(["gain", "points", "95 % interval"], rows))
    if judged:
        section.text(
            f"{judge} judged {judged['n']:,} items in both orders: "
            f"{100 * judged['missing']:.1f} % of the verdicts are missing, and on "
            f"{100 * judged['flips']:.0f} % of the items the two orders disagree. Preference runs "
            "from -100 (always the base) to 100; the judge's reward for the place and for right "
            "answers is measured on these verdicts, and its uncertainty is part of the intervals."
        )
    section.table(
        Table(
            ["form", "base", "student", "teacher"],
            [[name, *(f"{each:.2f}" for each in means)] for name, means in found["form"].items()],
            "Means; 1 is a doubling of the count, or for overlap a quarter of the word pairs.",
        )
    )


def _cells(interval: Mapping[str, float] | None) -> list[str]:
    if interval is None:
        return ["", UNKNOWN]
    value, low, high = (100 * interval[name] for name in ("value", "low", "high"))
    return [f"{value:+.1f}", f"{low:.1f} to {high:.1f}"]


def _chart(known: Mapping[str, Mapping[str, float]]) -> alt.TopLevelMixin:
    values = [
        {"gain": title, **{name: 100 * each[name] for name in ("value", "low", "high")}}
        for title, each in known.items()
    ]
    base = alt.Chart(alt.Data(values=values))
    y = alt.Y("gain:N", sort=list(known), title=None, axis=alt.Axis(labelLimit=320))
    x = alt.X("low:Q", title="points", scale=alt.Scale(domain=[-100, 100], clamp=True))
    rules = base.mark_rule(strokeWidth=3, color=ACCENT).encode(x=x, x2="high:Q", y=y)
    dots = base.mark_circle(size=80, color=INK, opacity=1).encode(x="value:Q", y=y)
    zero = alt.Chart(alt.Data(values=[{"x": 0}])).mark_rule(strokeDash=[5, 4], color="#b33")
    return alt.layer(zero.encode(x="x:Q"), rules, dots).properties(
        width=420, height=30 * len(known)
    )
