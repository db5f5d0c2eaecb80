"""A measure against the logarithm of a size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from spyhop.lazy import stats
from spyhop.statistics.interval import Interval, t_quantile
from spyhop.statistics.paired import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """A straight line over the logarithm of a size: w = alpha * log N + C."""

    alpha: Interval
    """What the measure gains when N grows by a factor of e; times 0.693 for each doubling."""
    constant: float


def scaling(sizes: Sequence[float], values: Sequence[float]) -> Scaling:
    """Fit w = alpha * log N + C by least squares; the interval is Student's, over the points.

    The natural logarithm is ours: the paper does not say which one it used.

    Source: Humpback (arXiv:2308.06259), Table 3 (v1): scaling coefficients of data sets.
    """
    num_sizes, freedom = len(set(sizes)), len(values) - 2
    if len(sizes) != len(values) or freedom < 1 or num_sizes < 2:
        raise ValueError(
            f"a line with an interval needs three points of two sizes, got {len(values)} of "
            f"{num_sizes}"
        )
    if len(set(values)) == 1:
        raise ValueError(f"all scores are the same ({values[0]:g}), so alpha has no interval")
    x = np.log(np.asarray(sizes, dtype=float))
    fit = stats.linregress(x, values)
    alpha = Interval.around(float(fit.slope), t_quantile(freedom) * float(fit.stderr))
    return Scaling(alpha=alpha, constant=float(fit.intercept))


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopeTest:
    """Whether lines of several data sets have one slope."""

    f: float
    """F statistic of equal slopes, each line with its own constant."""
    p_value: float
    differences: dict[tuple[str, str], Comparison]
    """Of each pair, alpha of the second minus that of the first."""


def equal_slopes(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> SlopeTest:
    """Test whether several lines w = alpha * log N + C, given as (sizes, values), have one alpha.

    The F test of the interaction in an analysis of covariance; all lines share one variance about
    their line. p-values of the pairs are not corrected for their number.
    """
    if len(lines) < 2 or any(len(set(sizes)) < 2 for sizes, _ in lines.values()):
        raise ValueError("equal slopes needs two lines or more, each with points of two sizes")
    freedom = sum(len(sizes) for sizes, _ in lines.values()) - 2 * len(lines)
    if freedom < 1:
        raise ValueError(f"{freedom} degrees of freedom are left; more points are needed")
    spread, slope, apart = {}, {}, 0.0
    for name, (sizes, values) in lines.items():
        x, y = np.log(np.asarray(sizes, dtype=float)), np.asarray(values, dtype=float)
        x, y = x - x.mean(), y - y.mean()
        spread[name] = float(x @ x)
        slope[name] = float(x @ y) / spread[name]
        apart += float(((y - slope[name] * x) ** 2).sum())
    common = sum(slope[name] * spread[name] for name in lines) / sum(spread.values())
    between = sum(spread[name] * (slope[name] - common) ** 2 for name in lines)
    variance = apart / freedom
    f = between / (len(lines) - 1) / variance if variance else (np.inf if between else 0.0)
    differences = {}
    for first, second in combinations(lines, 2):
        value = slope[second] - slope[first]
        error = (variance * (1 / spread[first] + 1 / spread[second])) ** 0.5
        p_value = 2 * float(stats.t.sf(abs(value) / error, freedom)) if error else float(not value)
        interval = Interval.around(value, t_quantile(freedom) * error)
        differences[first, second] = Comparison(difference=interval, p_value=p_value)
    p_value = float(stats.f.sf(f, len(lines) - 1, freedom))
    return SlopeTest(f=float(f), p_value=p_value, differences=differences)
