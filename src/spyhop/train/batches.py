"""Which rows are trained on at which step: a function of lengths, seed and budget alone."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

SORTED_ROWS = 16_384
"""Rows that are sorted by length together before they are cut into batches."""


def plan_batches(
    lengths: npt.NDArray[np.int64],
    inputs: Sequence[int],
    *,
    budgets: Sequence[int],
    batch_tokens: int,
    seed: int,
) -> list[Rows]:
    """Return the global batch of every step as row numbers.

    Each input is gone through in shuffled epochs until its budget is met; then rows of all inputs
    are shuffled together, sorted by length within windows of `SORTED_ROWS` and cut into batches of
    at most `batch_tokens` padded tokens (a longer row stands alone); the batches are shuffled.

    Args:
        lengths: Tokens of every row.
        inputs: Bounds of the inputs in `lengths`, as in `TokenRows`.
        budgets: Tokens to draw from each input; the last row drawn may exceed it.
        batch_tokens: Tokens of a batch, padding included.
        seed: Of the order.
    """
    random = np.random.default_rng(seed)
    drawn = [
        _draw(lengths, first, last, budget, random)
        for first, last, budget in zip(inputs, inputs[1:], budgets, strict=False)
    ]
    order = np.concatenate(drawn)
    if sum(budget > 0 for budget in budgets) > 1:
        order = random.permutation(order)
    batches: list[Rows] = []
    for start in range(0, len(order), SORTED_ROWS):
        window = order[start : start + SORTED_ROWS]
        window = window[np.argsort(lengths[window], kind="stable")]
        cut = _cut(window, lengths, batch_tokens)
        batches += [cut[place] for place in random.permutation(len(cut))]
    return batches


def split_micro(rows: Rows, lengths: npt.NDArray[np.int64], micro_tokens: int) -> list[Rows]:
    """Split a global batch, sorted by length, into forward passes of `micro_tokens` each."""
    return _cut(rows[np.argsort(lengths[rows], kind="stable")], lengths, micro_tokens)


def _draw(
    lengths: npt.NDArray[np.int64], first: int, last: int, budget: int, random: np.random.Generator
) -> Rows:
    taken: list[Rows] = []
    left = budget
    while left > 0:
        epoch = first + random.permutation(last - first)
        ends = np.cumsum(lengths[epoch])
        epoch = epoch[: int(np.searchsorted(ends, left)) + 1]
        taken.append(epoch)
        left -= int(lengths[epoch].sum())
    return np.concatenate(taken) if taken else np.empty(0, dtype=np.int64)


def _cut(rows: Rows, lengths: npt.NDArray[np.int64], limit: int) -> list[Rows]:
    batches, start = [], 0
    for stop, row in enumerate(rows):
        if stop > start and int(lengths[row]) * (stop + 1 - start) > limit:
            batches.append(rows[start:stop])
            start = stop
    if start < len(rows):
        batches.append(rows[start:])
    return batches
