"""Problems: drawn at random, written out, and read back from their text alone."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate
from random import Random
from typing import Literal

from spyhop.store import number_of
from spyhop.world.family import (
    CAST,
    FAMILIES,
    ROLES,
    Family,
    Fields,
    Op,
    content_slots,
    fill,
    reader,
)

Split = Literal["train", "test"]

TEST_PERCENT = 20
"""Share of problems that belongs to the test split."""

LETTERS = "abcdefghij"
"""Each step carries a letter, so that an explanation can point to it."""

_NUM_TRIES = 50
"""Tries to reach an answer before another is chosen: few steps cannot reach every answer."""

_ANCHOR = re.compile(r" ([a-j])\) ")


@dataclass(frozen=True, slots=True)
class ProblemStep:
    """One step of a problem: what is done, and the words that tell it."""

    op: Op
    phrase: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its gold answer. Everything but the text can be read from the text."""

    family: str
    text: str
    start: Fields
    steps: tuple[ProblemStep, ...]
    target: str
    chance: float

    @property
    def content(self) -> str:
        """The problem without its wording: equal for two tellings of the same problem."""
        ops = (" ".join([kind, *sorted(rest)]) for kind, *rest in (s.op for s in self.steps))
        return "|".join([self.family, " ".join(self.start), *ops])

    @property
    def split(self) -> Split:
        """The split that the content belongs to, whatever the wording and whatever the seed."""
        return "test" if number_of(self.content) % 100 < TEST_PERCENT else "train"


def draw(family: str, rng: Random, steps: tuple[int, int] = (3, 6)) -> Problem:
    """Draw a problem; its answers are equally likely where the family lists them."""
    rules = FAMILIES[family]
    while True:
        wanted = rng.choice(rules.answers) if rules.answers else None
        num_steps = rng.randint(*steps)
        for _ in range(_NUM_TRIES):
            start = _draw_words(content_slots(rules.openings[0]), rules, rng)
            ops, target = _draw_ops(rules, start, num_steps, rng)
            if target is not None and wanted in (None, target):
                return _write(rules, start, ops, target, rng)


def draw_split(family: str, rng: Random, split: Split, steps: tuple[int, int] = (3, 6)) -> Problem:
    """Draw a problem of one split. No problem, in any wording, belongs to both splits."""
    while (problem := draw(family, rng, steps)).split != split:
        pass
    return problem


def _draw_words(slots: tuple[str, ...], rules: Family, rng: Random) -> Fields:
    return tuple(rng.choice(rules.words[slot]) for slot in slots)


def _draw_ops(
    rules: Family, start: Fields, num_steps: int, rng: Random
) -> tuple[list[Op], str | None]:
    """Draw operations and where they lead; None where the way ends before `num_steps`."""
    state = rules.begin(start)
    ops: list[Op] = []
    kinds = tuple(rules.phrases)
    for _ in range(num_steps * _NUM_TRIES):
        kind = rng.choice(kinds)
        op = (kind, *_draw_words(content_slots(rules.phrases[kind][0]), rules, rng))
        if rules.allowed(state, op):
            ops.append(op)
            state = rules.apply(start, state, op)
        if len(ops) == num_steps:
            return ops, state
    return ops, None


def _write(rules: Family, start: Fields, ops: list[Op], target: str, rng: Random) -> Problem:
    cast = rng.sample(CAST, len(ops) + 1)
    opening = rng.choice(rules.openings)
    people = {"hero": cast[0], "who": cast[0]}
    text = fill(opening, people | dict(zip(content_slots(opening), start, strict=True)))
    steps = []
    for i, op in enumerate(ops):
        phrase = rng.choice(rules.phrases[op[0]])
        people = {"hero": cast[0], "who": cast[i + 1], "before": cast[i]}
        told = fill(phrase, people | dict(zip(content_slots(phrase), op[1:], strict=True)))
        steps.append(ProblemStep(op, told))
        text += f" {LETTERS[i]}) {told}."
    text += " " + fill(rng.choice(rules.questions), {"hero": cast[0], "who": cast[-1]})
    return Problem(rules.name, text, start, tuple(steps), target, rules.chance)


def parse(text: str) -> Problem | None:
    """Read a problem from its text alone; None where no family can have written it."""
    opening, *rest = _ANCHOR.split(text)
    letters, bodies = rest[::2], rest[1::2]
    if not bodies or "".join(letters) != LETTERS[: len(bodies)]:
        return None
    last, _, question = bodies[-1].partition(". ")
    told = [*bodies[:-1], f"{last}."]
    if not all(body.endswith(".") for body in told):
        return None
    phrases = [body[:-1] for body in told]
    found = (_read(name, text, opening, phrases, question) for name in FAMILIES)
    return next((problem for problem in found if problem), None)


@cache
def _readers(name: str, part: str) -> list[tuple[str, re.Pattern[str]]]:
    """Return the expressions of a family's openings, steps or questions, with their kinds."""
    rules = FAMILIES[name]
    forms = rules.phrases if part == "phrases" else {part: getattr(rules, part)}
    return [(kind, reader(form, rules.words)) for kind, told in forms.items() for form in told]


def _match(name: str, part: str, text: str) -> tuple[Op, dict[str, str]] | None:
    for kind, expression in _readers(name, part):
        if match := expression.fullmatch(text):
            words: dict[str, str] = match.groupdict()
            people = {slot: word for slot, word in words.items() if slot in ROLES}
            return (kind, *(words[slot] for slot in sorted(words.keys() - people))), people
    return None


def _read(name: str, text: str, opening: str, phrases: list[str], question: str) -> Problem | None:
    told = [("phrases", phrase) for phrase in phrases]
    read = []
    for part, sentence in [("openings", opening), *told, ("questions", question)]:
        if (found := _match(name, part, sentence)) is None:
            return None
        read.append(found)
    if not _same_cast(read):
        return None
    rules, start = FAMILIES[name], read[0][0][1:]
    ops = [op for op, _ in read[1:-1]]
    steps = tuple(map(ProblemStep, ops, phrases))
    target = run(rules, start, steps, rules.apply)[-1]
    return Problem(name, text, start, steps, target, rules.chance)


def _same_cast(parts: list[tuple[Op, dict[str, str]]]) -> bool:
    """Say whether each member of the cast bears one name throughout."""
    names: dict[int, str] = {}
    for i, (_, people) in enumerate(parts):
        acting = min(i, len(parts) - 2)
        places = {"hero": 0, "who": acting, "before": acting - 1}
        for role, person in people.items():
            if names.setdefault(places[role], person) != person:
                return False
    return True


def run(
    rules: Family,
    start: Fields,
    steps: tuple[ProblemStep, ...],
    apply: Callable[[Fields, str, Op], str],
) -> list[str]:
    """Return the state before the first step and after each step."""
    ops = (step.op for step in steps)
    return list(accumulate(ops, partial(apply, start), initial=rules.begin(start)))
