"""Tokens of prompts before they are counted: learned, never far below, never far above."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spyhop.models.guess import FIRST, Size, TokenGuess, measure

PROSE = "The boats that came back told of a lamp on the shore. "


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("per_byte", "fixed"), [(0.1, 0), (0.25, 8), (0.25, 300), (0.6, 60)])
def test_the_prompts_in_flight_are_guessed_as_large_as_they_are_and_little_larger(
    seed, per_byte, fixed
):
    draw = random.Random(seed)
    guess = TokenGuess()

    def prompt():
        size = draw.choice([draw.randint(10, 60), draw.randint(200, 6_000)])
        return Size(size), math.ceil(size * per_byte * draw.uniform(0.8, 1.2)) + fixed

    for _ in range(100):
        guess.learn(*prompt())
    drawn = [prompt() for _ in range(150)]
    guessed = sum(guess.of(size, 150) for size, _ in drawn)
    counted = sum(tokens for _, tokens in drawn)
    assert 0.97 * counted <= guessed <= 1.12 * counted
    for size, tokens in drawn:  # both parts are found, not their sum alone
        assert 0.7 * tokens - 3 <= guess.of(size, 150) <= 1.5 * tokens + 3


def test_a_template_around_short_prompts_makes_long_ones_no_larger():
    guess = TokenGuess()
    for _ in range(30):
        guess.learn(Size(6), 62)
    long = Size(4_000)  # 1,060 tokens
    assert 1_060 <= guess.of(long, 1) <= 3_500  # the slope is still the first one
    guess.learn(long, 1_060)
    assert 1_060 <= guess.of(long, 20) <= 1.3 * 1_060
    assert 62 <= guess.of(Size(6), 20) <= 1.5 * 62


def test_another_kind_of_text_is_guessed_by_its_own():
    guess = TokenGuess()
    prose, digits = measure([PROSE * 40]), measure(["314159 265358 " * 150])
    for _ in range(200):
        guess.learn(prose, prose.num_bytes // 4 + 200)
    assert guess.of(digits, 100) >= digits.num_bytes  # none is known yet
    guess.learn(digits, digits.num_bytes // 2)
    guess.learn(prose, prose.num_bytes // 4 + 200)
    assert guess.of(digits, 100) <= 0.7 * digits.num_bytes
    assert guess.of(prose, 100) <= 1.1 * (prose.num_bytes / 4 + 200)


def test_what_answers_tell_is_believed_soon():
    guess = TokenGuess()
    for _ in range(200):
        guess.learn(Size(1_000), 250)
    for place in range(20):
        if place >= 8:
            assert guess.of(Size(1_000), 100) >= 0.75 * 600
        guess.learn(Size(1_000), 600)
    for _ in range(200):
        guess.learn(Size(1_000), 250)
    assert guess.of(Size(1_000), 100) <= 1.2 * 250


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(-1, 10**7), st.integers(-1, 10**7)), max_size=60))
def test_whatever_is_counted_a_guess_is_a_number(counted):
    guess = TokenGuess()
    for num_bytes, tokens in counted:
        guess.learn(Size(num_bytes), tokens)
        for asked in (0, 1, 100, 10**6):
            assert guess.of(Size(asked), 10) >= 1


def test_what_is_no_count_teaches_nothing():
    guess = TokenGuess()
    before = guess.of(Size(1_000))
    for size, tokens in [(0, 5), (100, 0), (-1, 7), (100, -3)] * 10:
        guess.learn(Size(size), tokens)
    assert guess.of(Size(1_000)) == before


def test_the_first_guess_is_on_the_safe_side():
    guess = TokenGuess()
    assert guess.of(Size(1_000)) >= 300  # English: a quarter of a token a byte
    assert guess.of(Size(0)) >= 1
    assert all(guess.of(Size(900, texture)) >= 900 * first for texture, first in FIRST.items())


@pytest.mark.parametrize(
    ("text", "texture"),
    [
        (PROSE, "prose"),
        ("", "prose"),
        ("for i in range(10): x[i] = f(y[i])", "mixed"),
        ("3 + 3?", "dense"),
        ("12345 67890", "dense"),
        ("\u041c\u0438\u0440 \u0438 \u0442\u0440\u0443\u0434", "foreign"),
        ("\u4eca\u65e5\u306f", "foreign"),
        ("Gr\u00fc\u00dfe aus M\u00fcnchen an alle Freunde der Wale", "prose"),
    ],
)
def test_textures(text, texture):
    assert measure([text, text]) == Size(2 * len(text.encode()), texture)
