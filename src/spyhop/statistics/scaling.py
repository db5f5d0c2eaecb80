"""A measure against the logarithm of a size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spyhop.lazy import Lazy
from spyhop.statistics.interval import Interval

if TYPE_CHECKING:
    from scipy import stats
else:
    stats = Lazy("scipy.stats")


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
