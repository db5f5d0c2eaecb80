"""A solver that answers as a teacher would, and the system messages that tell it how.

It sees the text of the prompt and nothing else.
"""

import math
import re
from dataclasses import dataclass
from random import Random
from typing import Literal

from pydantic import Field

from spyhop.schema import Config
from spyhop.store import number_of
from spyhop.world.family import FAMILIES, Family, Fields, Op, content_slots, fill
from spyhop.world.problem import LETTERS, Problem, parse, run

Style = Literal["answer", "short", "steps", "simple"]


@dataclass(frozen=True, slots=True)
class StyledMessage:
    """One system message and the style of answer that it asks for."""

    id: str
    text: str
    style: Style


SYSTEM_MESSAGES = (
    StyledMessage("answer", "Give only the answer.", "answer"),
    StyledMessage("short", "Reason in a few words.", "short"),
    StyledMessage("steps", "Explain each step.", "steps"),
    StyledMessage("simple", "Explain as if to a child.", "simple"),
)

CUES: tuple[tuple[Style, frozenset[str]], ...] = (
    ("answer", frozenset({"only", "just", "alone"})),
    ("simple", frozenset({"child", "simple", "simply"})),
    ("short", frozenset({"few", "short", "brief", "briefly"})),
)
"""Words that tell a style; the first that fits wins."""

BY_ID = {message.id: message for message in SYSTEM_MESSAGES}


def style_of(system: str) -> Style:
    """Return the style that a system message asks for, by its words; the default is every step."""
    words = set(re.findall(r"[a-z]+", system.lower()))
    return next((style for style, cues in CUES if words & cues), "steps")


UNKNOWN = "I am sorry, I do not know how to solve this. Answer: unknown"
"""What a teacher says to a question that it cannot read."""


class SolverConfig(Config):
    """Error rates of the solver as a teacher. The default makes no mistakes."""

    misconceptions: bool = False
    """Take some operations for others, always the same ones (`Family.misreadings`)."""
    slip_rate: float = Field(0.0, ge=0, le=1)
    """Chance that a step goes wrong at random; what follows builds on the wrong state."""
    corrupt: bool = False
    """Write random states into the explanation but keep the answer. Same form, no reasons."""
    seed: int = 0
    """Random seed of the slips."""


TEACHER = SolverConfig()
TA = SolverConfig(misconceptions=True, slip_rate=0.08)


def respond(config: SolverConfig, system: str, query: str) -> str:
    """Answer a query in the style that the system message asks for; see `solve`."""
    return solve(config, system, query)[0]


def solve(config: SolverConfig, system: str, query: str, sample: int = 0) -> tuple[str, float]:
    """Answer a query in the style that the system message asks for.

    The reply depends on the prompt, the seed and the sample only, never on the order of calls.
    Every reply ends in `Answer: X`. Returned with it is the log-probability of its slips, or of
    there being none.
    """
    problem = parse(query)
    if problem is None:
        return UNKNOWN, 0.0
    drawn = f"{config.seed}\n{system}\n{query}" + (f"\n{sample}" if sample else "")
    rng, rules = Random(number_of(drawn)), FAMILIES[problem.family]
    log_probability = 0.0

    def apply(start: Fields, state: str, op: Op) -> str:
        nonlocal log_probability
        taken_for = rules.misreadings.get(op, op) if config.misconceptions else op
        after = rules.apply(start, state, taken_for)
        if rng.random() < config.slip_rate:
            log_probability += math.log(config.slip_rate / (len(set(rules.states)) - 1))
            return _other(rules, after, rng)
        log_probability += math.log1p(-config.slip_rate)
        return after

    states = run(rules, problem.start, problem.steps, rules.apply if config.corrupt else apply)
    if config.corrupt:
        between = [rules.random_state(rng, state) for state in states[1:-1]]
        states = [states[0], *between, states[-1]]
    return _tell(style_of(system), problem, states), log_probability


def correct(own: str, solution: str) -> str:
    """Return what corrects an answer: RIGHT, `KEEP:` with its last right step, or the solution."""
    theirs, steps = own.split(". "), solution.split(". ")
    num = next((n for n, (a, b) in enumerate(zip(theirs, steps, strict=False)) if a != b), None)
    if num is None and len(theirs) == len(steps):
        return "RIGHT"
    num = min(len(theirs), len(steps)) if num is None else num
    return f"KEEP: {steps[num - 1]}.\n{'. '.join(steps[num:])}" if num else solution


def _other(rules: Family, state: str, rng: Random) -> str:
    """Draw a wrong state; a growing one is wrong in its newest part only."""
    kept, newest = state.rsplit(" ", 1) if rules.joined and " " in state else ("", state)
    while (wrong := rules.random_state(rng, newest)) == newest:
        pass
    return f"{kept} {wrong}".strip()


def _tell(style: Style, problem: Problem, states: list[str]) -> str:
    answer = f"Answer: {states[-1]}"
    if style == "answer":
        return answer
    lines = []
    for letter, step, before, after in zip(
        LETTERS, problem.steps, states, states[1:], strict=False
    ):
        told = f"{after}."
        if style == "steps":
            told = f"{step.phrase}: {before} to {after}."
        elif style == "simple":
            form = FAMILIES[problem.family].plain[step.op[0]]
            simply = fill(form, dict(zip(content_slots(form), step.op[1:], strict=True)))
            told = f"{simply}: from {before} to {after}."
        lines.append(f"{letter}) {told}")
    return f"Start: {states[0]}. {' '.join(lines)} {answer}"
