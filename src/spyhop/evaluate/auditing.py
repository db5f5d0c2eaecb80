"""The imitation audit of a run: draw items for a judge, then read scores, verdicts and texts."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from heapq import nsmallest
from itertools import chain

from pydantic import Field

from spyhop.evaluate.audit import AuditItem, audit_items
from spyhop.schema import Answer, Config, InputError, Item, Question, Score, Verdict
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact, number_of

AUDIT = "audit.json"
BASE, STUDENT = "base", "student"
"""Names of the two models in the verdicts."""


class AuditedConfig(Config):
    """Items that the judge of an audit compares responses to."""

    num_items: int = Field(200, gt=0)
    """Items of all suites together: a fixed random sample, so that a judge costs the same whatever
    the size of the suites."""


class AuditConfig(Config):
    """Texts that stand for the teacher's form."""

    num_texts: int = Field(500, gt=0)
    """Of the teacher's answers: a fixed random sample."""


@stage(
    version=1,
    writes=Question,
    plan=lambda config, items: Estimate(
        rows=min(config.num_items, sum(each.rows for each in items.values()))
    ),
)
def draw_audited(
    ctx: Context, config: AuditedConfig, *, items: Mapping[str, Artifact]
) -> Iterator[Question]:
    """Yield a fixed sample of the items as questions, without the gold answer."""
    rows = chain.from_iterable(each.rows(Item) for each in items.values())
    for item in nsmallest(config.num_items, rows, key=lambda row: number_of(f"audit/{row.id}")):
        yield Question(id=item.id, suite=item.suite, topic=item.task, turns=[item.question])


@stage(version=1, writes=FOLDER, plan=lambda config, **inputs: Estimate(seconds=4))
def audit(
    ctx: Context,
    config: AuditConfig,
    *,
    base: Artifact,
    student: Artifact,
    teacher: Mapping[str, Artifact],
    verdicts: Artifact,
    teacher_scores: Artifact | None = None,
) -> None:
    """Write `audit.json`: what the student gained over its base, and what that gain is.

    Args:
        ctx: As for every stage.
        config: Texts of the teacher.
        base: The base's scores.
        student: The student's scores on the same items.
        teacher: Answers that the student was trained on.
        verdicts: A judge's verdicts on responses of `base` and `student`.
        teacher_scores: The teacher's scores on the items, if it was asked.

    Raises:
        InputError: If base and student have no written response to the same item.
    """
    before, after = _first(base), _first(student)
    judged = _preferences(verdicts)
    items = [
        _item(row, after[row_id], judged.get(row_id, {}))
        for row_id, row in before.items()
        if row_id in after and (row.response or after[row_id].response)
    ]
    texts = [text for artifact in teacher.values() for text in _texts(artifact, config.num_texts)]
    if not items or not texts:
        raise InputError(
            f"{ctx.out.name}: an audit needs whole answers of the teacher, and responses of base "
            "and student to the same items (items scored by likelihood have none)"
        )
    known = list(teacher_scores.rows(Score)) if teacher_scores else []
    accuracy = sum(row.correct for row in known) / len(known) if known else 1.0
    found = audit_items(items, texts, teacher_accuracy=accuracy)
    ctx.count(f"conclusion/{found.conclusion}")
    (ctx.out / AUDIT).write_text(json.dumps(asdict(found), indent=1), encoding="utf-8")


def _first(scores: Artifact) -> dict[str, Score]:
    """Return the first sample of each item."""
    return {row.id: row for row in scores.rows(Score) if row.sample_index == 0}


def _preferences(verdicts: Artifact) -> dict[str, dict[str, list[float | None]]]:
    """Return the values of an item's verdicts by order: 1 for the student, -1 for the base."""
    found: dict[str, dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for row in verdicts.rows(Verdict):
        sign = 1.0 if row.b == STUDENT else -1.0
        value = {"a": -sign, "b": sign, "tie": 0.0}.get(row.winner or "")
        is_first = (row.order == "ab") == (row.a == STUDENT)
        found[row.item_id]["first" if is_first else "second"].append(value)
    return found


def _item(base: Score, student: Score, judged: Mapping[str, list[float | None]]) -> AuditItem:
    values = {order: _mean(judged.get(order, [])) for order in ("first", "second")}
    return AuditItem(
        base=base.response,
        student=student.response,
        base_right=base.correct,
        student_right=student.correct,
        base_answered=base.extracted is not None,
        student_answered=student.extracted is not None,
        chance=base.chance,
        student_first=values["first"],
        student_second=values["second"],
        num_asked=len(judged),
    )


def _mean(values: list[float | None]) -> float | None:
    """Return the mean of repeated verdicts; None if all are missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _texts(answers: Artifact, num: int) -> list[str]:
    rows = (row for row in answers.rows(Answer) if row.ending == "whole")
    some = nsmallest(num, rows, key=lambda row: number_of(f"audit/{row.id}"))
    return [row.messages[-1].content for row in some]
