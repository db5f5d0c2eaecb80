"""Students that learn from the same rows in different ways: the ablations of the Orca recipe."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from spyhop.augment import FilterAnswersConfig, filter_answers
from spyhop.recipe.graph import Recipe, Ref
from spyhop.schema import RecipeError

Ablation = Literal["teacher", "assistant", "order", "answers", "messages", "size"]
"""The teacher's rows alone; the assistant's alone; both orders reversed and mixed; gold answers
without explanation; each system message alone; 1/16 to 1/2 of the data."""
Way = Literal["progressive", "teacher", "assistant", "reversed", "mixed", "answers"]
SIZES = (16, 8, 4, 2)


@dataclass(frozen=True, slots=True)
class Rows:
    """The answers that students learn from."""

    assisted: list[Ref]
    taught: list[Ref]
    bare: list[Ref]


@dataclass(frozen=True, slots=True)
class Phase:
    """One stage of training."""

    answers: list[Ref]
    is_assistants: bool
    """Whether the assistant gave all of them."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One student: in which order it reads what, and which part of it."""

    name: str
    way: Way = "progressive"
    system_id: str = ""
    every_nth: int = 1
    """Keep 1/n of the rows, by the hash of their query's id."""

    def phases(self, r: Recipe, rows: Rows, seed: int) -> list[Phase]:
        """Return the stages of training, with the nodes that choose their rows added."""
        first = Phase(self._filtered(r, rows.assisted, "assisted", seed), is_assistants=True)
        second = Phase(self._filtered(r, rows.taught, "taught", seed), is_assistants=False)
        both = Phase([*first.answers, *second.answers], is_assistants=False)
        bare = Phase(rows.bare, is_assistants=False)
        ways = {
            "progressive": [first, second],
            "teacher": [second],
            "assistant": [first],
            "reversed": [second, first],
            "mixed": [both],
            "answers": [bare],
        }
        if self.way in ("assistant", "reversed", "mixed") and not rows.assisted:
            raise RecipeError(f"the student {self.name!r} needs an assistant; set [assistant]")
        return [phase for phase in ways[self.way] if phase.answers]

    def _filtered(self, r: Recipe, answers: list[Ref], name: str, seed: int) -> list[Ref]:
        if not self.system_id and self.every_nth == 1:
            return answers
        kept = FilterAnswersConfig(
            system_ids=(self.system_id,) if self.system_id else (),
            every_nth=self.every_nth,
            seed=seed,
        )
        return [
            r.add(f"{self.name}.{name}{n or ''}", filter_answers, kept, answers=each)
            for n, each in enumerate(answers)
        ]


def arms(ablations: Sequence[Ablation], message_ids: Sequence[str]) -> Iterator[Arm]:
    """Yield the further students."""
    if "teacher" in ablations:
        yield Arm("teacher-only", "teacher")
    if "assistant" in ablations:
        yield Arm("assistant-only", "assistant")
    if "order" in ablations:
        yield Arm("reversed", "reversed")
        yield Arm("mixed", "mixed")
    if "answers" in ablations:
        yield Arm("answers-only", "answers")
    if "messages" in ablations:
        for name in message_ids:
            yield Arm(f"message-{name}", system_id=name)
    if "size" in ablations:
        for size in SIZES:
            yield Arm(f"one-of-{size}", every_nth=size)
