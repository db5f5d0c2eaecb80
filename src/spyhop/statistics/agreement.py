"""Agreement of raters beyond chance, with percentile bootstrap intervals over rows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from spyhop.statistics.interval import Floats, Interval, bootstrapped, same_shape


def quadratic_kappa(first: ArrayLike, second: ArrayLike, *, resamples: int = 2000) -> Interval:
    """Return Cohen's kappa with quadratic weights of two ratings of the same rows.

    Scores need not be whole: with squared distances as weights, kappa is Lin's concordance.

    Source: Cohen (1968), Psychological Bulletin 70:213; Lin (1989), Biometrics 45:255.
    """
    a, b = same_shape(first, second, dimensions=1)
    if min(a.min(), b.min()) == max(a.max(), b.max()):
        raise ValueError(f"kappa of {len(a)} rows that all have the score {a[0]:g} is undefined")
    columns = np.stack([a, b, a * a, b * b, (a - b) ** 2], axis=1)

    def kappas(weights: Floats) -> Floats:
        x, y, xx, yy, apart = (weights @ columns / len(a)).T
        return 1 - _ratio(apart, xx + yy - 2 * x * y, 1.0)

    return bootstrapped(len(a), kappas, resamples)


def nominal_kappa(first: Sequence[str], second: Sequence[str]) -> Interval:
    """Return Cohen's kappa of two raters who name a category for the same rows.

    A resample in which all names are the same counts as 0; rows like that are a `ValueError`.

    Source: Cohen (1960), Educational and Psychological Measurement 20:37.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"cannot pair {len(first)} names with {len(second)}")
    names, codes = np.unique([*first, *second], return_inverse=True)
    if len(names) == 1:
        raise ValueError(f"kappa of {len(first)} rows that all are {names[0]!r} is undefined")
    a, b = np.eye(len(names))[codes.reshape(2, -1)]

    def kappas(weights: Floats) -> Floats:
        agreed = weights @ (a * b).sum(axis=1) / len(a)
        chance = ((weights @ a) * (weights @ b)).sum(axis=1) / len(a) ** 2
        return _ratio(agreed - chance, 1 - chance, 0.0)

    return bootstrapped(len(a), kappas)


def krippendorff_alpha(ratings: Sequence[Sequence[str]]) -> Interval:
    """Return Krippendorff's alpha for categories, with any number of raters per unit.

    Units with fewer than two ratings are passed over. A resample of one category counts as 1.

    Source: Krippendorff (2018), Content Analysis, 4th edition, chapter 12.
    """
    units = [unit for unit in ratings if len(unit) > 1]
    names = sorted({name for unit in units for name in unit})
    if len(names) < 2:
        raise ValueError("alpha needs units with two ratings, and two categories among them")
    counts = np.array([[unit.count(name) for name in names] for unit in units], dtype=float)
    sizes = counts.sum(axis=1)
    apart = (sizes**2 - (counts**2).sum(axis=1)) / (sizes - 1)

    def alphas(weights: Floats) -> Floats:
        totals = weights @ counts
        num = totals.sum(axis=1)
        expected = (num**2 - (totals**2).sum(axis=1)) / (num - 1)
        return 1 - _ratio(weights @ apart, expected, 0.0)

    return bootstrapped(len(units), alphas)


def _ratio(part: Floats, whole: Floats, otherwise: float) -> Floats:
    """Return a ratio, or another value where the whole is 0."""
    is_spread = whole > 1e-12
    return np.where(is_spread, part / np.where(is_spread, whole, 1.0), otherwise)
