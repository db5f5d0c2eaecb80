"""Families of problems: their sentences and words (`families.toml`), and their rules.

A problem reads: opening, lettered steps, question. A template is a sentence with named slots, such
as `"{who} takes it up {n}"`; it writes a sentence, reads it and tells what it does.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from spyhop.text.tables import table

Words = Mapping[str, tuple[str, ...]]
"""Words for each slot."""

SLOT = re.compile(r"\{(\w+)\}")

ROLES = ("hero", "who", "before")
"""Slots filled with names. They vary the surface only and are no part of a problem's content.

The hero is the first of the problem's cast, `who` the one who acts in this step (or was the last
to act, in the question), `before` the one who acted a step earlier.
"""

CAST = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jill", "Kai", "Lena")
Fields = tuple[str, ...]
"""Content words of the opening sentence, in the alphabetical order of their slots."""
Op = tuple[str, ...]
"""One operation: its kind, then its content words in the alphabetical order of their slots."""
WAYS = ("north", "east", "south", "west")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
TURNS = {"right": 1, "back": 2, "left": 3}
SIGNS = {"up": 1, "gain": 1, "next": 1, "later": 1, "down": -1, "lose": -1, "previous": -1,
         "earlier": -1}  # fmt: skip
OPPOSITE = {"heads": "tails", "true": "false", "honest": "lying"}
OPPOSITE |= {other: one for one, other in OPPOSITE.items()}
GROUPS = {
    "fruits": ("apples", "pears", "plums", "figs", "melons", "limes"),
    "animals": ("cats", "goats", "bats", "hens", "mice", "foxes"),
    "tools": ("saws", "hammers", "drills", "axes", "rakes", "spades"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of problems: a state, and steps that change it."""

    name: str
    words: Words
    """Words for each content slot."""
    openings: tuple[str, ...]
    phrases: dict[str, tuple[str, ...]]
    """Ways to tell a step, by kind of operation. All ways of one kind have the same slots."""
    plain: dict[str, str]
    """One simple phrase by kind of operation; written before `: from X to Y`."""
    questions: tuple[str, ...]
    apply: Callable[[Fields, str, Op], str]
    """Return the state after an operation. Must return a state whatever the state before."""
    start: str = ""
    """State at first; empty for the one that the opening names."""
    allowed: Callable[[str, Op], bool] = lambda state, op: True
    """Say whether a problem may contain this operation in this state."""
    states: tuple[str, ...]
    """Every state, or every part of one where `joined`."""
    joined: bool = False
    """A state is a list of parts that grows with each step."""
    answers: tuple[str, ...] = ()
    """Answers drawn equally often; empty where there are too many to balance."""
    misreadings: dict[Op, Op]
    """Misconceptions of a weak teacher: it takes the first operation for the second."""

    @property
    def chance(self) -> float:
        """Accuracy of a uniform guess; 0 for a free answer."""
        return 1 / len(self.answers) if self.answers else 0.0

    def begin(self, start: Fields) -> str:
        """Return the state before the first step."""
        return self.start or start[0]

    def random_state(self, rng: Random, like: str) -> str:
        """Draw any state that looks like the given one (as many parts, where joined)."""
        return " ".join(rng.choice(self.states) for _ in (like.split() if self.joined else [like]))


@cache
def content_slots(template: str) -> tuple[str, ...]:
    """Return the names of the slots that carry content, that is, all but the names of people."""
    return tuple(sorted(slot for slot in SLOT.findall(template) if slot not in ROLES))


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


def _moved(number: int, op: Op) -> int:
    """Return a number after an operation, whatever its bounds."""
    by = int(op[1]) if op[1:] else 1
    return 2 * number if op[0] == "double" else number + SIGNS[op[0]] * by


_RULES: dict[str, dict[str, Any]] = {
    "coin": {"apply": lambda start, state, op: OPPOSITE[state] if op[0] == "flip" else state},
    "compass": {
        "apply": lambda start, state, op: WAYS[(WAYS.index(state) + TURNS[op[0]]) % len(WAYS)]
    },
    "cups": {
        "apply": lambda start, state, op: {op[1]: op[2], op[2]: op[1]}.get(state, state),
        "allowed": lambda state, op: op[1] != op[2],
    },
    "lift": {
        "apply": lambda start, state, op: str(min(9, max(1, _moved(int(state), op)))),
        "allowed": lambda state, op: 1 <= _moved(int(state), op) <= 9,
    },
    "count": {
        "apply": lambda start, state, op: str(
            min(9, int(state) + int(op[2]) * (op[1] in GROUPS[start[0]]))
        ),
        "start": "0",
        "allowed": lambda state, op: int(state) + int(op[2]) <= 9,
    },
    "days": {"apply": lambda start, state, op: DAYS[_moved(DAYS.index(state), op) % len(DAYS)]},
    "logic": {  # in the order of letters, false comes before true
        "apply": lambda start, state, op: (
            OPPOSITE[state] if op[0] == "not" else (min if op[0] == "and" else max)(state, op[1])
        )
    },
    "liars": {"apply": lambda start, state, op: OPPOSITE[state] if op[0] == "doubt" else state},
    "letters": {
        "apply": lambda start, state, op: f"{state} {op[1][-1]}".removeprefix("none "),
        "start": "none",
    },
    "sums": {
        "apply": lambda start, state, op: str(min(9, max(0, _moved(int(state), op)))),
        "allowed": lambda state, op: 0 <= _moved(int(state), op) <= 9,
    },
}
CORE = tuple(_RULES)[:4]
"""Names of the families that the quick start uses."""


def _tuples(value: Any) -> Any:  # noqa: ANN401 (plain TOML)
    if isinstance(value, dict):
        return {name: _tuples(each) for name, each in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


FAMILIES = {
    name: Family(name=name, **told | {"misreadings": dict(told["misreadings"])}, **_RULES[name])
    for name, told in _tuples(table("world/families.toml")).items()
}
"""Every family by name."""
