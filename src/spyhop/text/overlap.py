"""Texts that repeat each other: n-grams, exact and near duplicates.

All of it rests on the words of a text (small letters, no punctuation) and on 64-bit hashes of runs
of words. Memory: a batch of texts and a byte a row; signatures are in a file, bands in DuckDB.
"""

import hashlib
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from spyhop.lazy import duckdb
from spyhop.schema import Config
from spyhop.text.normal import normal

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

BATCH_TEXTS = 1024
BATCH_CHARS = 1 << 21
FIRST_OF_BUCKET = 8
"""First members of each bucket that a text is compared with, so that a page that occurs a million
times costs a million comparisons and not their square."""
PAIRS_AT_ONCE = 8192
_BLOCK = 16_384  # n-grams hashed at a time; the buffers fit the processor's second cache
_NONE = np.uint32(2**32 - 1)  # what a signature holds where there is no n-gram
BASE = 0x9E3779B97F4A7C15
INVERSE = pow(BASE, -1, 2**64)
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana and Han: no spaces
_SIGNS = (
    r"[^\w\s.,;:!?'\"*`\u2010-\u2027\u3001\u3002\u300c-\u300f\u00ab\u00bb\u00bf\u00a1-]"
    r"|-(?=[\s\d])"
)


@cache
def _patterns(is_ascii: bool) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what finds words, and what finds words and signs."""
    word = r"[a-z0-9]+"
    if not is_ascii:  # vowel signs and the like belong to the letter before them
        every = map(chr, range(0x300, 0x1E950))
        marks = "".join(char for char in every if unicodedata.category(char)[0] == "M")
        word = rf"[{_UNSPACED}][{marks}]*|(?:[^\W_{_UNSPACED}][{marks}]*)+"
    return re.compile(word), re.compile(f"{word}|{_SIGNS}")


def words(text: str) -> list[str]:
    """Return the words of a text in small letters; each kana or Han character is a word.

    Accents and vowel signs are parts of words. Texts with the same normal form have the same words.
    """
    text = normal(text).casefold()
    return _patterns(text.isascii())[0].findall(text)


def fingerprint(text: str) -> int:
    """Return 64 bits of the SHA-256 of words and signs: equal for texts that differ in form only.

    Form is case, white space, quotes, emphasis and the punctuation of sentences. Signs such as
    `+`, `<` or a bracket are not: "7 + 3" differs from "7 - 3".
    """
    text = normal(text).casefold()
    return _fingerprint(_patterns(text.isascii())[1].findall(text))


def _fingerprint(split: list[str]) -> int:
    joined = " ".join(split).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(joined).digest()[:8], "big")


def hash_runs(split: Sequence[list[str]], ngram_words: int) -> tuple[Hashes, Places]:
    """Hash every run of `ngram_words` words; a shorter text is one run, an empty one has none.

    Returns hashes and begins: text i has `hashes[begins[i]:begins[i + 1]]`.
    """
    num_words = np.array([len(each) for each in split], np.int64)
    num_runs = np.where(num_words > 0, np.maximum(num_words - ngram_words + 1, 1), 0)
    begins = np.concatenate([[0], np.cumsum(num_runs)])
    flat = [word for each in split for word in each]
    if not flat:
        return np.empty(0, np.uint64), begins
    data = np.frombuffer((" ".join(flat) + " ").encode("utf-8", "surrogatepass"), np.uint8)
    power, inverse = powers(1 << len(data).bit_length())
    # A run's hash is a difference of two running sums, moved to the start: one pass for any n.
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(data * power[: len(data)])])
    stops = np.flatnonzero(data == ord(" "))
    starts = np.concatenate([[0], stops[:-1] + 1])
    text = np.repeat(np.arange(len(split)), num_runs)
    first = np.concatenate([[0], np.cumsum(num_words)])[text]
    first += np.arange(len(text)) - begins[text]
    last = first + np.minimum(ngram_words, num_words[text]) - 1
    return mixed((sums[stops[last]] - sums[starts[first]]) * inverse[starts[first]]), begins


@cache
def powers(num: int) -> tuple[Hashes, Hashes]:
    """Return the first powers of `BASE` and of its inverse, modulo 2^64."""
    ones = np.ones(1, np.uint64)
    up, down = (np.full(num - 1, base, np.uint64).cumprod() for base in (BASE, INVERSE))
    return np.concatenate([ones, up]), np.concatenate([ones, down])


def mixed(hashes: Hashes) -> Hashes:
    """Spread every bit over all others (the end of splitmix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


NUM_BANDS, ROWS_PER_BAND = 20, 6
"""Of the MinHash index. A pair of similarity s is compared with a probability of
1 - (1 - s^rows)^bands: 99.8 % at 0.8, where the estimate of s has a standard deviation of 0.037."""
NUM_HASHES = NUM_BANDS * ROWS_PER_BAND


class NearConfig(Config):
    """Definition of near duplicates."""

    threshold: float = Field(0.8, gt=0, le=1)
    """Least Jaccard similarity of their n-grams, as estimated by MinHash."""
    ngram_words: int = Field(5, ge=1)
    """Words of an n-gram."""


def signatures(split: Sequence[list[str]], config: NearConfig) -> npt.NDArray[np.uint32]:
    """Return the MinHash signature of each text, (N, num_hashes); all ones where it has no word."""
    hashes, begins = hash_runs(split, config.ngram_words)
    grams = (hashes >> np.uint64(32)).astype(np.uint32)
    draw = np.random.Generator(np.random.PCG64(0))
    factors = draw.integers(0, 2**31, NUM_HASHES, np.uint32) * np.uint32(2) + np.uint32(1)
    masks = draw.integers(0, 2**32, NUM_HASHES, np.uint32)
    found = np.full((NUM_HASHES, len(split)), _NONE)
    filled = np.flatnonzero(np.diff(begins))
    ends = begins[filled + 1]
    buffer = np.empty(_BLOCK, np.uint32)
    for at in range(0, len(grams), _BLOCK):
        block = grams[at : at + _BLOCK]
        low = np.searchsorted(ends, at, "right")
        high = np.searchsorted(begins[filled], at + len(block))
        columns = filled[low:high]  # the texts with n-grams in this block, and their places in it
        cuts = np.maximum(begins[columns] - at, 0)
        values = buffer[: len(block)]
        for row, factor, mask in zip(found, factors, masks, strict=True):
            np.bitwise_xor(block, mask, out=values)
            np.multiply(values, factor, out=values)
            row[columns] = np.minimum(row[columns], np.minimum.reduceat(values, cuts))
    return np.ascontiguousarray(found.T)


class Duplicate(NamedTuple):
    """A row that repeats an earlier, kept row."""

    row: int
    kept: int
    kind: Literal["exact", "near"]
    similarity: float


class Duplicates:
    """Exact and near duplicates among texts that come one after the other.

    The keep rule: of texts with the same words the first stays. Then, in order, a row is dropped
    when it is near a *kept* row before it. The order of the rows alone decides, not their batches.
    """

    def __init__(
        self, folder: Path, config: NearConfig, *, memory_mb: int = 1024, threads: int = 1
    ) -> None:
        """Work in this folder, which is emptied; DuckDB keeps to `memory_mb` and spills there."""
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        folder.mkdir()
        self._config = config
        self._num_rows = 0
        self._file = (folder / "signatures.bin").open("wb")
        self._base = duckdb.connect(
            str(folder / "bands.duckdb"),
            config={
                "memory_limit": f"{memory_mb}MB",
                "temp_directory": str(folder / "spilled"),
                "threads": threads,
                "preserve_insertion_order": False,
            },
        )
        self._base.execute("CREATE TABLE texts (hash UBIGINT, place BIGINT)")
        self._base.execute("CREATE TABLE bands (band USMALLINT, hash UBIGINT, place BIGINT)")

    def add(self, texts: Iterable[str]) -> None:
        """Take in the next rows."""
        for batch in batches(texts):
            split = [words(text) for text in batch]
            found = signatures(split, self._config)
            found.tofile(self._file)
            places = np.arange(self._num_rows, self._num_rows + len(batch))
            prints = np.array([_fingerprint(each) for each in split], np.uint64)
            self._insert("texts", hash=prints, place=places)
            filled = np.array([bool(each) for each in split])
            rows = found[filled].astype(np.uint64).reshape(-1, NUM_BANDS, ROWS_PER_BAND)
            bands = np.zeros(rows.shape[:2], np.uint64)
            for row in range(ROWS_PER_BAND):
                bands = mixed(bands ^ rows[:, :, row])
            bands = np.ascontiguousarray(bands.T)
            numbers = np.repeat(np.arange(len(bands), dtype=np.uint16), bands.shape[1])
            place = np.tile(places[filled], len(bands))
            self._insert("bands", band=numbers, hash=bands.ravel(), place=place)
            self._num_rows += len(batch)

    def _insert(self, table: str, **columns: npt.NDArray[np.generic]) -> None:
        self._base.register("batch", pa.table(columns))
        self._base.execute(f"INSERT INTO {table} BY NAME SELECT * FROM batch")

    def find(self) -> Iterator[Duplicate]:
        """Yield the rows to drop, in order; nothing can be added after."""
        self._file.close()
        if not self._num_rows:
            return
        self._base.execute(_EXACT)
        self._base.execute("CREATE TABLE pairs (place BIGINT, earlier BIGINT)")
        for band in range(NUM_BANDS):
            self._base.execute(_PAIRS_OF_BAND, {"band": band, "first": FIRST_OF_BUCKET})
        kept = np.arange(self._num_rows)
        numbers = np.memmap(self._file.name, np.uint32, "r", shape=(len(kept), NUM_HASHES))
        for batch in self._base.sql(_CANDIDATES).to_arrow_reader(PAIRS_AT_ONCE):
            places, earlier, is_exact = (
                column.to_numpy(zero_copy_only=False) for column in batch.columns
            )
            similar = (numbers[places] == numbers[earlier]).mean(axis=1)
            near = similar >= self._config.threshold
            for at in np.flatnonzero(near | is_exact):
                place, other = int(places[at]), int(earlier[at])
                if kept[place] != place or (kept[other] != other and not is_exact[at]):
                    continue
                kept[place] = kept[other]
                yield Duplicate(
                    place, int(kept[other]), "exact" if is_exact[at] else "near", float(similar[at])
                )

    def close(self) -> None:
        """Let go of the files; the folder may be deleted then."""
        self._file.close()
        self._base.close()


_EXACT = """
    CREATE TABLE copies AS
    SELECT place, earlier
    FROM texts JOIN (SELECT hash, min(place) AS earlier FROM texts GROUP BY hash) USING (hash)
    WHERE place > earlier"""
_PAIRS_OF_BAND = """
    WITH members AS (
        SELECT hash, place FROM bands
        WHERE band = $band AND place NOT IN (SELECT place FROM copies)
    ), leaders AS (
        SELECT hash, unnest(min(place, $first)) AS earlier FROM members
        GROUP BY hash HAVING count(*) > 1
    )
    INSERT INTO pairs SELECT place, earlier FROM members JOIN leaders USING (hash)
    WHERE place > earlier"""
_CANDIDATES = """
    SELECT place, earlier, false AS is_exact FROM (SELECT DISTINCT * FROM pairs)
    UNION ALL SELECT place, earlier, true FROM copies
    ORDER BY place, earlier"""


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Group texts, in order, by at most `BATCH_TEXTS` and about `BATCH_CHARS`."""
    batch: list[str] = []
    num_chars = 0
    for text in texts:
        batch.append(text)
        num_chars += len(text)
        if len(batch) == BATCH_TEXTS or num_chars >= BATCH_CHARS:
            yield batch
            batch, num_chars = [], 0
    if batch:
        yield batch
