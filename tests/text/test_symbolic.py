"""Symbolic equality, where math-verify is installed."""

import threading
import time

import pytest

from spyhop.text.gold import read
from spyhop.text.symbolic import is_equal, is_mathematical

pytest.importorskip("math_verify")


@pytest.mark.parametrize(
    ("answer", "gold", "is_same"),
    [
        ("x^2+2x+1", "(x+1)^2", True),
        ("\\frac{1}{2}", "0.5", True),
        ("\\{2, 1\\}", "\\{1, 2\\}", True),
        ("x = 5", "5", True),
        ("\\sqrt{8}", "2\\sqrt{2}", True),
        ("(0, 1]", "[0, 1)", False),
        ("(1, 2)", "(2, 1)", False),
        ("2, 1", "1, 2", False),
        ("x > 3", "x > 2", False),
        ("the jay", "the owl", False),
        ("5 jays", "5", False),
    ],
)
def test_formulas_are_compared_by_their_value(answer: str, gold: str, is_same: bool):
    assert is_equal(answer, gold) == is_same


def test_words_are_no_formulas():
    assert is_mathematical("\\frac{\\sqrt{3}}{2} + \\sin x") and is_mathematical("{1, 2}")
    assert not is_mathematical("the jay") and not is_mathematical("5 jays or 6 owls")
    assert not is_mathematical("") and not is_mathematical("1+" * 9999)


def test_stated_formulas_are_graded_last():
    assert read("So \\boxed{x^2 + 2x + 1}.", "Expand.", "(x+1)^2").is_right
    assert read("The answer is $\\sqrt{16}$.", "Root?", "4").is_right
    assert not read("The answer is $2\\sqrt{3}$.", "Root?", "2").is_right
    assert not read("x^2 + 2x + 1 is what we begin with.", "Expand.", "(x+1)^2").is_right


def test_it_works_outside_the_main_thread_and_after_it():
    found = []
    for text in ("3*4", "2*6"):  # the worker dies with the thread that started it
        thread = threading.Thread(target=lambda text=text: found.append(is_equal(text, "12")))
        thread.start()
        thread.join()
    assert found == [True, True] and is_equal("24/2", "12")


@pytest.mark.slow
def test_what_never_ends_is_ended():
    started = time.monotonic()
    assert not is_equal("9^{9^{9^9}}", "1")
    assert time.monotonic() - started < 30
    assert is_equal("10!", "3628800")  # the next one is compared as ever
