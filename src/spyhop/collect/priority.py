"""A row's place in the draw: 64 bits that its text and the seed decide, the same on any machine.

The rows with the lowest priorities are drawn; rows with the same text have the same priority.

The texts of a row (without space around them, UTF-8) are put one after the other and filled up
with zero bytes to whole words of eight, little end first. The hash is the sum of mix(word at i) *
B^i modulo 2^64; seed, lengths and sum are then mixed in turn by the end of splitmix64. Of a row
above `LONG` words the sum is the beginning of its SHA-256.
"""

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spyhop.text.overlap import BASE, Hashes, mixed, powers

LONG = 1 << 15
_FACTOR = np.uint64(0xBF58476D1CE4E5B9)


def priorities(columns: list[pa.Array], seed: int) -> Hashes:
    """Return the priority of each row, given its columns of text; null is the empty text."""
    texts = [_bytes(column) for column in columns]
    lengths = [pc.binary_length(text).to_numpy().astype(np.uint64) for text in texts]
    start = np.full(1, seed % 2**64, np.uint64) * np.uint64(BASE) + np.uint64(1)
    total = np.repeat(mixed(start), len(columns[0]))
    for each in lengths:
        total = mixed(total ^ each)
    return mixed(total ^ _sums(texts, np.sum(lengths, axis=0)))


def _bytes(column: pa.Array) -> pa.Array:
    text = column.cast(pa.large_string()).fill_null("")
    return pc.utf8_trim_whitespace(text).cast(pa.large_binary())


def _sums(texts: list[pa.Array], lengths: Hashes) -> Hashes:
    """Return the sum of each row's words."""
    missing = pa.array((-lengths % np.uint64(8)).astype(np.int8))
    choices = pa.array([bytes(num) for num in range(8)], pa.large_binary())
    fillings = pa.DictionaryArray.from_arrays(missing, choices).dictionary_decode()
    nothing = pa.scalar(b"", pa.large_binary())
    filled = pc.binary_join_element_wise(*texts, fillings, nothing)
    _, offsets, data = filled.buffers()
    ends = np.frombuffer(offsets, np.int64)[filled.offset : filled.offset + len(filled) + 1] // 8
    words = np.frombuffer(data, "<u8", ends[-1]) if ends[-1] else np.zeros(0, np.uint64)
    found = np.zeros(len(filled), np.uint64)
    first = 0
    while first < len(filled):  # as many rows as fit, at least one
        last = max(first + 1, int(np.searchsorted(ends, ends[first] + LONG, "right")) - 1)
        found[first:last] = _summed(
            words[ends[first] : ends[last]], np.diff(ends[first : last + 1])
        )
        first = last
    return found


def _summed(words: Hashes, lengths: npt.NDArray[np.int64]) -> Hashes:
    if len(words) > LONG:
        return np.frombuffer(hashlib.sha256(words.tobytes()).digest()[:8], "<u8")
    sums = np.zeros(len(lengths), np.uint64)
    filled = np.flatnonzero(lengths)
    if len(filled):
        factors, inverses = powers(LONG)
        terms = words >> np.uint64(32)
        terms ^= words
        terms *= _FACTOR
        terms ^= terms >> np.uint64(29)
        terms *= factors[: len(words)]
        # Each sum begins at a power of its own place in the lot; this is taken away again.
        begins = (np.cumsum(lengths) - lengths)[filled]
        sums[filled] = np.add.reduceat(terms, begins) * inverses[begins]
    return sums
