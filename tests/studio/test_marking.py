"""Marked differences and answers: the pieces are the text, and the right words are marked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spyhop.studio.pages_compare import MOST_WORDS, answer_span, side_by_side

TEXTS = st.text(alphabet="ab 1,.\n(A)答", max_size=60)


@given(TEXTS, TEXTS, st.none() | TEXTS)
def test_pieces_are_the_text_and_equal_words_are_unmarked(first: str, second: str, answer):
    one, two = side_by_side(first, second, (answer, answer))
    assert "".join(text for text, _ in one) == first
    assert "".join(text for text, _ in two) == second
    if first and second:
        same = [
            "".join(text for text, kind in side if "differs" not in kind) for side in (one, two)
        ]
        assert same[0] == same[1]


def test_the_words_that_differ_are_marked():
    one, two = side_by_side("so 2 + 2 is 4 .", "so 2 + 2 is 5 .", ("4", "5"))
    assert [each for each in one if each[1]] == [("4", "differs answer")]
    assert [each for each in two if each[1]] == [("5", "differs answer")]
    long = "word " * MOST_WORDS
    assert {kind for _, kind in side_by_side(long, "other")[0]} == {""}


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        ("(A) is wrong. The answer is (B), not (A).", "B", "B"),
        ("A cat. The answer is A", "A", "A"),
        ("It is 1,234 dollars", "1234", "1,234"),
        ("#### 1,234", "1234", "1,234"),
        ("The answer is: New\n  York.", "new york", "New\n  York"),
        ("Answer: yes. No, the answer is no", "no", "no"),
        ("a bad apple", "b", None),
        ("14 and 4", "4", "4"),
        ("nothing", None, None),
    ],
)
def test_the_extracted_answer_is_found_where_it_is_stated(text: str, answer, found):
    span = answer_span(text, answer)
    assert (text[slice(*span)] if span else None) == found
    if text == "14 and 4":
        assert span == (7, 8)
