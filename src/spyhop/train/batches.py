"""Which rows are trained on at which step, and which of them share a sequence.

A function of lengths, seed and budget alone. A row is never cut and never dropped.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from spyhop.lazy import sparse
from spyhop.schema import TrainingError

RowNumbers = npt.NDArray[np.int64]

SORTED_ROWS = 16_384
"""Rows that are sorted by length together before they are cut into batches."""


def plan_batches(
    lengths: RowNumbers,
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
    for epoch in _epochs(lengths, inputs, budgets, random):
        for start in range(0, len(epoch), SORTED_ROWS):
            cut = split_microbatches(epoch[start : start + SORTED_ROWS], lengths, batch_tokens)
            batches += [cut[place] for place in random.permutation(len(cut))]
    if sum(budget > 0 for budget in budgets) > 1:
        batches = [batches[place] for place in random.permutation(len(batches))]
    return batches


def plan_packs(
    lengths: RowNumbers,
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
    for epoch in _epochs(lengths, inputs, budgets, random, is_shuffled=is_shuffled):
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
    microbatches: Sequence[RowNumbers], lengths: RowNumbers, num_ranks: int
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


def split_microbatches(rows: RowNumbers, lengths: RowNumbers, limit: int) -> list[RowNumbers]:
    """Sort rows by length, and cut them into batches of at most `limit` padded tokens each."""
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    batches, start = [], 0
    for stop, row in enumerate(rows):
        if stop > start and int(lengths[row]) * (stop + 1 - start) > limit:
            batches.append(rows[start:stop])
            start = stop
    if start < len(rows):
        batches.append(rows[start:])
    return batches


def _epochs(
    lengths: RowNumbers,
    inputs: Sequence[int],
    budgets: Sequence[int],
    random: np.random.Generator,
    *,
    is_shuffled: bool = True,
) -> Iterator[RowNumbers]:
    """Yield epochs of each input until its budget is met; the last one is cut short."""
    for (first, last), left in zip(pairwise(inputs), budgets, strict=True):
        while left > 0:
            size = last - first
            epoch = first + (random.permutation(size) if is_shuffled else np.arange(size))
            ends = np.cumsum(lengths[epoch])
            epoch = epoch[: int(np.searchsorted(ends, left)) + 1]
            left -= int(lengths[epoch].sum())
            yield epoch


@dataclass(frozen=True, slots=True)
class Packs:
    """Rows by pack: pack p holds the rows `rows[starts[p]:starts[p + 1]]`, in this order.

    `rows` is (number of rows,), `starts` is (number of packs + 1,), both int64.
    """

    rows: RowNumbers
    starts: RowNumbers

    def __len__(self) -> int:
        """Return the number of packs."""
        return len(self.starts) - 1

    def __getitem__(self, place: int) -> RowNumbers:
        """Return the rows of one pack."""
        return self.rows[self.starts[place] : self.starts[place + 1]]


def best_fit(lengths: RowNumbers, capacity: int) -> Packs:
    """Pack rows by best fit decreasing: longest first, each where the least room would be left.

    Guarantees: every row once; no pack above `capacity`; at most 11/9 of the fewest packs
    possible, plus 4; at most one pack is no more than half full. Shuffle the rows first: those of
    one length are dealt out in the order given.

    Rows of one length are placed together: what the algorithm does to one of them it does to all
    that meet packs of the same room. So the time is that of sorting the rows twice.

    Source: bound for best fit decreasing: Johnson et al., SIAM J. Comput. 3 (1974).
    """
    _check(lengths, capacity)
    keys = capacity - lengths
    order = np.argsort(keys.astype(np.min_scalar_type(capacity)), kind="stable")  # radix: 16 bits
    pack_of = np.empty(len(lengths), dtype=np.int64)
    by_room: dict[int, list[RowNumbers]] = defaultdict(list)
    rooms = 0  # bit r is set where some pack has room r
    num_packs = place = 0
    counts = np.bincount(lengths)
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            is_new = not (fitting := rooms >> length)
            room = capacity if is_new else length + (fitting & -fitting).bit_length() - 1
            num = max(1, left // (room // length))  # packs that the rows fill, or one that is not
            if is_new:
                packs = np.arange(num_packs, num_packs + num)
                num_packs += num
            else:
                packs, rest = np.split(by_room[room].pop(), [num])
                if len(rest):
                    by_room[room].append(rest)
                elif not by_room[room]:
                    rooms ^= 1 << room
            each = min(room // length, left)
            stop = place + len(packs) * each
            pack_of[place:stop] = np.tile(packs, each)
            if room := room - each * length:
                by_room[room].append(packs)
                rooms |= 1 << room
            left -= stop - place
            place = stop
    if not len(order):
        return Packs(order, np.zeros(1, dtype=np.int64))
    # Numbers to rows of a sparse matrix sort the rows by pack, in one counting pass.
    matrix = sparse.coo_array((order, (pack_of, np.arange(len(order))))).tocsr()
    return Packs(matrix.data, matrix.indptr.astype(np.int64))


def grouped(order: RowNumbers, lengths: RowNumbers, capacity: int) -> Packs:
    """Pack rows in the given order: a pack is closed when the next row does not fit.

    With a shuffled order this is the packing of the Orca paper; with a curriculum's order, the
    order is kept.

    Source: Orca (arXiv:2306.02707), section 3.2: groups of at most 2,048 tokens, then padding.
    """
    taken = lengths[order]
    _check(taken, capacity)
    ends = np.concatenate([[0], np.cumsum(taken)])
    after = (np.searchsorted(ends, ends[:-1] + capacity, side="right") - 1).tolist()
    starts = [0]
    while starts[-1] < len(order):
        starts.append(after[starts[-1]])
    return Packs(order, np.array(starts, dtype=np.int64))


def _check(lengths: RowNumbers, capacity: int) -> None:
    if len(lengths) and not 0 < int(lengths.min()) <= int(lengths.max()) <= capacity:
        row = int(np.argmax((lengths > capacity) | (lengths <= 0)))
        raise TrainingError(
            f"row {row} has {int(lengths[row])} tokens, a pack holds 1 to {capacity}; "
            "drop longer rows first, or raise max_tokens"
        )
