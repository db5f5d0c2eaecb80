"""Text without reasons: lists to copy, and a sample of everything for the tokenizer.

Copying replaces pre-training: it teaches a new student to find and repeat words, and shows it
neither a state nor an answer.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from random import Random

from spyhop.world.family import CAST, FAMILIES, SLOT
from spyhop.world.problem import LETTERS, draw
from spyhop.world.solver import SYSTEM_MESSAGES, TEACHER, respond

COPY_SYSTEM = "Copy the list."
"""System message of the copying stage."""


@cache
def vocabulary() -> tuple[str, ...]:
    """Return every word of every template, sorted."""
    words = set(CAST)
    for rules in FAMILIES.values():
        told = (form for forms in rules.phrases.values() for form in forms)
        for form in (*rules.openings, *told, *rules.plain.values(), *rules.questions):
            words.update(SLOT.sub(" ", form).replace(",", " ").strip(".?").split())
        for choices in (*rules.words.values(), rules.states):
            words.update(choices)
    return tuple(sorted(words))


def copy_example(rng: Random, words: Sequence[str] = ()) -> tuple[str, str]:
    """Draw a lettered list of random words and its copy: a query and the response to it."""
    words = words or vocabulary()
    first = rng.choice(words)
    items = [" ".join(rng.choices(words, k=rng.randint(1, 5))) for _ in range(rng.randint(3, 6))]
    listed = " ".join(f"{LETTERS[i]}) {item}." for i, item in enumerate(items))
    return f"First {first}. {listed}", f"Start: {first}. {listed}"


def tokenizer_text(rng: Random, num_problems: int = 200) -> Iterator[str]:
    """Yield texts to train a tokenizer on: each family in each style, lists, the vocabulary."""
    for name in FAMILIES:
        for _ in range(num_problems):
            query = draw(name, rng).text
            yield query
            for message in SYSTEM_MESSAGES:
                yield message.text
                yield respond(TEACHER, message.text, query)
    for _ in range(num_problems):
        yield COPY_SYSTEM
        yield from copy_example(rng)
    for word in vocabulary():
        yield f"{word} {word}"
