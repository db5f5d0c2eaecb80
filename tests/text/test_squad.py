"""Free answers against gold ones, and responses that decline."""

import pytest

from spyhop.text.asking import declines
from spyhop.text.extract import exact_match, token_f1


@pytest.mark.parametrize(
    ("answer", "golds", "exact", "f1"),
    [
        ("The Beatles", ["Beatles"], 1, 1),
        ("14 December, 1972", ["December 14, 1972", "14 December 1972"], 1, 1),
        ("December 1972", ["14 December 1972"], 0, 0.8),
        ("Paris, France", ["Paris"], 0, 2 / 3),
        ("", ["Paris"], 0, 0),
        ("London", ["Paris"], 0, 0),
    ],
)
def test_words_are_compared(answer: str, golds: list[str], exact: float, f1: float):
    assert exact_match(answer, golds) == exact
    assert token_f1(answer, golds) == pytest.approx(f1)


@pytest.mark.parametrize(
    "response",
    [
        "I don't know.",
        "I'm not sure, but some say that it was 1912.",
        "Unfortunately, there is not enough information to answer this.",
        "It is unknown who wrote it.",
        "Unknown",
        "We cannot determine the year.",
        "I\u2019m unable to provide an answer.",
    ],
)
def test_a_response_that_declines(response: str):
    assert declines(response)


@pytest.mark.parametrize(
    "response",
    [
        "The Unknown Soldier",
        "You don't know my name was written by Alicia Keys.",
        "1912",
        "He is not certain to win, but the answer is Smith.",
        "The tomb of the unknown soldier is in Paris.",
    ],
)
def test_a_response_that_answers(response: str):
    assert not declines(response)
