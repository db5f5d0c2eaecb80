"""Tests of one model against guessing, of many p-values, and what a test can find."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from spyhop.lazy import optimize, stats
from spyhop.statistics.interval import check_count


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
    check_count(correct, n)
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


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the same order: Holm's step-down method.

    Source: Holm (1979), Scandinavian Journal of Statistics 6:65.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values {list(p_values)!r:.80} must lie between 0 and 1")
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]


def detectable_difference(n: int, discordant: float) -> float | None:
    """Return the smallest difference in accuracy that McNemar's test finds with 80 % power.

    None if n items find no difference at this (assumed) share of discordant items.

    Source: Connor (1987), Biometrics 43:207.
    """
    if n < 1 or not 0 < discordant <= 1:
        raise ValueError(f"n = {n} and discordant = {discordant}: needs items, and 0 < share <= 1")
    alpha, beta = (float(stats.norm.ppf(q)) for q in (0.975, 0.8))

    def shortfall(delta: float) -> float:
        spread = alpha * discordant**0.5 + beta * max(0.0, discordant - delta**2) ** 0.5
        return float(spread - delta * n**0.5)

    if shortfall(discordant) > 0:
        return None
    return float(optimize.brentq(shortfall, 0, discordant))
