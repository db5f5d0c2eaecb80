"""The imitation audit: did a student learn its teacher's reasoning, its style, or both?

A judge may prefer a student that only sounds like its teacher. The audit sets the gain in judged
preference beside the gain in verifiable accuracy, and measures how far the student's form moved
towards the teacher's. Accuracy decides about reasoning; form, and what the judge prefers at equal
answers, decide about style. A verdict needs both questions answered.

- *Accuracy* at equal format: a response without an answer counts as a guess, so that a student
  that only learned to write answers gains nothing.
- *Form*: the share of the distance between the base's mean features (`spyhop.text.form`) and the
  teacher's that the student has closed.
- *Judged preference*: a regression on the order, on which answers are right, and on form. Each of
  the judge's biases is a coefficient, so its uncertainty is part of the interval.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spyhop.lazy import stats
from spyhop.statistics import Interval, paired_difference
from spyhop.text.form import FEATURES, form_of, phrases_of

Conclusion = Literal["reasoning", "style", "both", "cannot tell"]
LEVEL = 0.95
MOST_CAUGHT_UP = 0.5
"""A student whose gain in accuracy is surely below this share of its teacher's lead, and is not
shown to be above 0, has not gained in reasoning."""
LEAST_LEAD = 0.1
"""Of the teacher over the base in accuracy; a smaller one counts as this."""
LEAST_CLOSED = 0.25
"""Share of the distance to the teacher's form that a student of its style has closed."""
LEAST_PREFERENCE = 0.1
"""Preference at equal answers that shows a gain in style by itself."""
LEAST_DISTANCE = 0.5
"""Distance in form below which a base already writes as the teacher does."""
ITEMS_PER_FEATURE = 20
"""Fewer items than this a feature: the features enter the regression as one, the way closed."""
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditItem:
    """One item, as the base and the student answered it and a judge compared the two."""

    base: str
    student: str
    base_right: bool
    student_right: bool
    base_answered: bool = True
    """Whether the response holds an answer, right or wrong."""
    student_answered: bool = True
    chance: float = 0.0
    """Accuracy of a guess."""
    student_first: float | None = None
    """The judge's preference when it read the student's response first: 1 for the student, 0 for
    a tie, -1 for the base; None where it is missing."""
    student_second: float | None = None
    """The same when it read the student's response second."""
    num_asked: int = 2
    """Orders in which a judge was asked; 0 for an item that it does not judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Judged preference for the student, from -1 to 1, and the judge's measured biases."""

    n: int
    """Items with a verdict."""
    gain: Interval | None
    """Mean of both orders; None, as below, where the verdicts cannot separate it from the rest."""
    at_equal_answers: Interval | None
    at_equal_form: Interval | None
    """At equal answers and equal form."""
    for_right: Interval | None
    """What a right answer against a wrong one adds."""
    for_first: Interval | None
    """What the first place adds."""
    missing: float
    """Share of verdicts that are missing."""
    flips: float
    """Share of items on which the two orders name different winners."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The measured gains, and the conclusion."""

    n: int
    accuracy: Interval
    """Gain in accuracy, student minus base, an unanswered item counted as a guess."""
    closed: Interval | None
    """Share of the distance to the teacher's form; None where the base writes as the teacher."""
    judged: Judged | None
    """None without any verdict."""
    form: dict[str, tuple[float, float, float]]
    """Mean of each feature for base, student and teacher."""
    conclusion: Conclusion
    sentence: str


def audit_items(
    items: Sequence[AuditItem],
    teacher: Iterable[str],
    *,
    teacher_accuracy: float = 1.0,
    level: float = LEVEL,
) -> Audit:
    """Return what a student gained over its base.

    A gain in reasoning is shown by an accuracy gain whose interval lies above 0. It is ruled out,
    as in a test of equivalence, by the interval of level 2 * level - 1: it holds 0, and ends below
    half of the teacher's lead.

    Args:
        items: Items that base and student answered.
        teacher: Texts of the teacher, on these items or on others.
        teacher_accuracy: On the items; 1 if unknown, the accuracy of the gold answers.
        level: Nominal coverage of the intervals.

    Raises:
        ValueError: If there are no items or no texts.
    """
    texts = list(teacher)
    if not items or not texts:
        raise ValueError("an audit needs items, and texts of the teacher")
    phrases = phrases_of(texts)
    base = np.array([form_of(item.base, phrases) for item in items])
    student = np.array([form_of(item.student, phrases) for item in items])
    target = np.array([form_of(text, phrases) for text in texts])
    means = np.stack([base.mean(0), student.mean(0), target.mean(0)], axis=1)
    accuracy = _accuracy(items, level)
    closed = _closed(base, student, target, level)
    judged = _judged(items, student - base, target.mean(0) - base.mean(0), level)
    lead = max(LEAST_LEAD, teacher_accuracy - float(np.mean(_credits(items)[0])))
    narrow = _accuracy(items, 2 * level - 1)
    conclusion, why = _conclude(accuracy, narrow, MOST_CAUGHT_UP * lead, closed, judged, len(items))
    return Audit(
        n=len(items),
        accuracy=accuracy,
        closed=closed,
        judged=judged,
        form={name: tuple(means[place].tolist()) for place, name in enumerate(FEATURES)},
        conclusion=conclusion,
        sentence=_sentence(conclusion, why, accuracy, closed, judged),
    )


def _accuracy(items: Sequence[AuditItem], level: float) -> Interval:
    """Tango's interval for paired shares; where guesses count, a regression without regressors."""
    before, after = _credits(items)
    if set(before) | set(after) <= {0.0, 1.0}:
        return paired_difference(before, after, level=level).difference
    gains = np.array(after) - np.array(before)
    (found,) = _regress(gains, np.ones((len(gains), 1)), np.arange(len(gains)), level)
    assert found is not None  # a mean is always identified
    return found


def _credits(items: Sequence[AuditItem]) -> tuple[list[float], list[float]]:
    """Return 1 for each right answer and 0 for a wrong one; no answer counts as a guess."""
    return (
        [float(i.base_right) if i.base_answered else i.chance for i in items],
        [float(i.student_right) if i.student_answered else i.chance for i in items],
    )


def _closed(base: Array, student: Array, target: Array, level: float) -> Interval | None:
    """Return 1 minus the ratio of the student's and the base's distance to the teacher's form.

    The interval is the delta method's, over items and the teacher's texts.
    """
    centre = target.mean(0)
    gaps = [form.mean(0) - centre for form in (base, student)]
    before, after = (float(np.linalg.norm(gap)) for gap in gaps)
    if before < LEAST_DISTANCE:
        return None
    value = 1 - after / before
    if len(base) < 2:
        return Interval(value=value, low=-np.inf, high=1.0, level=level)
    for_base = after / before**3 * gaps[0]
    for_student = -gaps[1] / (after * before) if after else np.zeros_like(centre)
    variance = np.var(base @ for_base + student @ for_student, ddof=1) / len(base)
    if len(target) > 1:
        variance += np.var(target @ (for_base + for_student), ddof=1) / len(target)
    half = float(stats.t.ppf((1 + level) / 2, len(base) - 1)) * float(variance) ** 0.5
    return Interval(value=value, low=value - half, high=min(1.0, value + half), level=level)


def _judged(items: Sequence[AuditItem], moved: Array, way: Array, level: float) -> Judged | None:
    """Regress the verdicts on order, answers and form, and report each at the others' zero."""
    rows = [
        (place, sign, value)
        for place, item in enumerate(items)
        for sign, value in ((1.0, item.student_first), (-1.0, item.student_second))
        if value is not None
    ]
    if not rows:
        return None
    index = np.array([row[0] for row in rows])
    order, values = (np.array([row[n] for row in rows]) for n in (1, 2))
    right = np.array([float(item.student_right) - float(item.base_right) for item in items])
    steps = moved @ way / max(float(way @ way), LEAST_DISTANCE**2)
    form = moved if len(items) >= ITEMS_PER_FEATURE * moved.shape[1] else steps[:, None]
    plain = np.stack([np.ones(len(rows)), order], axis=1)
    answers = np.column_stack([plain, right[index]])
    whole = np.column_stack([answers, form[index]])
    gain, first = _regress(values, plain, index, level)
    equal, _, reward = _regress(values, answers, index, level)
    flips = [
        i.student_first != i.student_second
        for i in items
        if i.student_first is not None and i.student_second is not None
    ]
    return Judged(
        n=len(set(index.tolist())),
        gain=gain,
        at_equal_answers=equal,
        at_equal_form=_regress(values, whole, index, level)[0],
        for_right=reward,
        for_first=first,
        missing=1 - len(rows) / max(len(rows), sum(item.num_asked for item in items)),
        flips=sum(flips) / max(1, len(flips)),
    )


def _regress(
    values: Array, columns: Array, clusters: NDArray[np.int64], level: float
) -> list[Interval | None]:
    """Return each coefficient with its interval; None where the rows do not identify it.

    Least squares with variances that are robust to clusters. Two further items, one won and one
    lost, at the mean of the rows, enter the variance only: no interval is ever a point, and one
    that extrapolates is as wide as it must be (Agresti and Caffo's remedy for shares).

    Args:
        values: From -1 to 1, (rows,).
        columns: Regressors, the first of them constant, (rows, coefficients).
        clusters: The item of each row.
        level: Nominal coverage.
    """
    centre = columns.mean(0)
    x = np.vstack([columns, centre, centre])
    y = np.concatenate([values, [1.0, -1.0]])
    _, groups = np.unique(clusters, return_inverse=True)
    num = int(groups.max()) + 3
    groups = np.concatenate([groups, [num - 2, num - 1]])
    inverse = np.linalg.pinv(x.T @ x, hermitian=True)
    scores = np.zeros((num, x.shape[1]))
    np.add.at(scores, groups, x * (y - x @ (inverse @ x.T @ y))[:, None])
    freedom = max(1, num - x.shape[1])
    variance = inverse @ (scores.T @ scores) @ inverse * num / freedom
    fitted = np.linalg.lstsq(columns, values, rcond=None)[0]
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * np.sqrt(
        np.maximum(0.0, np.diag(variance))
    )
    return [
        _within(1 if place == 0 else 2, float(fit), float(width), level)
        if _is_identified(columns, place)
        else None
        for place, (fit, width) in enumerate(zip(fitted, half, strict=True))
    ]


def _within(most: float, value: float, half: float, level: float) -> Interval:
    """Return an interval, cut at what verdicts allow: 1 for a mean, 2 for an effect."""
    low, high = (min(most, max(-most, value + side * half)) for side in (-1, 1))
    return Interval(value=min(high, max(low, value)), low=low, high=high, level=level)


def _is_identified(columns: Array, place: int) -> bool:
    rank = np.linalg.matrix_rank
    return bool(rank(columns) > rank(np.delete(columns, place, axis=1)))


def _conclude(
    accuracy: Interval,
    narrow: Interval,
    most: float,
    closed: Interval | None,
    judged: Judged | None,
    n: int,
) -> tuple[Conclusion, str]:
    """Return the conclusion and, where there is none, the reason."""
    equal = judged.at_equal_answers if judged else None
    is_preferred = equal is not None and equal.low > LEAST_PREFERENCE
    has_form = closed is not None and closed.low > LEAST_CLOSED
    lacks_form = closed is None or closed.high < LEAST_CLOSED
    style = True if is_preferred or has_form else False if lacks_form else None
    is_small = narrow.low <= 0 and narrow.high < most
    reasons = True if accuracy.low > 0 else False if is_small else None
    if reasons is None:
        lead = "the accuracy gain may be 0, or half of the teacher's lead"
        return "cannot tell", lead + _needed(accuracy, most, n)
    if style is None:
        return "cannot tell", "the form may or may not have moved towards the teacher's"
    if not (reasons or style):
        return "cannot tell", "neither accuracy nor form moved, so there is no gain to explain"
    return ("both" if style else "reasoning") if reasons else "style", ""


def _needed(accuracy: Interval, most: float, n: int) -> str:
    """Say how many items would make the interval half as wide as what it must tell apart."""
    needed = int(np.ceil(n * ((accuracy.high - accuracy.low) / most) ** 2))
    return f"; about {needed:,} items would settle it" if needed > n else ""


def _sentence(
    conclusion: Conclusion,
    why: str,
    accuracy: Interval,
    closed: Interval | None,
    judged: Judged | None,
) -> str:
    """Return the conclusion in one sentence with its intervals."""
    parts = [f"accuracy moves by {points(accuracy)} points"]
    if judged is not None and judged.gain is not None:
        equal = judged.at_equal_answers
        rest = f", at equal answers by {points(equal)}" if equal else ""
        parts.insert(0, f"the judge prefers the student by {points(judged.gain)} points{rest}")
    form = f"closed {points(closed, '-')} % of the distance to" if closed else "was already that of"
    parts.append(f"form {form} the teacher's" if closed else f"the base's form {form} the teacher")
    return f"{conclusion.capitalize()}{f' ({why})' if why else ''}: {'; '.join(parts)}."


def points(interval: Interval, sign: str = "+") -> str:
    """Return an interval in points: `+12 [3, 21]`; `-` as `sign` marks negative ones only."""
    limits = (interval.value, interval.low, interval.high)
    value, low, high = (round(100 * each) if np.isfinite(each) else each for each in limits)
    return f"{value:{sign}} [{low}, {high}]"
