"""Intervals and tests for accuracies: of one model, and of two models on the same items.

Differences are always *second minus first*. Numbers of correct answers are exact counts;
intervals and p-values are two-sided. Three sources of variance are kept apart, since an interval
over one of them does not cover the others: items (`wilson`, `paired_difference`), seeds
(`seed_interval`, `paired_seed_difference`), and both at once (`seed_item_difference`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spyhop.lazy import Lazy

if TYPE_CHECKING:
    from scipy import optimize, stats
else:
    optimize, stats = Lazy("scipy.optimize"), Lazy("scipy.stats")

_BOOTSTRAP_CELLS = 2_000_000
"""Item weights drawn at once, so that memory stays below some 50 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval; `level` is the nominal coverage."""

    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A difference, second minus first, and the p-value of the hypothesis that it is zero."""

    difference: Interval
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChanceTest:
    """An accuracy against guessing. `chance` is the mean accuracy of a uniform guess."""

    chance: float
    p_value: float
    verdict: Literal["above", "near", "below"]


def wilson(correct: int, n: int, *, level: float = 0.95) -> Interval:
    """Return an accuracy with Wilson's score interval, over items.

    Sound for few items and for accuracies near 0 or 1, where the textbook interval is not.

    Source: Wilson (1927), JASA 22:209; without continuity correction.
    """
    _check_count(correct, n)
    limits = stats.binomtest(correct, n).proportion_ci(level, method="wilson")
    return Interval(value=correct / n, low=float(limits.low), high=float(limits.high), level=level)


def seed_interval(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """Return the mean of one figure per seed with Student's t-interval, over seeds.

    Raises:
        ValueError: If there are fewer than two seeds.
    """
    if len(values) < 2:
        raise ValueError(f"an interval over seeds needs two of them, got {len(values)}")
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
    return Interval(value=mean, low=mean - half, high=mean + half, level=level)


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the exact two-sided p-value of McNemar's test for two models on the same items.

    Args:
        first_only: Items that only the first model got right.
        second_only: Items that only the second model got right.
    """
    discordant = first_only + second_only
    return float(stats.binomtest(first_only, discordant).pvalue) if discordant else 1.0


def paired_difference(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Comparison:
    """Compare two models on the same items: Tango's score interval and McNemar's exact p.

    Tango's interval inverts the score test which at a difference of zero is McNemar's own, so test
    and interval use one statistic; it keeps its coverage for few items and for few or no
    disagreements, where the normal interval collapses to a point. The exact p-value is the more
    conservative of the two: at the margin the interval may exclude zero while p > 1 - level.

    Args:
        first: Correct or not, one per item, (items,) of 0 and 1.
        second: The same items in the same order.
        level: Nominal coverage.

    Source: Tango (1998), Statistics in Medicine 17:891.
    """
    a, b = _paired(first, second, dimensions=1)
    if not np.isin(np.stack([a, b]), (0, 1)).all():
        raise ValueError("correctness must be 0 or 1 for each item")
    n, gained, lost = len(a), int(((b == 1) & (a == 0)).sum()), int(((a == 1) & (b == 0)).sum())
    z = float(stats.norm.ppf((1 + level) / 2))
    value = (gained - lost) / n

    def excess(delta: float, sign: int) -> float:
        return sign * _tango_score(delta, gained, lost, n) - z

    low = optimize.brentq(excess, -1 + 1e-12, value, args=(1,)) if lost < n else -1.0
    high = optimize.brentq(excess, value, 1 - 1e-12, args=(-1,)) if gained < n else 1.0
    interval = Interval(value=value, low=float(low), high=float(high), level=level)
    return Comparison(difference=interval, p_value=mcnemar(lost, gained))


def paired_seed_difference(
    first: Sequence[float], second: Sequence[float], *, level: float = 0.95
) -> Comparison:
    """Compare two arms by one figure per seed, seed by seed: the paired t-test and its interval.

    It serves two models and one real figure per item (a likelihood, a rating) just as well.

    Without any spread the interval is a point, and p is 1 for no difference, else 0 (the limit).
    """
    a, b = _paired(first, second, dimensions=1)
    difference = seed_interval((b - a).tolist(), level=level)
    error = float(np.std(b - a, ddof=1)) / len(a) ** 0.5
    if error == 0:
        return Comparison(difference=difference, p_value=float(difference.value == 0))
    p_value = 2 * float(stats.t.sf(abs(difference.value) / error, len(a) - 1))
    return Comparison(difference=difference, p_value=p_value)


def seed_item_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Compare two arms over seeds and items at once, so that it generalises to new runs and items.

    A crossed bootstrap: every resample draws seeds, and items that all its seeds share. Two
    corrections keep the coverage with the few seeds one can afford: each factor draws one fewer
    than there are (else its variance is too small by (n - 1) / n, a third with three seeds), and
    the percentile limits are stretched by t / z with Satterthwaite's degrees of freedom. Simulated
    with three seeds that differ strongly, the plain percentile interval of nominal 95 % covered
    82 %, this one 95 %; where items dominate it is wider than it need be.

    Args:
        first: Correct or not (or a mean of it), (seeds, items), at least two of both.
        second: The same, with the same items in the same order. Row k is paired with row k of
            `first`; where the arms share no seeds any pairing is valid and costs a little power.
        level: Nominal coverage.
        resamples: Bootstrap draws.
        seed: Of the draws; the same seed gives the same interval.

    Source: Owen (2007), the pigeonhole bootstrap; Hesterberg (2015), expanded percentiles.
    """
    a, b = _paired(first, second, dimensions=2)
    delta = b - a
    if min(delta.shape) < 2:
        raise ValueError(f"needs two seeds and two items at least, got (seeds, items) {a.shape}")
    value = float(delta.mean())
    draws = _crossed_means(delta, resamples, seed)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    stretch = _t_over_z(delta, level)
    return Interval(
        value=value,
        low=value + float(low - value) * stretch,
        high=value + float(high - value) * stretch,
        level=level,
    )


def cluster_interval(
    values: ArrayLike,
    clusters: Sequence[str],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the mean over items that come in clusters, such as questions about one passage.

    A bootstrap over clusters, whose items are not independent. For two models on the same items,
    pass the differences. As in `seed_item_difference`, a resample draws one cluster fewer than
    there are, and the limits are stretched by t / z. Simulated with 25 clusters of 8 items, a
    nominal 95 % covered 94 %.

    Args:
        values: One value per item, (items,).
        clusters: Name of each item's cluster; an item of its own is a cluster of one.
        level: Nominal coverage.
        resamples: Bootstrap draws.
        seed: Of the draws; the same seed gives the same interval.

    Raises:
        ValueError: If there are fewer than two clusters, or a value is not finite.

    Source: Cameron, Gelbach, Miller (2008), the pairs cluster bootstrap.
    """
    x, _ = _paired(values, values, dimensions=1)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    if index.shape != x.shape or (num := int(index.max()) + 1) < 2:
        raise ValueError(f"{len(clusters)} names for {len(x)} items; two clusters are needed")
    sums, sizes = np.bincount(index, weights=x), np.bincount(index).astype(float)
    rng, draws = np.random.default_rng(seed), []
    step = max(1, _BOOTSTRAP_CELLS // num)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        weights = rng.multinomial(num - 1, np.full(num, 1 / num), size=size)
        draws.append((weights @ sums) / (weights @ sizes))
    low, high = np.quantile(np.concatenate(draws), [(1 - level) / 2, (1 + level) / 2])
    quantile = (1 + level) / 2
    stretch = float(stats.t.ppf(quantile, num - 1) / stats.norm.ppf(quantile))
    mean = float(x.mean())
    return Interval(
        value=mean,
        low=mean + float(low - mean) * stretch,
        high=mean + float(high - mean) * stretch,
        level=level,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the same order: Holm's step-down method.

    Source: Holm (1979), Scandinavian Journal of Statistics 6:65.
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]


def detectable_difference(
    n: int, discordant: float, *, power: float = 0.8, level: float = 0.95
) -> float | None:
    """Return the smallest difference in accuracy that a paired comparison can be expected to find.

    Args:
        n: Items that both models are asked.
        discordant: Share of items that only one of them gets right; before a run, an assumption.
        power: Probability that McNemar's test finds a difference of this size.
        level: 1 minus the error rate of the test.

    Returns:
        The difference, or None if so few items find none at this share.

    Source: Connor (1987), Biometrics 43:207.
    """
    if n < 1 or not 0 < discordant <= 1:
        raise ValueError(f"n = {n} and discordant = {discordant}: needs items, and 0 < share <= 1")
    alpha, beta = (float(stats.norm.ppf(q)) for q in ((1 + level) / 2, power))

    def shortfall(delta: float) -> float:
        spread = alpha * discordant**0.5 + beta * max(0.0, discordant - delta**2) ** 0.5
        return float(spread - delta * n**0.5)

    if shortfall(discordant) > 0:
        return None
    return float(optimize.brentq(shortfall, 0, discordant))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """A straight line over the logarithm of a size: w = alpha * log N + C."""

    alpha: Interval
    """What the measure gains when N grows by a factor of e; times 0.693 for each doubling."""
    constant: float
    residual: float
    """Standard deviation of the points about the line."""


def scaling(sizes: Sequence[float], values: Sequence[float], *, level: float = 0.95) -> Scaling:
    """Fit w = alpha * log N + C by least squares; the interval is Student's, over the points.

    Several points of one size (seeds) are all counted. The natural logarithm is ours: the paper
    does not say which one it used.

    Args:
        sizes: N of each point, above 0.
        values: w of each point, in any unit; alpha has the same.
        level: Nominal coverage.

    Raises:
        ValueError: If there are fewer than three points, only one size, or only one score.

    Source: Humpback (arXiv:2308.06259), Table 3 (v1): scaling coefficients of data sets.
    """
    x, y = np.log(np.asarray(sizes, dtype=float)), np.asarray(values, dtype=float)
    if x.shape != y.shape or len(x) < 3 or len(set(sizes)) < 2:
        raise ValueError(
            f"a line with an interval needs three points of two sizes, got {len(y)} of "
            f"{len(set(sizes))}"
        )
    if np.ptp(y) == 0:
        raise ValueError(f"all scores are the same ({y[0]:g}), so alpha has no interval")
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    constant = float(y.mean() - slope * x.mean())
    freedom = len(x) - 2
    residual = float(np.sqrt(((y - slope * x - constant) ** 2).sum() / freedom))
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * residual / spread**0.5
    return Scaling(
        alpha=Interval(value=slope, low=slope - half, high=slope + half, level=level),
        constant=constant,
        residual=residual,
    )


def quadratic_kappa(
    first: ArrayLike,
    second: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return Cohen's kappa with quadratic weights of two ratings of the same rows.

    Scores need not be whole: the weights are squared distances, and with these kappa is Lin's
    concordance, 2 cov / (var + var + squared difference of the means). For 0 and 1 it is Cohen's
    unweighted kappa. The interval is a percentile bootstrap over rows.

    Args:
        first: Scores, (rows,).
        second: Scores of the same rows, by another or at another time.
        level: Nominal coverage.
        resamples: Bootstrap draws.
        seed: Of the draws; the same seed gives the same interval.

    Raises:
        ValueError: If all scores are the same: there is nothing to agree on.

    Source: Cohen (1968), Psychological Bulletin 70:213; Lin (1989), Biometrics 45:255.
    """
    a, b = _paired(first, second, dimensions=1)
    if min(a.min(), b.min()) == max(a.max(), b.max()):
        raise ValueError(f"kappa of {len(a)} rows that all have the score {a[0]:g} is undefined")
    columns = np.stack([a, b, a * a, b * b, (a - b) ** 2], axis=1)
    value = float(_kappas(columns.mean(axis=0)[None])[0])
    rng, draws = np.random.default_rng(seed), []
    step = max(1, _BOOTSTRAP_CELLS // len(a))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        weights = rng.multinomial(len(a), np.full(len(a), 1 / len(a)), size=size) / len(a)
        draws.append(_kappas(weights @ columns))
    low, high = np.quantile(np.concatenate(draws), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=value, low=float(low), high=float(high), level=level)


def near_chance(
    correct: int, n: int, chance: float | Sequence[float], *, level: float = 0.95
) -> ChanceTest:
    """Test whether an accuracy differs from guessing. The test is exact.

    "below" is a finding too: a model that guesses is not below chance, one whose answers cannot
    be read is.

    Args:
        correct: Number of right answers.
        n: Number of items.
        chance: Accuracy of a guess, for all items or one for each; where it differs, the number
            of lucky guesses follows the Poisson-binomial law, which is used as it is.
        level: 1 minus the error rate; p is twice the smaller tail.
    """
    _check_count(correct, n)
    each = np.broadcast_to(np.asarray(chance, dtype=float), (n,))
    if each.min() < 0 or each.max() > 1:
        raise ValueError("chance must lie between 0 and 1")
    same = each.min() == each.max()
    law = stats.binom(n, each[0]) if same else stats.poisson_binom(each)
    at_most, at_least = float(law.cdf(correct)), float(law.sf(correct - 1))
    p_value = min(1.0, 2 * max(0.0, min(at_most, at_least)))
    mean = float(each.mean())
    verdict: Literal["above", "near", "below"] = "near"
    if p_value < 1 - level:
        verdict = "above" if correct > mean * n else "below"
    return ChanceTest(chance=mean, p_value=p_value, verdict=verdict)


def _kappas(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return kappa from the means (..., 5) of a, b, a^2, b^2, (a - b)^2; 0 without any spread."""
    a, b, aa, bb, apart = means.T
    by_chance = aa + bb - 2 * a * b
    is_spread = by_chance > 1e-12
    return np.where(is_spread, 1 - apart / np.where(is_spread, by_chance, 1.0), 0.0)


def _tango_score(delta: float, gained: int, lost: int, n: int) -> float:
    """Return z for "the difference is `delta`"; it falls as `delta` grows."""
    linear = (2 * n - gained + lost) * delta - gained - lost
    constant = -lost * delta * (1 - delta)
    share = (np.sqrt(max(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)
    variance = n * (2 * share + delta * (1 - delta))
    distance = gained - lost - n * delta
    return float(distance / np.sqrt(variance)) if variance > 0 else float(np.sign(distance) * 1e9)


def _crossed_means(delta: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Return the mean of each resample of rows and columns, drawing one fewer than there are."""
    generators = np.random.default_rng(seed).spawn(2)
    means = []
    step = max(1, _BOOTSTRAP_CELLS // delta.shape[1])
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        rows, columns = (
            rng.multinomial(size - 1, np.full(size, 1 / size), size=count) / (size - 1)
            for rng, size in zip(generators, delta.shape, strict=True)
        )
        means.append(np.einsum("ri,ri->r", rows @ delta, columns))
    return np.concatenate(means)


def _t_over_z(delta: NDArray[np.float64], level: float) -> float:
    """Return how much wider t is than z, at the degrees of freedom that seeds and items leave."""
    seeds, items = delta.shape
    by_seed = float(delta.mean(axis=1).var(ddof=1)) / seeds
    by_item = float(delta.mean(axis=0).var(ddof=1)) / items
    if by_seed + by_item == 0:
        return 1.0
    freedom = (by_seed + by_item) ** 2 / (by_seed**2 / (seeds - 1) + by_item**2 / (items - 1))
    quantile = (1 + level) / 2
    return float(stats.t.ppf(quantile, freedom) / stats.norm.ppf(quantile))


def _paired(
    first: ArrayLike, second: ArrayLike, *, dimensions: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.ndim != dimensions or a.size == 0:
        raise ValueError(f"cannot pair shapes {a.shape} and {b.shape}; both need {dimensions} axes")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a value is not a finite number")
    return a, b


def _check_count(correct: int, n: int) -> None:
    if not 0 <= correct <= n or n == 0:
        raise ValueError(f"{correct} correct of {n} items is no count; n must be at least 1")
