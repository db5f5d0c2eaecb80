import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from spyhop.collect.draw import LONG, priorities

ROWS = st.lists(st.tuples(st.text(max_size=40), st.text(max_size=12)), min_size=1, max_size=30)
MASK = 2**64 - 1
BASE = 0x9E3779B97F4A7C15
FACTOR = 0xBF58476D1CE4E5B9


def mixed(value: int) -> int:
    value = ((value ^ (value >> 30)) * FACTOR) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def by_definition(texts: tuple[str, ...], seed: int) -> int:
    """The definition in the module's own words, a row at a time."""
    texts = tuple(pc.utf8_trim_whitespace(pa.scalar(text)).as_py() for text in texts)
    total = mixed((seed * BASE + 1) & MASK)
    data = b""
    for text in texts:
        total = mixed(total ^ len(text.encode()))
        data += text.encode()
    data += bytes(-len(data) % 8)
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
    found = 0
    for place, word in enumerate(words):
        term = ((word ^ (word >> 32)) * FACTOR) & MASK
        found += (term ^ (term >> 29)) * pow(BASE, place, 2**64)
    if len(words) > LONG:
        found = int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
    return mixed(total ^ (found & MASK))


def _columns(rows: list[tuple[str, ...]]) -> list[pa.Array]:
    return [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]


@given(ROWS, st.integers(0, 5))
def test_the_hash_is_the_one_that_is_defined(rows: list[tuple[str, str]], seed: int):
    found = priorities(_columns(rows), seed).tolist()
    assert found == [by_definition(row, seed) for row in rows]


def test_long_rows_and_lots():
    rows = [("a" * 8 * LONG, ""), ("b" * (8 * LONG + 1), "c"), ("", ""), ("d" * 100_000, "e")] * 3
    assert priorities(_columns(rows), 1).tolist() == [by_definition(row, 1) for row in rows]


def test_one_value_for_all_time():
    assert by_definition(("What is 2 + 2?", "4"), 0) == 0x45CEE976A4B5F739


@pytest.mark.parametrize("rows", [
    [(f"Question {n}?", "yes") for n in range(20_000)],
    [("same " * 50, str(n)) for n in range(20_000)],
    [("x" * n, "") for n in range(3_000)],
], ids=["numbers", "target", "length"])  # fmt: skip
def test_priorities_of_alike_texts_are_even(rows: list[tuple[str, str]]):
    found = priorities(_columns(rows), 0)
    assert len(np.unique(found)) == len(rows)
    assert kstest(found / 2.0**64, "uniform").pvalue > 1e-4


def test_null_is_empty_and_space_around_does_not_count():
    one = priorities([pa.array([None, " a\u00a0"]), pa.array(["b", "c"])], 0)
    assert one.tolist() == priorities([pa.array(["", "a"]), pa.array(["b\n", "c"])], 0).tolist()
