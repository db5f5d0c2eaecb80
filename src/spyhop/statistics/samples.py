"""Several samples per item: pass@k, the majority vote, and the sources of variance of a score."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import ArrayLike


def pass_at_k(num_correct: Sequence[int], n: int, k: int) -> float:
    """Return the mean probability that one of k samples of an item is right, of each item's n.

    Source: Chen et al. (arXiv:2107.03374), equation 1, unbiased.
    """
    if not len(num_correct) or not 1 <= k <= n or not all(0 <= c <= n for c in num_correct):
        raise ValueError(f"pass@{k} of {n} samples: needs items, 1 <= k <= n, and 0 <= right <= n")
    return float(np.mean([1 - comb(n - c, k) / comb(n, k) for c in num_correct]))


def majority_correct(answers: Sequence[str | None], is_right: Sequence[bool]) -> float:
    """Return how right the commonest answer of an item's samples is; ties share the verdict."""
    if not answers or len(answers) != len(is_right):
        raise ValueError(f"{len(answers)} answers and {len(is_right)} verdicts; both need samples")
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    first = [answer for answer, num in votes.items() if num == max(votes.values())]
    right = {answer for answer, each in zip(answers, is_right, strict=True) if each}
    return sum(answer in right for answer in first) / len(first)


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceSplit:
    """Variance of one score by source, and the standard error of the mean over all of them."""

    mean: float
    items: float
    """Between items, of their expected scores; with one seed also item by seed."""
    samples: float | None
    """Between samples of one item by one model; None with a single sample."""
    seeds: float | None
    """Between models of different seeds; None with a single seed."""
    interaction: float | None
    """Items that some seeds find harder than others do; None with a single seed."""
    error: float
    """Standard error of the mean for new items, samples and (if there are several) seeds."""


def variance_split(values: ArrayLike) -> VarianceSplit:
    """Split the variance of scores, (seeds, items, samples), by analysis of variance.

    Components are method-of-moments estimates; a negative one is reported as 0. Without a second
    sample the interaction holds the samples' variance, too.

    Source: Searle, Casella, McCulloch (1992), Variance Components, section 4.3.
    """
    y = np.asarray(values, dtype=float)
    if y.ndim != 3 or y.size == 0 or y.shape[1] < 2 or not np.isfinite(y).all():
        raise ValueError(f"(seeds, items, samples) = {y.shape}: needs two items, all scores finite")
    num_seeds, num_items, num_samples = y.shape
    cells = y.mean(axis=2)
    by_item, by_seed, mean = cells.mean(axis=0), cells.mean(axis=1), float(cells.mean())
    samples = float(y.var(axis=2, ddof=1).mean()) if num_samples > 1 else None
    noise = (samples or 0.0) / num_samples
    between_items = float(by_item.var(ddof=1))
    if num_seeds == 1:
        items, seeds, interaction = max(0.0, between_items - noise), None, None
        error2 = between_items / num_items
    else:
        rest = cells - by_item - by_seed[:, None] + mean
        both = float((rest**2).sum()) / ((num_seeds - 1) * (num_items - 1))
        interaction = max(0.0, both - noise)
        items = max(0.0, between_items - both / num_seeds)
        seeds = max(0.0, float(by_seed.var(ddof=1)) - both / num_items)
        error2 = items / num_items + seeds / num_seeds + both / (num_seeds * num_items)
    return VarianceSplit(
        mean=mean,
        items=items,
        samples=samples,
        seeds=seeds,
        interaction=interaction,
        error=error2**0.5,
    )
