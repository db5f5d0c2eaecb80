"""Agreement of raters beyond chance."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spyhop.statistics.interval import BOOTSTRAP_CELLS, Interval, same_shape


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
    a, b = same_shape(first, second, dimensions=1)
    if min(a.min(), b.min()) == max(a.max(), b.max()):
        raise ValueError(f"kappa of {len(a)} rows that all have the score {a[0]:g} is undefined")
    columns = np.stack([a, b, a * a, b * b, (a - b) ** 2], axis=1)
    value = float(_kappas(columns.mean(axis=0)[None])[0])
    rng, draws = np.random.default_rng(seed), []
    step = max(1, BOOTSTRAP_CELLS // len(a))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        weights = rng.multinomial(len(a), np.full(len(a), 1 / len(a)), size=size) / len(a)
        draws.append(_kappas(weights @ columns))
    low, high = np.quantile(np.concatenate(draws), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=value, low=float(low), high=float(high), level=level)


def _kappas(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return kappa from the means (..., 5) of a, b, a^2, b^2, (a - b)^2; 0 without any spread."""
    a, b, aa, bb, apart = means.T
    by_chance = aa + bb - 2 * a * b
    is_spread = by_chance > 1e-12
    return np.where(is_spread, 1 - apart / np.where(is_spread, by_chance, 1.0), 0.0)
