"""The imitation audit: did a student learn its teacher's reasoning, its style, or both?

A judge may prefer a student that only sounds like its teacher. Accuracy decides about reasoning;
form, and what the judge prefers at equal answers, decide about style.

- *Accuracy*: a response without an answer counts as a guess, so learning the format gains nothing.
- *Form*: the share of the distance between the base's mean features (`spyhop.text.form`) and the
  teacher's that the student has closed.
- *Judged preference*: a regression on the order, on which answers are right, and on form. Each
  bias of the judge is a coefficient, so its uncertainty is part of the interval.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from heapq import nsmallest
from statistics import fmean
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from spyhop.lazy import stats
from spyhop.schema import Answer, Config, InputError, Item, Question, Row, Score, Verdict
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.statistics import Interval, paired_difference
from spyhop.statistics.interval import LEVEL, t_quantile
from spyhop.store import Artifact, Artifacts, number_of, rows_of
from spyhop.text.form import FEATURES, form_of, phrases_of

Conclusion = Literal["reasoning", "style", "both", "cannot tell"]
Gains = dict[str, Interval | None]
ACCURACY, JUDGED, FORM = "accuracy", "judged preference", "distance to the teacher's form closed"
EQUAL_ANSWERS, EQUAL_FORM = f"{JUDGED} at equal answers", f"{JUDGED} at equal answers and form"
FOR_RIGHT, FOR_FIRST = "judge's reward for a right answer", "judge's reward for the first place"
MOST_CAUGHT_UP = 0.5
"""A gain in accuracy that is surely below this share of what could be gained, and not shown to be
above 0, is no gain in reasoning."""
LEAST_CLOSED = 0.25
"""Share of the distance to the teacher's form that a student of its style has closed."""
LEAST_PREFERENCE = 0.1
"""Preference at equal answers that shows a gain in style by itself."""
LEAST_DISTANCE = 0.5
"""Distance in form below which a base already writes as the teacher does."""
ITEMS_PER_FEATURE = 20
"""With fewer items per feature, form enters the regression as one figure: the way closed."""
Array = NDArray[np.float64]
AnyRow = TypeVar("AnyRow", bound=Row)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditItem:
    """One item, as the base and the student answered it and a judge compared the two."""

    base: str
    student: str
    base_right: float
    """1 if right, 0 if wrong; the accuracy of a guess where the response holds no answer."""
    student_right: float
    student_first: float | None = None
    """The judge's preference when it read the student's response first: 1 for the student, 0 for
    a tie, -1 for the base; None where it is missing."""
    student_second: float | None = None
    """The same when it read the student's response second."""
    num_asked: int = 2
    """Orders in which a judge was asked; 0 for an item that it does not judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What a student gained over its base."""

    conclusion: Conclusion = "cannot tell"
    sentence: str = (
        "Cannot tell: there are no responses of base and student to the same items, or no whole "
        "answers of the teacher."
    )
    gains: Gains = field(default_factory=dict)
    """By name, as shares; None where the data cannot separate it from the others."""
    form: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """Mean of each feature for base, student and teacher."""
    n: int = 0
    num_judged: int = 0
    missing: float = 0.0
    """Share of the judge's verdicts that are missing."""
    flips: float = 0.0
    """Share of items on which the judge's two orders differ."""


def audit_items(items: Sequence[AuditItem], teacher: Sequence[str]) -> Audit:
    """Return what a student gained over its base; the teacher's texts may be on other items.

    A gain in reasoning is shown by an accuracy gain whose interval lies above 0. It is ruled out,
    as in a test of equivalence, by the narrower interval of level 2 * `LEVEL` - 1: it holds 0, and
    ends below half of what could be gained.
    """
    if not items or not teacher:
        raise ValueError("an audit needs items, and texts of the teacher")
    phrases = phrases_of(teacher)
    base, student, target = (
        np.array([form_of(text, phrases) for text in texts])
        for texts in ([i.base for i in items], [i.student for i in items], teacher)
    )
    means = np.stack([form.mean(0) for form in (base, student, target)], axis=1)
    before, after = np.array([(i.base_right, i.student_right) for i in items], dtype=float).T
    accuracy, narrow = (_accuracy(before, after, level) for level in (LEVEL, 2 * LEVEL - 1))
    gains: Gains = {ACCURACY: accuracy, FORM: _closed(base, student, target)}
    right = (after == 1).astype(float) - (before == 1)  # a judge sees no answer as a wrong one
    gains |= _judged(items, right, student - base, means[:, 2] - means[:, 0])
    most = MOST_CAUGHT_UP * max(0.1, 1 - float(before.mean()))
    conclusion, why = _conclude(gains, narrow, most, len(items))
    reason = f" ({why})" if why else ""
    pairs = [(i.student_first, i.student_second) for i in items]
    both = [pair for pair in pairs if None not in pair]
    num = sum(value is not None for pair in pairs for value in pair)
    return Audit(
        conclusion=conclusion,
        sentence=f"{conclusion.capitalize()}{reason}: {_movements(gains)}.",
        gains=gains,
        form={name: tuple(row) for name, row in zip(FEATURES, means.tolist(), strict=True)},
        n=len(items),
        num_judged=sum(pair != (None, None) for pair in pairs),
        missing=1 - num / max(1, num, sum(item.num_asked for item in items)),
        flips=sum(first != second for first, second in both) / max(1, len(both)),
    )


def _accuracy(before: Array, after: Array, level: float) -> Interval:
    """Tango's interval for paired shares; where guesses count, that of a mean."""
    if np.isin([before, after], (0, 1)).all():
        return paired_difference(before, after).difference
    (found,) = _regress(after - before, np.ones((len(before), 1)), np.arange(len(before)), level)
    assert found is not None  # a mean is always identified
    return found


def _closed(base: Array, student: Array, target: Array) -> Interval | None:
    """Return 1 minus the ratio of the student's and the base's distance to the teacher's form.

    The interval is the delta method's, over items and the teacher's texts.
    """
    gaps = [form.mean(0) - target.mean(0) for form in (base, student)]
    before, after = (float(np.linalg.norm(gap)) for gap in gaps)
    if before < LEAST_DISTANCE:
        return None
    value = 1 - after / before
    if len(base) < 2:
        return Interval(value=value, low=-np.inf, high=1.0)
    for_base = after / before**3 * gaps[0]
    for_student = -gaps[1] / (max(after, 1e-12) * before)
    variance = np.var(base @ for_base + student @ for_student, ddof=1) / len(base)
    if len(target) > 1:
        variance += np.var(target @ (for_base + for_student), ddof=1) / len(target)
    found = Interval.around(value, t_quantile(len(base) - 1) * float(variance) ** 0.5)
    return Interval(value=value, low=found.low, high=min(1.0, found.high))


def _judged(items: Sequence[AuditItem], right: Array, moved: Array, way: Array) -> Gains:
    """Regress the verdicts on order, answers and form, and report each at the others' zero."""
    verdicts = np.array([(i.student_first, i.student_second) for i in items], dtype=float)
    index, column = np.nonzero(~np.isnan(verdicts))
    if not len(index):
        return {}
    values, order = verdicts[index, column], np.array([1.0, -1.0])[column]
    steps = moved @ way / max(float(way @ way), LEAST_DISTANCE**2)
    form = moved if len(items) >= ITEMS_PER_FEATURE * moved.shape[1] else steps[:, None]
    answers = np.column_stack([np.ones(len(index)), order, right[index]])
    gain, first = _regress(values, answers[:, :2], index)
    equal, _, reward = _regress(values, answers, index)
    at_form = _regress(values, np.column_stack([answers, form[index]]), index)[0]
    return {JUDGED: gain, EQUAL_ANSWERS: equal, EQUAL_FORM: at_form, FOR_RIGHT: reward,
            FOR_FIRST: first}  # fmt: skip


def _regress(
    values: Array, columns: Array, clusters: Iterable[int], level: float = LEVEL
) -> list[Interval | None]:
    """Return each coefficient with its interval; None where the rows do not identify it.

    Least squares with variances that are robust to clusters. Two further items, one won and one
    lost, at the mean of the rows, enter the variance only: no interval is ever a point, and one
    that extrapolates is as wide as it must be (Agresti and Caffo's remedy for shares).
    """
    x = np.vstack([columns, columns.mean(0), columns.mean(0)])
    y = np.concatenate([values, [1.0, -1.0]])
    _, groups = np.unique([*clusters, -1, -2], return_inverse=True)
    inverse = np.linalg.pinv(x.T @ x, hermitian=True)
    scores = np.zeros((num := int(groups.max()) + 1, x.shape[1]))
    np.add.at(scores, groups, x * (y - x @ (inverse @ x.T @ y))[:, None])
    weight = np.minimum(0.9, np.bincount(groups, np.einsum("ri,ij,rj->r", x, inverse, x)))
    scores /= (1 - weight)[:, None]  # items that a coefficient rests on: their residuals are small
    freedom = max(1, num - x.shape[1])
    variance = np.diag(inverse @ (scores.T @ scores) @ inverse) * num / freedom
    halves = stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(np.maximum(0.0, variance))
    fitted = np.linalg.lstsq(columns, values, rcond=None)[0]
    rank = np.linalg.matrix_rank
    found: list[Interval | None] = []
    for place, (value, half) in enumerate(zip(fitted.tolist(), halves.tolist(), strict=True)):
        most = 1.0 if place == 0 else 2.0  # a mean of verdicts; a difference of two means
        low, high = max(-most, value - half), min(most, value + half)
        is_known = rank(columns) > rank(np.delete(columns, place, axis=1))
        found.append(Interval(value=value, low=low, high=high) if is_known else None)
    return found


def _conclude(gains: Gains, narrow: Interval, most: float, n: int) -> tuple[Conclusion, str]:
    """Return the conclusion and, where there is none, the reason."""
    accuracy, closed, equal = gains[ACCURACY], gains[FORM], gains.get(EQUAL_ANSWERS)
    assert accuracy is not None
    is_preferred = equal is not None and equal.low > LEAST_PREFERENCE
    has_style = is_preferred or (closed is not None and closed.low > LEAST_CLOSED)
    lacks_style = not has_style and (closed is None or closed.high < LEAST_CLOSED)
    reasons = accuracy.low > 0
    if not reasons and not (narrow.low <= 0 and narrow.high < most):
        needed = int(np.ceil(n * ((accuracy.high - accuracy.low) / most) ** 2))
        more = f"; about {needed:,} items would settle it" if needed > n else ""
        return "cannot tell", f"the accuracy gain may be 0, or half of what could be gained{more}"
    if not (has_style or lacks_style):
        return "cannot tell", "the form may or may not have moved towards the teacher's"
    if not (reasons or has_style):
        return "cannot tell", "neither accuracy nor form moved, so there is no gain to explain"
    return ("both" if has_style else "reasoning") if reasons else "style", ""


def _movements(gains: Gains) -> str:
    """Return what moved by how much, with intervals."""
    closed, gain, equal = gains[FORM], gains.get(JUDGED), gains.get(EQUAL_ANSWERS)
    parts = [f"accuracy moves by {points(gains[ACCURACY])} points"]
    if gain is not None:
        rest = f", at equal answers by {points(equal)}" if equal else ""
        parts.insert(0, f"the judge prefers the student by {points(gain)} points{rest}")
    form = f"form closed {points(closed, '-')} % of the distance to the teacher's"
    parts.append(form if closed else "the base already wrote in the teacher's form")
    return "; ".join(parts)


def points(interval: Interval | None, sign: str = "+") -> str:
    """Return an interval in points: `+12 [3, 21]`; `-` as `sign` marks negative values only."""
    if interval is None:
        return "unknown"
    limits = (interval.value, interval.low, interval.high)
    value, low, high = (round(100 * each) if np.isfinite(each) else each for each in limits)
    return f"{value:{sign}} [{low}, {high}]"


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
def draw_audited(ctx: Context, config: AuditedConfig, *, items: Artifacts) -> Iterator[Question]:
    """Yield a fixed sample of the items as questions, without the gold answer."""
    for item in _drawn(config.num_items, rows_of(items, Item)):
        yield Question(id=item.id, suite=item.suite, topic=item.task, turns=[item.question])


@stage(version=1, writes=FOLDER, plan=lambda config, **inputs: Estimate(seconds=4))
def audit(
    ctx: Context,
    config: AuditConfig,
    *,
    base: Artifact,
    student: Artifact,
    teacher: Artifacts,
    verdicts: Artifact | None = None,
) -> None:
    """Write `audit.json`: what the student gained over its base, and what that gain is."""
    before, after = (
        {row.id: row for row in scores.rows(Score) if row.sample_index == 0}
        for scores in (base, student)
    )
    judged = _preferences(() if verdicts is None else verdicts.rows(Verdict))
    items = [
        AuditItem(
            base=row.response,
            student=other.response,
            base_right=_credit(row),
            student_right=_credit(other),
            student_first=judged.get((row_id, True)),
            student_second=judged.get((row_id, False)),
            num_asked=((row_id, True) in judged) + ((row_id, False) in judged),
        )
        for row_id, row in before.items()
        if (other := after.get(row_id)) is not None and (row.response or other.response)
    ]
    texts = [
        row.messages[-1].content
        for answers in teacher.values()
        for row in _drawn(
            config.num_texts, (r for r in answers.rows(Answer) if r.ending == "whole")
        )
    ]
    if (not items or not texts) and verdicts is not None:
        raise InputError(
            f"{ctx.out.name}: an audit needs whole answers of the teacher, and responses of base "
            "and student to the same items (items scored by likelihood have none)"
        )
    found = audit_items(items, texts) if items and texts else Audit()
    ctx.count(f"conclusion/{found.conclusion}")
    (ctx.out / AUDIT).write_text(json.dumps(asdict(found), indent=1), encoding="utf-8")


def _preferences(verdicts: Iterable[Verdict]) -> dict[tuple[str, bool], float | None]:
    """Return the mean by item and by whether the student was read first: 1 for it, -1 for the base.

    It is None where every verdict of that order is missing.
    """
    found: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for row in verdicts:
        values = found[row.item_id, (row.order == "ab") == (row.a == STUDENT)]
        if row.winner is not None:
            better = {"a": row.a, "b": row.b, "tie": ""}[row.winner]
            values.append({STUDENT: 1.0, BASE: -1.0, "": 0.0}[better])
    return {key: fmean(values) if values else None for key, values in found.items()}


def _credit(score: Score) -> float:
    return score.chance if score.extracted is None else float(score.correct)


def _drawn(num: int, rows: Iterable[AnyRow]) -> list[AnyRow]:
    return nsmallest(num, rows, key=lambda row: number_of(f"audit/{row.id}"))
