"""Which rows are trained on at which step: a function of lengths, seed and budget alone."""

from collections.abc import Iterator, Sequence

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

    Each input is gone through in shuffled epochs until its budget is met. Within an epoch (and at
    most `SORTED_ROWS` rows) rows are sorted by length and cut into batches of at most
    `batch_tokens` padded tokens; a longer row stands alone. So no batch holds a row twice, however
    often a small input is repeated. The batches of an epoch are shuffled; with several inputs all
    batches are.

    Args:
        lengths: Tokens of every row.
        inputs: Bounds of the inputs in `lengths`, as in `TokenRows`.
        budgets: Tokens to draw from each input; the last row drawn may exceed it.
        batch_tokens: Tokens of a batch, padding included.
        seed: Of the order.
    """
    random = np.random.default_rng(seed)
    batches: list[Rows] = []
    for first, last, budget in zip(inputs, inputs[1:], budgets, strict=False):
        for epoch in _epochs(lengths, first, last, budget, random):
            for start in range(0, len(epoch), SORTED_ROWS):
                window = epoch[start : start + SORTED_ROWS]
                window = window[np.argsort(lengths[window], kind="stable")]
                cut = _cut(window, lengths, batch_tokens)
                batches += [cut[place] for place in random.permutation(len(cut))]
    if sum(budget > 0 for budget in budgets) > 1:
        batches = [batches[place] for place in random.permutation(len(batches))]
    return batches


def split_micro(rows: Rows, lengths: npt.NDArray[np.int64], micro_tokens: int) -> list[Rows]:
    """Split a global batch, sorted by length, into forward passes of `micro_tokens` each."""
    return _cut(rows[np.argsort(lengths[rows], kind="stable")], lengths, micro_tokens)


def _epochs(
    lengths: npt.NDArray[np.int64], first: int, last: int, budget: int, random: np.random.Generator
) -> Iterator[Rows]:
    left = budget
    while left > 0:
        epoch = first + random.permutation(last - first)
        ends = np.cumsum(lengths[epoch])
        epoch = epoch[: int(np.searchsorted(ends, left)) + 1]
        left -= int(lengths[epoch].sum())
        yield epoch


def _cut(rows: Rows, lengths: npt.NDArray[np.int64], limit: int) -> list[Rows]:
    batches, start = [], 0
    for stop, row in enumerate(rows):
        if stop > start and int(lengths[row]) * (stop + 1 - start) > limit:
            batches.append(rows[start:stop])
            start = stop
    if start < len(rows):
        batches.append(rows[start:])
    return batches
