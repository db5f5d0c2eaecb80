"""The imitation audit at the end of a recipe."""

from collections.abc import Mapping, Sequence

from spyhop.evaluate.audit import (
    BASE,
    STUDENT,
    AuditConfig,
    AuditedConfig,
    audit,
    draw_audited,
)
from spyhop.evaluate.judging import JudgeConfig, judge
from spyhop.recipe.graph import Recipe, Ref, Use

NO_JUDGE = "none"
"""Key of an audit without judged preference."""


def add_audits(
    r: Recipe,
    judges: Sequence[Use],
    items: Mapping[str, Ref],
    base: Ref,
    student: Ref,
    teacher: Mapping[str, Ref],
) -> dict[str, Ref]:
    """Add each judge's verdicts on base and student, and an audit; return these by judge.

    Without a judge, the audit rests on accuracy and form.

    Args:
        r: The recipe.
        judges: Models that judge.
        items: Items that base and student were asked.
        base: The base's scores.
        student: The student's scores.
        teacher: Answers that the student was trained on.
    """
    pair, made = {BASE: base, STUDENT: student}, dict[str, Ref]()
    if not judges:
        return {NO_JUDGE: r.add("audit", audit, AuditConfig(), teacher=teacher, **pair)}
    drawn = r.add("audit.items", draw_audited, AuditedConfig(), items=items)
    for number, by in enumerate(judges, 1):
        name = "audit" if number == 1 else f"audit-{number}"
        verdicts = r.add(
            f"{name}.verdicts", judge, JudgeConfig(), questions=drawn, answers=pair, judge=by
        )
        made[by.config.label] = r.add(
            name, audit, AuditConfig(), base=base, student=student, teacher=teacher,
            verdicts=verdicts,
        )  # fmt: skip
    return made
