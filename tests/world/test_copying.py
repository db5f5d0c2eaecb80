"""Lists to copy hold no reasons; the tokenizer sees every word."""

from random import Random

from spyhop.world.family import CAST
from spyhop.world.problem import parse
from spyhop.world.stages import copy_example, tokenizer_text, vocabulary


def test_the_response_copies_the_list() -> None:
    rng = Random(0)
    for _ in range(300):
        query, response = copy_example(rng)
        first, listed = query.removeprefix("First ").split(". ", 1)
        assert response == f"Start: {first}. {listed}"
        assert listed.startswith("a) ") and parse(query) is None


def test_the_vocabulary_holds_names_states_and_the_words_of_templates() -> None:
    words = vocabulary()
    assert {*CAST, "heads", "north", "Monday", "clockwise", "honest", "marbles", "7"} <= set(words)
    assert not [word for word in words if set(word) & set("{},. ")]
    assert list(words) == sorted(set(words))


def test_the_tokenizer_sees_every_word_and_the_same_text_again() -> None:
    texts = list(tokenizer_text(Random(2), num_problems=3))
    seen = set(" ".join(texts).split())
    assert set(vocabulary()) <= seen
    assert texts == list(tokenizer_text(Random(2), num_problems=3))
