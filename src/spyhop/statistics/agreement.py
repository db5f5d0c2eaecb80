"""Agreement of raters beyond chance."""

from collections.abc import Sequence

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


def nominal_kappa(
    first: Sequence[str], second: Sequence[str], *, level: float = 0.95, resamples: int = 2000
) -> Interval:
    """Return Cohen's kappa of two raters who name a category for the same rows.

    The interval is a percentile bootstrap over rows, with a fixed seed; a resample in which all
    names are the same counts as 0.

    Raises:
        ValueError: If there is no row, or all names are the same: there is nothing to agree on.

    Source: Cohen (1960), Educational and Psychological Measurement 20:37.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"cannot pair {len(first)} names with {len(second)}")
    names, codes = np.unique([*first, *second], return_inverse=True)
    if len(names) == 1:
        raise ValueError(f"kappa of {len(first)} rows that all are {names[0]!r} is undefined")
    a, b = codes[: len(first)], codes[len(first) :]
    table = np.bincount(a * len(names) + b, minlength=len(names) ** 2) / len(first)
    draws = np.random.default_rng(0).multinomial(len(first), table, size=resamples) / len(first)
    kappas = _nominal(np.concatenate([table[None], draws]).reshape(-1, len(names), len(names)))
    low, high = np.quantile(kappas[1:], [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=float(kappas[0]), low=float(low), high=float(high), level=level)


def _nominal(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return kappa of tables of shares (..., names, names); 0 where all names are the same."""
    agreed = np.trace(tables, axis1=1, axis2=2)
    chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1)
    is_spread = chance < 1 - 1e-12
    return np.where(is_spread, (agreed - chance) / np.where(is_spread, 1 - chance, 1.0), 0.0)


def _kappas(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return kappa from the means (..., 5) of a, b, a^2, b^2, (a - b)^2; 0 without any spread."""
    a, b, aa, bb, apart = means.T
    by_chance = aa + bb - 2 * a * b
    is_spread = by_chance > 1e-12
    return np.where(is_spread, 1 - apart / np.where(is_spread, by_chance, 1.0), 0.0)


def krippendorff_alpha(
    ratings: Sequence[Sequence[str]], *, level: float = 0.95, resamples: int = 2000
) -> Interval:
    """Return Krippendorff's alpha for categories, with any number of raters per unit.

    It is 1 minus observed over expected disagreement. Units with fewer than two ratings say
    nothing and are passed over. The interval is a percentile bootstrap over units, with a fixed
    seed; a resample without two categories counts as 1, since all agree.

    Args:
        ratings: The categories that raters gave each unit, in any order.
        level: Nominal coverage.
        resamples: Bootstrap draws.

    Source: Krippendorff (2018), Content Analysis, 4th edition, chapter 12.
    """
    units = [unit for unit in ratings if len(unit) > 1]
    names = sorted({name for unit in units for name in unit})
    if len(names) < 2:
        raise ValueError("alpha needs units with two ratings, and two categories among them")
    counts = np.array([[unit.count(name) for name in names] for unit in units], dtype=float)
    sizes = counts.sum(axis=1)
    apart = (sizes**2 - (counts**2).sum(axis=1)) / (sizes - 1)
    draws = np.random.default_rng(0).multinomial(
        len(units), np.full(len(units), 1 / len(units)), size=resamples
    )
    weights = np.concatenate([np.ones((1, len(units))), draws])
    totals = weights @ counts
    num = totals.sum(axis=1)
    expected = (num**2 - (totals**2).sum(axis=1)) / (num - 1)
    is_spread = expected > 0
    alphas = np.where(is_spread, 1 - (weights @ apart) / np.where(is_spread, expected, 1.0), 1.0)
    low, high = np.quantile(alphas[1:], [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=float(alphas[0]), low=float(low), high=float(high), level=level)
