"""What a family of problems is: its sentences, its rule, and what people get wrong about it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from spyhop.world.grammar import Words

Fields = tuple[str, ...]
"""Content words of the opening sentence, in the alphabetical order of their slots."""

Op = tuple[str, ...]
"""One operation: its kind, then its content words in the alphabetical order of their slots."""


def always(state: str, op: Op) -> bool:
    """Allow every operation in every state."""
    return True


def first_field(start: Fields) -> str:
    """Begin in the state that the opening names."""
    return start[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of problems: a state, and steps that change it.

    A problem reads: opening, lettered steps, question. Every sentence comes from a template here,
    so that the same object writes problems, reads them and solves them.
    """

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
    begin: Callable[[Fields], str] = first_field
    allowed: Callable[[str, Op], bool] = always
    """Say whether a problem may contain this operation in this state."""
    states: tuple[str, ...]
    """Every state, or every part of one where `joined`."""
    joined: bool = False
    """A state is a list of parts that grows with each step."""
    answers: tuple[str, ...] = ()
    """Answers drawn equally often; empty where there are too many to balance."""
    misreadings: dict[Op, Op] = field(default_factory=dict)
    """Misconceptions of a weak teacher: it takes the first operation for the second."""

    @property
    def chance(self) -> float:
        """Accuracy of a uniform guess; 0 for a free answer."""
        return 1 / len(self.answers) if self.answers else 0.0

    def random_state(self, rng: Random, like: str) -> str:
        """Draw any state that looks like the given one (as many parts, where joined)."""
        if not self.joined:
            return rng.choice(self.states)
        return " ".join(rng.choice(self.states) for _ in like.split())
