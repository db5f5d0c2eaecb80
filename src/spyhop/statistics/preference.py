"""Preferences between models: win rates, shares of a reference's grades, Bradley-Terry strengths.

A point is 1 for a win, 0 for a loss and 0.5 for a tie; several verdicts on one question are its
mean. Questions are the unit of every interval. An interval never collapses to a point: each is
widened as if one more question, a coin flip, had been asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spyhop.lazy import special, stats
from spyhop.statistics.interval import BOOTSTRAP_CELLS, Interval, same_shape

RIDGE = 1e-3
"""Penalty of logistic fits: it keeps a model that wins everything finite, and changes nothing else
by more than about 1 / 1000 of a question."""
STEPS, TOLERANCE, MAX_STEP = 100, 1e-9, 3.0
RESAMPLES = 400

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """Share of wins, ties counted half, with what is needed to believe it."""

    rate: Interval
    """Over questions; the judge's own variance is part of it."""
    num: int
    num_wins: int
    num_ties: int
    num_losses: int
    flips: Interval | None
    """Share of questions on which the two orders disagree; None with one order."""
    first: Interval | None
    """Share of points that the response shown first gets: 0.5 without position bias."""
    judge_variance: float | None
    """Variance of a question's points if the same judge judges it again; None without repeats."""
    same_questions: Interval | None
    """The rate's interval if only the judge's variance counted: the same questions again."""


def win_rate(
    points: ArrayLike, repeats: ArrayLike | None = None, *, level: float = 0.95
) -> WinRate:
    """Return the win rate of one model against another.

    Args:
        points: (questions, orders), of the first verdict in each order. With two orders, column 0
            is the order that shows the other model first.
        repeats: (verdicts, 2), the first and second points of the same texts in the same order.
        level: Nominal coverage.

    Raises:
        ValueError: If there is no question, or a point is not from 0 to 1.
    """
    x, _ = same_shape(points, points, dimensions=2)
    num, orders = x.shape
    values = x.mean(axis=1)
    noise = None
    if repeats is not None and len(pairs := np.asarray(repeats, dtype=float)):
        same_shape(pairs, pairs, dimensions=2)
        noise = float(((pairs[:, 0] - pairs[:, 1]) ** 2).mean()) / 2 / orders
    rate = bounded_mean(values, least_variance=noise or 0.0, level=level)
    again = None
    if noise is not None:
        half = float(stats.norm.ppf((1 + level) / 2)) * (noise / num) ** 0.5
        low, high = max(0.0, rate.value - half), min(1.0, rate.value + half)
        again = Interval(value=rate.value, low=low, high=high, level=level)
    is_both = orders == 2
    return WinRate(
        rate=rate,
        num=num,
        num_wins=int((values > 0.5).sum()),
        num_ties=int((values == 0.5).sum()),
        num_losses=int((values < 0.5).sum()),
        flips=bounded_mean((x[:, 0] != x[:, 1]).astype(float), level=level) if is_both else None,
        first=bounded_mean((1 - x[:, 0] + x[:, 1]) / 2, level=level) if is_both else None,
        judge_variance=noise,
        same_questions=again,
    )


def bounded_mean(
    values: ArrayLike, *, least_variance: float = 0.0, level: float = 0.95
) -> Interval:
    """Return the mean of values from 0 to 1 with Wilson's interval at their own variance.

    For values of 0 and 1 it is Wilson's interval itself. Ties make it narrower, but no number of
    equal values collapses it to a point.

    Args:
        values: One per question, (questions,).
        least_variance: What is known to be part of the variance of a value, such as a judge's.
        level: Nominal coverage.
    """
    x, _ = same_shape(values, values, dimensions=1)
    if x.min() < 0 or x.max() > 1:
        raise ValueError(f"a value from {x.min():g} to {x.max():g}; points are from 0 to 1")
    num, mean = len(x), float(x.mean())
    shrunk = (mean * num + 0.5) / (num + 1)
    coin = shrunk * (1 - shrunk)
    variance = max((float(((x - mean) ** 2).sum()) + 0.5) / num, least_variance)
    size = num * max(1.0, coin / variance)  # wins and losses that carry as much
    z = float(stats.norm.ppf((1 + level) / 2))
    centre = (mean + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * (mean * (1 - mean) / size + z * z / (4 * size * size)) ** 0.5
    return Interval(
        value=mean, low=max(0.0, min(mean, centre - half)), high=min(1.0, max(mean, centre + half)),
        level=level,
    )  # fmt: skip


def grade_ratio(
    candidate: ArrayLike, reference: ArrayLike, *, level: float = 0.95
) -> tuple[float, Interval | None]:
    """Return a candidate's total grade as a share of the reference's, and its interval.

    The interval is Student's over questions, of the linearised ratio; None for one question.

    Source: Orca (arXiv:2306.02707), Table 7.
    """
    x, y = same_shape(candidate, reference, dimensions=1)
    if y.sum() <= 0:
        raise ValueError("the reference's grades are all 0, so a share of them is undefined")
    ratio, num = float(x.sum() / y.sum()), len(x)
    if num < 2:
        return ratio, None
    error = float(np.std(x - ratio * y, ddof=1)) / num**0.5 / float(y.mean())
    half = float(stats.t.ppf((1 + level) / 2, num - 1)) * error
    return ratio, Interval(value=ratio, low=ratio - half, high=ratio + half, level=level)


def length_controlled(
    points: ArrayLike,
    lengths: ArrayLike,
    other_lengths: ArrayLike,
    difficulty: ArrayLike | None = None,
    *,
    level: float = 0.95,
) -> Interval:
    """Return the win rate to expect if both responses were equally long.

    AlpacaEval's logistic form: the log-odds of a win are a constant, plus a slope times tanh of
    the standardised difference in length, plus a slope times the question's difficulty. Theirs
    adds an L1 penalty chosen by cross-validation and two gamed models with a small weight, which
    need a file that is not part of a model's results; here neither is used.

    Args:
        points: Of the model, one per question.
        lengths: Characters of the model's responses.
        other_lengths: Characters of the other model's.
        difficulty: Of each question, if it is known from many models.
        level: Nominal coverage.

    Source: Dubois et al. (arXiv:2404.04475).
    """
    y, gap = same_shape(points, np.subtract(lengths, other_lengths), dimensions=1)
    columns = [np.ones(len(y)), np.tanh(_standardised(gap))]
    if difficulty is not None:
        columns.append(same_shape(y, difficulty, dimensions=1)[1])
    x = np.stack(columns, axis=1)
    equal = x.copy()
    equal[:, 1] = 0

    def rate(slopes: Floats) -> Floats:
        return special.expit(equal @ slopes.T).mean(axis=0)  # type: ignore[no-any-return]

    best, draws = _bootstrapped(x, y, np.arange(len(y)), np.eye(x.shape[1])[:1])
    return _interval(float(rate(best[None])[0]), rate(draws), level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Bradley-Terry strengths as probabilities to win against the reference."""

    wins: dict[str, Interval]
    """By the model's name; 0.5 for the reference itself."""
    style: dict[str, float]
    """Log-odds per standard deviation of each controlled feature."""


def bradley_terry(
    first: Sequence[str],
    second: Sequence[str],
    points: ArrayLike,
    questions: Sequence[str],
    *,
    reference: str,
    style: ArrayLike | None = None,
    features: Sequence[str] = (),
    level: float = 0.95,
) -> Ranking:
    """Fit strengths to comparisons of any pairs of models; ties are half a win for both.

    The interval is a bootstrap over questions, whose comparisons are drawn together.

    With `style` it is arena-hard's form of control: standardised differences in style are further
    terms, and strengths are those at equal style. Differences are not centred, since the mean
    difference is part of what is controlled.

    Args:
        first: Model of each comparison, (comparisons,).
        second: The other model.
        points: Of the first model.
        questions: Id of each comparison's question.
        reference: Model that has the strength 0.
        style: (comparisons, features), first minus second as `style_difference` returns it.
        features: Names of the columns of `style`.
        level: Nominal coverage.

    Source: Bradley, Terry (1952), Biometrika 39:324; style control as in arena-hard-auto.
    """
    y, _ = same_shape(points, points, dimensions=1)
    names = [name for name in dict.fromkeys([*first, *second]) if name != reference]
    place = {name: n for n, name in enumerate(names)}
    x = np.zeros((len(y), len(names)))
    for row, (a, b) in enumerate(zip(first, second, strict=True)):
        if a in place:
            x[row, place[a]] += 1
        if b in place:
            x[row, place[b]] -= 1
    if style is not None:
        extra = np.asarray(style, dtype=float).reshape(len(y), len(features))
        x = np.concatenate([x, _standardised(extra)], axis=1)
    _, index = np.unique(np.asarray(questions), return_inverse=True)
    best, draws = _bootstrapped(x, y, index, np.eye(x.shape[1])[: len(names)])
    even = Interval(value=0.5, low=0.5, high=0.5, level=level)
    wins = {reference: even} | {
        name: _interval(float(special.expit(best[n])), special.expit(draws[:, n]), level)
        for name, n in place.items()
    }
    return Ranking(wins=wins, style=dict(zip(features, best[len(names) :].tolist(), strict=True)))


def style_difference(first: ArrayLike, second: ArrayLike) -> Floats:
    """Return arena-hard's differences of length, headers, lists and bold, (comparisons, 4).

    Length is (a - b) / (a + b); of the others it is the same of their number per word, with 1
    added to the denominator.
    """
    a, b = same_shape(first, second, dimensions=2)
    long_a, long_b = np.maximum(a[:, :1], 1), np.maximum(b[:, :1], 1)
    length = (long_a - long_b) / (long_a + long_b)
    dense_a, dense_b = a[:, 1:] / long_a, b[:, 1:] / long_b
    return np.concatenate([length, (dense_a - dense_b) / (dense_a + dense_b + 1)], axis=1)


def logistic_fit(x: Floats, y: Floats, weights: Floats, start: Floats | None = None) -> Floats:
    """Return the slopes (features,) of a logistic regression of y, from 0 to 1, by Newton."""
    slopes = np.zeros(x.shape[1]) if start is None else start
    for _ in range(STEPS):
        p = special.expit(x @ slopes)
        gradient = x.T @ (weights * (y - p)) - RIDGE * slopes
        curvature = (x * (weights * p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(len(slopes))
        step = np.linalg.solve(curvature, gradient)
        size = float(np.abs(step).max(initial=0.0))
        slopes = slopes + step * min(1.0, MAX_STEP / size) if size else slopes
        if size < TOLERANCE:
            break
    return slopes


def _bootstrapped(
    x: Floats, y: Floats, clusters: NDArray[np.intp], coins: Floats
) -> tuple[Floats, Floats]:
    """Return the fit, and those of resampled clusters; tosses of `coins` are one more cluster."""
    best = logistic_fit(x, y, np.ones(len(y)))
    rows = np.concatenate([x, coins])
    num = int(clusters.max()) + 1
    owner = np.concatenate([clusters, np.full(len(coins), num)])
    resamples = int(np.clip(10 * BOOTSTRAP_CELLS // rows.size, 100, RESAMPLES))
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(num, np.full(num + 1, 1 / (num + 1)), size=resamples).astype(float)
    tosses = rng.integers(0, 2, size=(resamples, len(coins)))
    fits = [
        logistic_fit(rows, np.concatenate([y, toss]), weights[owner], best)
        for weights, toss in zip(drawn, tosses, strict=True)
    ]
    return best, np.stack(fits)


def _interval(value: float, draws: Floats, level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        value=value, low=min(value, float(low)), high=max(value, float(high)), level=level
    )


def _standardised(x: Floats) -> Floats:
    """Divide by the standard deviation; differences without any spread are 0."""
    spread = np.std(x, axis=0, ddof=1) if len(x) > 1 else np.zeros(x.shape[1:])
    return np.asarray(np.divide(x, spread, out=np.zeros_like(x), where=spread > 0))
