"""A row's place in the draw: 64 bits that its text and the seed decide, the same on any machine.

The rows with the lowest priorities are drawn. Nothing else plays a part: not the file a row stands
in, its place there, nor how many workers read. Rows with the same text have the same priority.

The hash of a text is the sum of (byte at i) * B^i modulo 2^64, together with its length, mixed by
the end of splitmix64; for a text above `LONG` bytes it is the beginning of its SHA-256. Texts are
hashed many at once, about a nanosecond for each byte.
"""

import hashlib
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes = npt.NDArray[np.uint64]

LONG = 1 << 17
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)


def priorities(columns: list[pa.Array], seed: int) -> Hashes:
    """Return the priority of each row, given the columns of text that make it what it is."""
    seeded = np.full(1, seed % 2**64, np.uint64)
    total = np.repeat(_mixed(seeded * np.uint64(_BASE) + np.uint64(1)), len(columns[0]))
    for column in columns:
        total = _mixed(total ^ hash_texts(column))
    return total


def hash_texts(texts: pa.Array) -> Hashes:
    """Return the hash of each text; null is taken for the empty text."""
    column = texts.cast(pa.large_string())
    if column.null_count:
        column = column.fill_null("")
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    found = np.zeros(len(column), np.uint64)
    if ends[-1] > ends[0]:
        text = np.frombuffer(data, np.uint8)
        first = 0
        while first < len(column):  # as many texts as fit, at least one
            last = max(first + 1, int(np.searchsorted(ends, ends[first] + LONG, "right")) - 1)
            found[first:last] = _summed(text, ends[first : last + 1])
            first = last
    return _mixed(found ^ np.diff(ends).astype(np.uint64))


def _summed(text: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> Hashes:
    num = int(ends[-1] - ends[0])
    if num > LONG:
        digest = hashlib.sha256(text[ends[0] : ends[-1]].tobytes()).digest()
        return np.frombuffer(digest[:8], np.uint64)
    begins, lengths = ends[:-1] - ends[0], np.diff(ends)
    sums = np.zeros(len(lengths), np.uint64)
    filled = np.flatnonzero(lengths)
    if len(filled):
        powers, inverses = _powers()
        terms = text[ends[0] : ends[-1]] * powers[:num]
        # Each sum begins at a power of its own place in the batch; this is taken away again.
        sums[filled] = np.add.reduceat(terms, begins[filled]) * inverses[begins[filled]]
    return sums


@cache
def _powers() -> tuple[Hashes, Hashes]:
    ones = np.ones(1, np.uint64)
    up, down = (np.full(LONG, base, np.uint64).cumprod() for base in (_BASE, _INVERSE))
    return np.concatenate([ones, up]), np.concatenate([ones, down])


def _mixed(hashes: Hashes) -> Hashes:
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
