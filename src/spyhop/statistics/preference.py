"""Preferences between models: win rates, shares of a reference's grades, Bradley-Terry strengths.

A point is 1 for a win, 0 for a loss, 0.5 for a tie; several verdicts on one question are averaged.
Questions are the unit of every interval. No interval collapses to a point: each is widened as if
one more question, a coin flip, had been asked.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spyhop.lazy import special
from spyhop.statistics.interval import (
    BOOTSTRAP_CELLS,
    TAIL,
    Floats,
    Interval,
    Z,
    same_shape,
    t_quantile,
)

RIDGE = 1e-3
"""Penalty of logistic fits, which keeps a model that wins everything finite."""
STEPS, TOLERANCE, MAX_STEP = 100, 1e-9, 3.0
RESAMPLES = 400


def win_rate(points: ArrayLike, repeats: ArrayLike = ()) -> dict[str, Interval]:
    """Return `win rate` and `ties`; with two orders also `flips` and `shown first`.

    `points` are (questions, orders), of the first verdicts; of two orders, the first one shows the
    other model first. `flips` is the share of questions on which the orders disagree, `shown first`
    the share of points of the response shown first, 0.5 without position bias. With `repeats`,
    (verdicts, 2) of the same texts, `judged again` is the interval of the judge's variance alone.
    """
    x, _ = same_shape(points, points, dimensions=2)
    values, pairs = x.mean(axis=1), np.asarray(repeats, dtype=float).reshape(-1, 2)
    noise = float(((pairs[:, 0] - pairs[:, 1]) ** 2).mean()) / 2 / x.shape[1] if len(pairs) else 0.0
    rate = bounded_mean(values, least_variance=noise)
    found = {"win rate": rate, "ties": bounded_mean(values == 0.5)}
    if x.shape[1] == 2:
        found["flips"] = bounded_mean(x[:, 0] != x[:, 1])
        found["shown first"] = bounded_mean((1 - x[:, 0] + x[:, 1]) / 2)
    if len(pairs):
        half = Z * (noise / len(x)) ** 0.5
        found["judged again"] = Interval.around(rate.value, half).of_scores()
    return found


def bounded_mean(values: ArrayLike, *, least_variance: float = 0.0) -> Interval:
    """Return the mean of values from 0 to 1 with Wilson's interval at their own variance.

    Ties make it narrower. `least_variance` is a known part of a value's variance (a judge's).
    """
    x, _ = same_shape(values, values, dimensions=1)
    if x.min() < 0 or x.max() > 1:
        raise ValueError(f"a value from {x.min():g} to {x.max():g}; points are from 0 to 1")
    num, mean = len(x), float(x.mean())
    shrunk = (mean * num + 0.5) / (num + 1)
    variance = max((float(((x - mean) ** 2).sum()) + 0.5) / num, least_variance)
    size = num * max(1.0, shrunk * (1 - shrunk) / variance)  # wins and losses that say as much
    centre = (mean + Z * Z / (2 * size)) / (1 + Z * Z / size)
    half = Z / (1 + Z * Z / size) * (mean * (1 - mean) / size + Z * Z / (4 * size * size)) ** 0.5
    return Interval(mean, max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half)))


def grade_ratio(candidate: ArrayLike, reference: ArrayLike) -> Interval | float:
    """Return a candidate's total grade as a share of the reference's (Orca, Table 7).

    The interval is Student's over questions, of the linearised ratio; one question has none.
    """
    x, y = same_shape(candidate, reference, dimensions=1)
    if y.sum() <= 0:
        raise ValueError("the reference's grades are all 0, so a share of them is undefined")
    ratio, num = float(x.sum() / y.sum()), len(x)
    if num < 2:
        return ratio
    error = float(np.std(x - ratio * y, ddof=1)) / num**0.5 / float(y.mean())
    return Interval.around(ratio, t_quantile(num - 1) * error)


def length_controlled(points: ArrayLike, lengths: ArrayLike, other_lengths: ArrayLike) -> Interval:
    """Return the win rate to expect if both responses were equally long.

    AlpacaEval's logistic form: a constant, and tanh of the standardised difference in length;
    without the question's difficulty, the L1 penalty and the two gamed models of theirs.

    Source: Dubois et al. (arXiv:2404.04475).
    """
    y, gap = same_shape(points, np.subtract(lengths, other_lengths), dimensions=1)
    x = np.stack([np.ones(len(y)), np.tanh(_standardised(gap))], axis=1)
    best, draws = _bootstrapped(x, y, np.arange(len(y)), np.eye(x.shape[1])[:1])
    x[:, 1] = 0
    rates = special.expit(x @ np.concatenate([best[None], draws]).T).mean(axis=0)
    return _interval(rates)


def bradley_terry(
    first: Sequence[str],
    second: Sequence[str],
    points: ArrayLike,
    questions: Sequence[str],
    *,
    reference: str,
    style: ArrayLike | None = None,
) -> tuple[dict[str, Interval], list[float]]:
    """Return each model's probability to win against the reference, and the slopes of style.

    Ties are half a win for both; intervals are a bootstrap over questions. With `style`, the
    (comparisons, features) of `style_difference`, it is arena-hard's control: slopes are log-odds
    per standard deviation of the differences, which are not centred, and strengths at equal style.

    Source: Bradley, Terry (1952), Biometrika 39:324; lmarena/arena-hard-auto.
    """
    y, _ = same_shape(points, points, dimensions=1)
    names = [name for name in dict.fromkeys([*first, *second]) if name != reference]
    sides = [np.array([[a == name for name in names] for a in side]) for side in (first, second)]
    x = np.subtract(*sides, dtype=float)
    if style is not None:
        x = np.concatenate([x, _standardised(np.asarray(style, dtype=float))], axis=1)
    _, index = np.unique(np.asarray(questions), return_inverse=True)
    best, draws = _bootstrapped(x, y, index, np.eye(x.shape[1])[: len(names)])
    wins = special.expit(np.concatenate([best[None], draws]))
    found = {name: _interval(wins[:, n]) for n, name in enumerate(names)}
    return found, best[len(names) :].tolist()


def style_difference(first: ArrayLike, second: ArrayLike) -> Floats:
    """Return arena-hard's differences of length, headers, lists and bold, (comparisons, 4)."""
    a, b = same_shape(first, second, dimensions=2)
    long_a, long_b = np.maximum(a[:, :1], 1), np.maximum(b[:, :1], 1)
    dense_a, dense_b = a[:, 1:] / long_a, b[:, 1:] / long_b
    length = (long_a - long_b) / (long_a + long_b)
    return np.concatenate([length, (dense_a - dense_b) / (dense_a + dense_b + 1)], axis=1)


def _logistic_fit(x: Floats, y: Floats, weights: Floats, start: Floats) -> Floats:
    """Return the slopes of a logistic regression of y, from 0 to 1, by Newton's method."""
    slopes = start
    for _ in range(STEPS):
        p = special.expit(x @ slopes)
        gradient = x.T @ (weights * (y - p)) - RIDGE * slopes
        curvature = (x * (weights * p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(len(slopes))
        step = np.linalg.solve(curvature, gradient)
        size = float(np.abs(step).max(initial=0.0))
        slopes = slopes + step * min(1.0, MAX_STEP / max(size, TOLERANCE))
        if size < TOLERANCE:
            break
    return slopes


def _bootstrapped(
    x: Floats, y: Floats, clusters: NDArray[np.intp], coins: Floats
) -> tuple[Floats, Floats]:
    """Return the fit, and those of resampled clusters; tosses of `coins` are one more cluster."""
    best = _logistic_fit(x, y, np.ones(len(y)), np.zeros(x.shape[1]))
    rows, num = np.concatenate([x, coins]), int(clusters.max()) + 1
    owner = np.concatenate([clusters, np.full(len(coins), num)])
    resamples = int(np.clip(10 * BOOTSTRAP_CELLS // rows.size, 100, RESAMPLES))
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(num, np.full(num + 1, 1 / (num + 1)), size=resamples).astype(float)
    tosses = rng.integers(0, 2, size=(resamples, len(coins)))
    fits = [
        _logistic_fit(rows, np.concatenate([y, toss]), weights[owner], best)
        for weights, toss in zip(drawn, tosses, strict=True)
    ]
    return best, np.stack(fits)


def _interval(values: Floats) -> Interval:
    """Return the first value with the interval of the others, the resamples."""
    value, (low, high) = values[0], np.quantile(values[1:], [1 - TAIL, TAIL])
    return Interval(float(value), float(min(value, low)), float(max(value, high)))


def _standardised(x: Floats) -> Floats:
    """Divide by the standard deviation; differences without any spread are 0."""
    spread = np.std(x, axis=0, ddof=1) if len(x) > 1 else np.zeros(x.shape[1:])
    return np.asarray(np.divide(x, spread, out=np.zeros_like(x), where=spread > 0))
