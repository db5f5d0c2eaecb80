"""A measure against the logarithm of a size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from spyhop.lazy import stats
from spyhop.statistics.interval import Interval
from spyhop.statistics.paired import Comparison


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopeTest:
    """Whether lines of several data sets have one slope."""

    f: float
    """F statistic of equal slopes, each line with its own constant."""
    p_value: float
    differences: dict[tuple[str, str], Comparison]
    """Of each pair, alpha of the second minus that of the first."""


def equal_slopes(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, level: float = 0.95
) -> SlopeTest:
    """Test whether several lines w = alpha * log N + C have the same alpha.

    The F test of the interaction in an analysis of covariance; all lines share one variance about
    their line. p-values of the pairs are not corrected for their number.

    Args:
        lines: (sizes, values) of each data set, by name.
        level: Nominal coverage.

    Raises:
        ValueError: If there are fewer than two lines, one has points of one size only, or there
            are too few points to know a variance.
    """
    points = {
        name: (np.log(np.asarray(sizes, dtype=float)), np.asarray(values, dtype=float))
        for name, (sizes, values) in lines.items()
    }
    if len(points) < 2 or any(len(set(x.tolist())) < 2 for x, _ in points.values()):
        raise ValueError("equal slopes needs two lines or more, each with points of two sizes")
    freedom = sum(len(x) for x, _ in points.values()) - 2 * len(points)
    if freedom < 1:
        raise ValueError(f"{freedom} degrees of freedom are left; more points are needed")
    centred = {name: (x - x.mean(), y - y.mean()) for name, (x, y) in points.items()}
    spread = {name: float(x @ x) for name, (x, _) in centred.items()}
    slope = {name: float(x @ y) / spread[name] for name, (x, y) in centred.items()}
    common = sum(slope[name] * spread[name] for name in points) / sum(spread.values())
    apart = sum(float(((y - slope[name] * x) ** 2).sum()) for name, (x, y) in centred.items())
    between = sum(spread[name] * (slope[name] - common) ** 2 for name in points)
    variance = apart / freedom
    f = between / (len(points) - 1) / variance if variance else (np.inf if between else 0.0)
    differences = {}
    for first, second in combinations(points, 2):
        value = slope[second] - slope[first]
        error = (variance * (1 / spread[first] + 1 / spread[second])) ** 0.5
        half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
        p_value = 2 * float(stats.t.sf(abs(value) / error, freedom)) if error else float(not value)
        interval = Interval(value=value, low=value - half, high=value + half, level=level)
        differences[first, second] = Comparison(difference=interval, p_value=p_value)
    p_value = float(stats.f.sf(f, len(points) - 1, freedom))
    return SlopeTest(f=float(f), p_value=p_value, differences=differences)
