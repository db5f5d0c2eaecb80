"""A solver that answers as a teacher would. It sees the text of the prompt and nothing else."""

from dataclasses import dataclass
from random import Random

from pydantic import Field

from spyhop.schema import Config
from spyhop.store import number_of
from spyhop.world.family import FAMILIES, Family, Fields, Op
from spyhop.world.grammar import content_slots, fill
from spyhop.world.problem import LETTERS, Problem, parse, run
from spyhop.world.systems import Style, style_of

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


@dataclass(frozen=True, slots=True)
class Line:
    """One step of an explanation."""

    letter: str
    phrase: str
    plain: str
    before: str
    after: str


def respond(config: SolverConfig, system: str, query: str) -> str:
    """Answer a query in the style that the system message asks for.

    The reply depends on the prompt and the seed only, never on the order of calls. Every reply
    ends in `Answer: X`.
    """
    problem = parse(query)
    if problem is None:
        return UNKNOWN
    rng = Random(number_of(f"{config.seed}\n{system}\n{query}"))
    states = _corrupted(problem, rng) if config.corrupt else _solved(config, problem, rng)
    return _tell(style_of(system), problem, states)


def _solved(config: SolverConfig, problem: Problem, rng: Random) -> list[str]:
    rules = FAMILIES[problem.family]

    def apply(start: Fields, state: str, op: Op) -> str:
        taken_for = rules.misreadings.get(op, op) if config.misconceptions else op
        after = rules.apply(start, state, taken_for)
        return _other(rules, after, rng) if rng.random() < config.slip_rate else after

    return run(rules, problem.start, problem.steps, apply)


def _other(rules: Family, state: str, rng: Random) -> str:
    """Draw a wrong state; a growing one is wrong in its newest part only."""
    kept, newest = state.rsplit(" ", 1) if rules.joined and " " in state else ("", state)
    while (wrong := rules.random_state(rng, newest)) == newest:
        pass
    return f"{kept} {wrong}".strip()


def _corrupted(problem: Problem, rng: Random) -> list[str]:
    rules = FAMILIES[problem.family]
    states = run(rules, problem.start, problem.steps, rules.apply)
    return [states[0], *(rules.random_state(rng, s) for s in states[1:-1]), states[-1]]


def _tell(style: Style, problem: Problem, states: list[str]) -> str:
    answer = f"Answer: {states[-1]}"
    if style == "answer":
        return answer
    lines = _lines(problem, states)
    if style == "short":
        body = " ".join(f"{line.letter}) {line.after}." for line in lines)
    elif style == "steps":
        body = " ".join(
            f"{line.letter}) {line.phrase}: {line.before} to {line.after}." for line in lines
        )
    else:
        body = " ".join(
            f"{line.letter}) {line.plain}: from {line.before} to {line.after}." for line in lines
        )
    return f"Start: {states[0]}. {body} {answer}"


def _lines(problem: Problem, states: list[str]) -> list[Line]:
    plain = FAMILIES[problem.family].plain
    told = []
    for i, step in enumerate(problem.steps):
        form = plain[step.op[0]]
        simply = fill(form, dict(zip(content_slots(form), step.op[1:], strict=True)))
        told.append(Line(LETTERS[i], step.phrase, simply, states[i], states[i + 1]))
    return told
