"""Which rows are trained on at which step: a function of lengths, seed and budget alone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from spyhop.train.pack import best_fit, grouped

RowNumbers = npt.NDArray[np.int64]

SORTED_ROWS = 16_384
"""Rows that are sorted by length together before they are cut into batches."""


def plan_batches(
    lengths: npt.NDArray[np.int64],
    inputs: Sequence[int],
    *,
    budgets: Sequence[int],
    batch_tokens: int,
    seed: int,
) -> list[RowNumbers]:
    """Return the global batch of every step as row numbers.

    Each input is repeated in shuffled epochs until its budget is met. Within an epoch (and at
    most `SORTED_ROWS` rows) rows are sorted by length and cut into batches of at most
    `batch_tokens` padded tokens; a longer row is a batch of its own. So no batch contains a row
    twice, however often a small input is repeated. The batches of an epoch are shuffled; with
    several inputs, all batches together.
    """
    random = np.random.default_rng(seed)
    batches: list[RowNumbers] = []
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


def plan_packs(
    lengths: npt.NDArray[np.int64],
    inputs: Sequence[int],
    *,
    budgets: Sequence[int],
    batch_tokens: int,
    capacity: int,
    packing: Literal["best_fit", "grouped", "in_order"],
    seed: int,
) -> list[list[RowNumbers]]:
    """Return the packs of every step, as row numbers; otherwise like `plan_batches`.

    A step has `batch_tokens // capacity` packs, and at least one; the last of an epoch may have
    fewer. No step holds a row twice.
    """
    random = np.random.default_rng(seed)
    is_shuffled = packing != "in_order"
    each = max(1, batch_tokens // capacity)
    steps: list[list[RowNumbers]] = []
    for (first, last), budget in zip(pairwise(inputs), budgets, strict=True):
        for epoch in _epochs(lengths, first, last, budget, random, is_shuffled=is_shuffled):
            if packing == "best_fit":
                packs = best_fit(lengths[epoch], capacity)
                packs = replace(packs, rows=epoch[packs.rows])
            else:
                packs = grouped(epoch, lengths, capacity)
            order = random.permutation(len(packs)) if is_shuffled else np.arange(len(packs))
            found = [packs[place] for place in order.tolist()]
            steps += [found[start : start + each] for start in range(0, len(found), each)]
    if is_shuffled and sum(budget > 0 for budget in budgets) > 1:
        steps = [steps[place] for place in random.permutation(len(steps)).tolist()]
    return steps


def shard_microbatches(
    microbatches: Sequence[RowNumbers], lengths: npt.NDArray[np.int64], num_ranks: int
) -> list[list[RowNumbers]]:
    """Distribute a step's microbatches over ranks: as many to each, balanced by size.

    Where their number does not divide, the fullest microbatches are halved; where there are fewer
    rows than ranks, some are empty: such a rank runs any row and takes no loss from it.
    """
    passes = list(microbatches)
    while len(passes) % num_ranks:
        fullest = max(range(len(passes)), key=lambda place: len(passes[place]))
        halves = np.array_split(passes.pop(fullest), 2)
        passes += halves
    passes.sort(key=lambda rows: -int(lengths[rows].sum()))
    dealt: list[list[RowNumbers]] = [[] for _ in range(num_ranks)]
    for turn, start in enumerate(range(0, len(passes), num_ranks)):
        some = passes[start : start + num_ranks]
        for rank, rows in enumerate(some if turn % 2 == 0 else reversed(some)):
            dealt[rank].append(rows)
    return dealt


def split_microbatches(
    rows: RowNumbers, lengths: npt.NDArray[np.int64], microbatch_tokens: int
) -> list[RowNumbers]:
    """Split a global batch, sorted by length, into forward passes of `microbatch_tokens` each."""
    return _cut(rows[np.argsort(lengths[rows], kind="stable")], lengths, microbatch_tokens)


def _epochs(
    lengths: npt.NDArray[np.int64],
    first: int,
    last: int,
    budget: int,
    random: np.random.Generator,
    *,
    is_shuffled: bool = True,
) -> Iterator[RowNumbers]:
    left = budget
    while left > 0:
        size = last - first
        epoch = first + (random.permutation(size) if is_shuffled else np.arange(size))
        ends = np.cumsum(lengths[epoch])
        epoch = epoch[: int(np.searchsorted(ends, left)) + 1]
        left -= int(lengths[epoch].sum())
        yield epoch


def _cut(rows: RowNumbers, lengths: npt.NDArray[np.int64], limit: int) -> list[RowNumbers]:
    batches, start = [], 0
    for stop, row in enumerate(rows):
        if stop > start and int(lengths[row]) * (stop + 1 - start) > limit:
            batches.append(rows[start:stop])
            start = stop
    if start < len(rows):
        batches.append(rows[start:])
    return batches
