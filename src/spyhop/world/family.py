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
QUARTER_TURNS = {"right": 1, "back": 2, "left": 3}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
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


def _flip(start: Fields, state: str, op: Op) -> str:
    if op[0] != "flip":
        return state
    return "tails" if state == "heads" else "heads"


def _turn(start: Fields, state: str, op: Op) -> str:
    return WAYS[(WAYS.index(state) + QUARTER_TURNS[op[0]]) % 4]


def _swap(start: Fields, state: str, op: Op) -> str:
    _, one, other = op
    return {one: other, other: one}.get(state, state)


def _floor(state: str, op: Op) -> int:
    return int(state) + int(op[1]) * (1 if op[0] == "up" else -1)


def _count(start: Fields, state: str, op: Op) -> str:
    _, item, number = op
    return str(min(9, int(state) + int(number) * (item in GROUPS[start[0]])))


def _day(start: Fields, state: str, op: Op) -> str:
    shift = {"next": 1, "previous": -1}.get(op[0]) or int(op[1])
    return DAYS[(DAYS.index(state) + (-shift if op[0] == "earlier" else shift)) % 7]


def _gate(start: Fields, state: str, op: Op) -> str:
    if op[0] == "not":
        return "false" if state == "true" else "true"
    decides = "false" if op[0] == "and" else "true"
    return decides if decides in (state, op[1]) else state


def _trust(start: Fields, state: str, op: Op) -> str:
    if op[0] != "doubt":
        return state
    return "honest" if state == "lying" else "lying"


def _spell(start: Fields, state: str, op: Op) -> str:
    return op[1][-1] if state == "none" else f"{state} {op[1][-1]}"


def _total(state: str, op: Op) -> int:
    if op[0] == "double":
        return 2 * int(state)
    return int(state) + int(op[1]) * (1 if op[0] == "gain" else -1)


_RULES: dict[str, dict[str, Any]] = {
    "coin": {"apply": _flip},
    "compass": {"apply": _turn},
    "cups": {"apply": _swap, "allowed": lambda state, op: op[1] != op[2]},
    "lift": {
        "apply": lambda start, state, op: str(min(9, max(1, _floor(state, op)))),
        "allowed": lambda state, op: 1 <= _floor(state, op) <= 9,
    },
    "count": {
        "apply": _count,
        "start": "0",
        "allowed": lambda state, op: int(state) + int(op[2]) <= 9,
    },
    "days": {"apply": _day},
    "logic": {"apply": _gate},
    "liars": {"apply": _trust},
    "letters": {"apply": _spell, "start": "none"},
    "sums": {
        "apply": lambda start, state, op: str(min(9, max(0, _total(state, op)))),
        "allowed": lambda state, op: 0 <= _total(state, op) <= 9,
    },
}
CORE = tuple(_RULES)[:4]
"""Names of the families that the quick start uses."""


def _tuples(value: Any) -> Any:  # noqa: ANN401 (plain TOML)
    if isinstance(value, dict):
        return {name: _tuples(each) for name, each in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _read() -> dict[str, Family]:
    tables = _tuples(table("world/families.toml"))
    return {
        name: Family(name=name, **told | {"misreadings": dict(told["misreadings"])}, **rules)
        for (name, rules), told in zip(_RULES.items(), tables.values(), strict=True)
    }


FAMILIES = _read()
"""Every family by name."""
