import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from spyhop.schema import Message
from spyhop.store import canonical, key_of, row_id

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


class Inner(BaseModel):
    a: int = 1
    b: tuple[str, ...] = ("x",)


@pytest.mark.parametrize(
    "value",
    [{1, 2}, b"bytes", Path("a"), object(), float("nan"), float("inf"), {1: "a"}, [lambda: 0]],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_plain_data_is_refused(value: object):
    with pytest.raises(TypeError, match=r"canonical form|text names"):
        canonical({"inside": [value]})


def test_keys_stay_the_same_for_years():
    value = {"b": [1, 2.5, None, True, "\u00e9\ud83d"], "a": Inner()}
    assert canonical(value) == ('{"a":{"a":1,"b":["x"]},"b":[1,2.5,null,true,"\\u00e9\\ud83d"]}')
    assert key_of(["stage", 1, Message(role="user", content="x"), {}]) == "cfda32caa2f1b588"
    assert row_id("cot", "task", "question") == "f121d15fbef86aa0"


@given(PLAIN, PLAIN)
def test_different_values_have_different_texts(one: object, other: object):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (canonical(one) == canonical(other)) == same


@given(st.dictionaries(st.text(max_size=3), PLAIN, max_size=4))
def test_the_order_of_a_mapping_is_no_identity(value: dict[str, object]):
    assert canonical(dict(reversed(value.items()))) == canonical(value)


def test_kinds_of_number_and_text_differ():
    texts = [canonical(value) for value in (1, 1.0, True, "1", None, "null", [1], {"1": 1}, [[1]])]
    assert len(set(texts)) == len(texts)


@given(st.lists(st.text(alphabet="ab", max_size=3), min_size=1, max_size=3).map(tuple))
def test_row_ids_part_their_parts(parts: tuple[str, ...]):
    assert row_id(*parts) != row_id(*parts, "")
    assert len(row_id(*parts)) == 16


def test_row_ids_take_any_text():
    assert row_id("\ud800") != row_id("\ud801")
    assert row_id("ab", "c") != row_id("a", "bc")
