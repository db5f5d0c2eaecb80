"""Sentences with holes: one template writes a sentence and reads it back.

A template is a sentence with named slots, `"{who} takes it up {n}"`. `fill` writes the sentence,
`reader` makes the regular expression that recognises every sentence which `fill` can write.
"""

import re
from collections.abc import Mapping
from functools import cache

Words = Mapping[str, tuple[str, ...]]
"""Words for each slot."""

SLOT = re.compile(r"\{(\w+)\}")

ROLES = ("hero", "who", "before")
"""Slots filled with names. They vary the surface only and are no part of a problem's content.

The hero is the first of the problem's cast, `who` the one who acts in this step (or was the last
to act, in the question), `before` the one who acted a step earlier.
"""

CAST = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jill", "Kai", "Lena")


def slots_of(template: str) -> tuple[str, ...]:
    """Return the names of the slots in their order of appearance."""
    return tuple(SLOT.findall(template))


@cache
def content_slots(template: str) -> tuple[str, ...]:
    """Return the names of the slots that carry content, that is, all but the names of people."""
    return tuple(sorted(slot for slot in slots_of(template) if slot not in ROLES))


def fill(template: str, words: Mapping[str, str]) -> str:
    """Write the sentence: replace each slot by its word."""
    return SLOT.sub(lambda match: words[match[1]], template)


def reader(template: str, words: Words) -> re.Pattern[str]:
    """Compile the expression that matches exactly the sentences that the template can write."""
    parts = SLOT.split(template)
    expression = ""
    for text, slot in zip(parts[::2], [*parts[1::2], ""], strict=True):
        expression += re.escape(text)
        if slot:
            choices = CAST if slot in ROLES else words[slot]
            expression += f"(?P<{slot}>{'|'.join(map(re.escape, choices))})"
    return re.compile(expression)
