"""Estimates with their 95 % intervals, over items, seeds or clusters, and the test of guessing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spyhop.lazy import stats

BOOTSTRAP_CELLS = 2_000_000
"""Item weights drawn at once, so that memory stays below some 50 MB."""
LEVEL, TAIL, Z = 0.95, 0.975, 1.959963984540054
"""Nominal coverage, the quantile of its upper limit, and this limit of a normal distribution."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float

    @classmethod
    def around(cls, value: float, half: float) -> "Interval":
        """Return a symmetric interval."""
        return cls(value, value - half, value + half)

    @classmethod
    def of_draws(cls, value: float, draws: Floats, stretch: float = 1.0) -> "Interval":
        """Return the percentile interval of resamples, stretched about the value."""
        low, high = np.quantile(draws, [1 - TAIL, TAIL])
        return cls(value, *(value + float(end - value) * stretch for end in (low, high)))

    def of_scores(self) -> "Interval":
        """Return the interval of a mean score, whose limits are not beyond 0 and 1."""
        return Interval(self.value, max(0.0, self.low), min(1.0, self.high))


def wilson(correct: int, n: int) -> Interval:
    """Return an accuracy with Wilson's score interval, over items; sound near 0 and 1, too.

    Source: Wilson (1927), JASA 22:209; without continuity correction.
    """
    _check_count(correct, n)
    limits = stats.binomtest(correct, n).proportion_ci(LEVEL, method="wilson")
    return Interval(correct / n, float(limits.low), float(limits.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChanceTest:
    """An accuracy against guessing."""

    p_value: float
    verdict: Literal["above", "near", "below"]


def near_chance(
    correct: int, n: int, chance: float | Sequence[float], *, level: float = 0.95
) -> ChanceTest:
    """Test exactly whether an accuracy differs from guessing; p is twice the smaller tail.

    `chance` is the accuracy of a guess, for all items or for each: lucky guesses follow a
    (Poisson-)binomial law. A model whose answers cannot be read is below chance.
    """
    _check_count(correct, n)
    each = np.broadcast_to(np.asarray(chance, dtype=float), (n,))
    if not (each.min() >= 0 and each.max() <= 1):
        raise ValueError("chance must lie between 0 and 1")
    same = each.min() == each.max()
    law = stats.binom(n, each[0]) if same else stats.poisson_binom(each)
    at_most, at_least = float(law.cdf(correct)), float(law.sf(correct - 1))
    p_value = min(1.0, 2 * max(0.0, min(at_most, at_least)))
    if p_value >= 1 - level:
        return ChanceTest(p_value=p_value, verdict="near")
    return ChanceTest(p_value=p_value, verdict="above" if correct > each.mean() * n else "below")


def seed_interval(values: Sequence[float]) -> Interval:
    """Return the mean of one figure per seed with Student's t-interval, over seeds."""
    if len(values) < 2:
        raise ValueError(f"an interval over seeds needs two of them, got {len(values)}")
    same_shape(values, values, dimensions=1)
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Interval.around(float(np.mean(values)), t_quantile(len(values) - 1) * error)


def macro_interval(groups: Sequence[Sequence[float]]) -> Interval:
    """Return the unweighted mean of groups' means, with a normal interval over their items.

    A group of one item counts with the largest variance that a score from 0 to 1 can have.
    """
    if not groups:
        raise ValueError("a macro average of no groups")
    checked = [same_shape(group, group, dimensions=1)[0] for group in groups]
    variances = [float(x.var(ddof=1)) / len(x) if len(x) > 1 else 0.25 for x in checked]
    mean = float(np.mean([x.mean() for x in checked]))
    return Interval.around(mean, Z * sum(variances) ** 0.5 / len(checked))


def cluster_interval(
    values: ArrayLike, clusters: Sequence[Any], *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Return the mean over items that come in clusters, such as questions about one passage.

    A bootstrap over clusters, corrected as `seed_item_difference` is. Simulated with 25 clusters of
    8 items, a nominal 95 % covered 94 %.

    Source: Cameron, Gelbach, Miller (2008), the pairs cluster bootstrap.
    """
    x, _ = same_shape(values, values, dimensions=1)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    if index.shape != x.shape or (num := int(index.max()) + 1) < 2:
        raise ValueError(f"{len(clusters)} names for {len(x)} items; two clusters are needed")
    sums, sizes = np.bincount(index, weights=x), np.bincount(index).astype(float)
    draws = resampled(num, lambda w: (w @ sums) / (w @ sizes), resamples, seed, size=num - 1)
    return Interval.of_draws(float(x.mean()), draws, t_quantile(num - 1) / Z)


def bootstrapped(
    num: int, statistic: Callable[[Floats], Floats], resamples: int = 2000
) -> Interval:
    """Return a statistic of `num` units with its percentile interval over resamples of them."""
    value = float(statistic(np.ones((1, num)))[0])
    return Interval.of_draws(value, resampled(num, statistic, resamples))


def resampled(
    num: int,
    statistic: Callable[[Floats], Floats],
    resamples: int = 2000,
    seed: int = 0,
    size: int | None = None,
) -> Floats:
    """Return a statistic of resamples of `num` units, from their weights (resamples, units).

    `size` units are drawn with replacement; default: as many as there are.
    """
    rng, draws, step = np.random.default_rng(seed), [], max(1, BOOTSTRAP_CELLS // num)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        weights = rng.multinomial(size or num, np.full(num, 1 / num), size=count)
        draws.append(statistic(weights.astype(float)))
    return np.concatenate(draws)


def t_quantile(freedom: float) -> float:
    """Return the limit of Student's t at these degrees of freedom."""
    return float(stats.t.ppf(TAIL, freedom))


def same_shape(first: ArrayLike, second: ArrayLike, *, dimensions: int) -> tuple[Floats, Floats]:
    """Return both as arrays; refuse other shapes than those of each other, and NaN."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.ndim != dimensions or a.size == 0:
        raise ValueError(f"cannot pair shapes {a.shape} and {b.shape}; both need {dimensions} axes")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a value is not a finite number")
    return a, b


def _check_count(correct: int, n: int) -> None:
    """Refuse a number of correct answers that is no count of n items."""
    if not 0 <= correct <= n or n == 0:
        raise ValueError(f"{correct} correct of {n} items is no count; n must be at least 1")
