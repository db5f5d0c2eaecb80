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
    verdicts: Artifact | None = None,
) -> None:
    """Write `audit.json`: what the student gained over its base, and what that gain is."""
    before, after = (
        {row.id: row for row in scores.rows(Score) if row.sample_index == 0}
        for scores in (base, student)
    )
    judged = {} if verdicts is None else _preferences(verdicts)
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
    found = audit_items(items, texts)
    ctx.count(f"conclusion/{found.conclusion}")
    (ctx.out / AUDIT).write_text(json.dumps(asdict(found), indent=1), encoding="utf-8")


def _preferences(verdicts: Artifact) -> dict[str, dict[str, list[float]]]:
    """Return an item's values by order: 1 for the student, -1 for the base; missing ones aside."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in verdicts.rows(Verdict):
        sign = 1.0 if row.b == STUDENT else -1.0
        is_first = (row.order == "ab") == (row.a == STUDENT)
        values = found[row.item_id]["first" if is_first else "second"]
        if row.winner is not None:
            values.append({"a": -sign, "b": sign, "tie": 0.0}[row.winner])
    return found


def _item(base: Score, student: Score, judged: Mapping[str, list[float]]) -> AuditItem:
    first, second = (
        sum(values) / len(values) if values else None
        for values in (judged.get("first"), judged.get("second"))
    )
    return AuditItem(
        base=base.response,
        student=student.response,
        base_right=_credit(base),
        student_right=_credit(student),
        student_first=first,
        student_second=second,
        num_asked=len(judged),
    )


def _credit(score: Score) -> float:
    return score.chance if score.extracted is None else float(score.correct)


def _texts(answers: Artifact, num: int) -> list[str]:
    rows = (row for row in answers.rows(Answer) if row.ending == "whole")
    some = nsmallest(num, rows, key=lambda row: number_of(f"audit/{row.id}"))
    return [row.messages[-1].content for row in some]
