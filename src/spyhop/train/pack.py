"""Packing: which rows share a sequence, so that little of it is padding.

Only lengths matter. A row is never cut and never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spyhop.lazy import sparse
from spyhop.schema import TrainingError

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Packs:
    """Rows by pack: pack p holds the rows `rows[starts[p]:starts[p + 1]]`, in this order.

    `rows` is (number of rows,), `starts` is (number of packs + 1,), both int64.
    """

    rows: Numbers
    starts: Numbers

    def __len__(self) -> int:
        """Return the number of packs."""
        return len(self.starts) - 1

    def __getitem__(self, place: int) -> Numbers:
        """Return the rows of one pack."""
        return self.rows[self.starts[place] : self.starts[place + 1]]


def best_fit(lengths: Numbers, capacity: int) -> Packs:
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
    rooms = _Rooms(capacity)
    place = 0
    counts = np.bincount(lengths)
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            room, packs = rooms.take(length, left)
            each = min(room // length, left)
            stop = place + len(packs) * each
            pack_of[place:stop] = np.tile(packs, each)
            rooms.put(room - each * length, packs)
            left -= stop - place
            place = stop
    if not len(order):
        return Packs(order, np.zeros(1, dtype=np.int64))
    # Numbers to rows of a sparse matrix sort the rows by pack, in one counting pass.
    matrix = sparse.coo_array((order, (pack_of, np.arange(len(order))))).tocsr()
    return Packs(matrix.data, matrix.indptr.astype(np.int64))


def grouped(order: Numbers, lengths: Numbers, capacity: int) -> Packs:
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


class _Rooms:
    """Packs by the room that is left in them."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._packs: dict[int, list[Numbers]] = {}
        self._is_there = 0
        """Bit r is set where some pack has room r."""
        self.num_packs = 0

    def take(self, length: int, num_rows: int) -> tuple[int, Numbers]:
        """Return the least room of at least `length`, and packs that `num_rows` rows fill.

        Either all the packs together hold at most `num_rows`, or there is one pack alone.
        """
        rest = self._is_there >> length
        if not rest:
            num = max(1, num_rows // (self._capacity // length))
            self.num_packs += num
            return self._capacity, np.arange(self.num_packs - num, self.num_packs)
        room = length + (rest & -rest).bit_length() - 1
        some = self._packs[room]
        packs = some.pop()
        num = max(1, num_rows // (room // length))
        if num < len(packs):
            some.append(packs[num:])
            packs = packs[:num]
        if not some:
            self._is_there &= ~(1 << room)
        return room, packs

    def put(self, room: int, packs: Numbers) -> None:
        """Take packs back with the room that they have now."""
        if room:
            self._packs.setdefault(room, []).append(packs)
            self._is_there |= 1 << room


def _check(lengths: Numbers, capacity: int) -> None:
    if len(lengths) and not 0 < int(lengths.min()) <= int(lengths.max()) <= capacity:
        row = int(np.argmax((lengths > capacity) | (lengths <= 0)))
        raise TrainingError(
            f"row {row} has {int(lengths[row])} tokens, a pack holds 1 to {capacity}; "
            "drop longer rows first, or raise max_tokens"
        )
