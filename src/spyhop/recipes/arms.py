"""Students that learn from the same rows in different ways: the ablations of the Orca recipe."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from spyhop.augment import FilterAnswersConfig, filter_answers
from spyhop.recipe.graph import Recipe, Ref
from spyhop.schema import RecipeError

Ablation = Literal[
    "teacher", "assistant", "order", "answers", "queries", "style", "messages", "size"
]
"""The teacher's rows alone; the assistant's alone; both orders reversed and mixed; gold answers
without explanation, for the same budget or for one pass over the queries; rationales of other
questions before the right answer; each system message alone; 1/16 to 1/2 of the data."""
Curriculum = Literal["progressive", "teacher", "assistant", "reversed", "mixed", "answers", "style"]
SIZES = (16, 8, 4, 2)


Answers = dict[str, Ref]
"""Training rows, by who answered."""


@dataclass(frozen=True, slots=True)
class ArmRows:
    """Answers that students are trained on."""

    ta_answers: Answers
    teacher_answers: Answers
    gold_answers: Answers
    styled: Answers
    """Rationales of other questions, before the right answer."""


@dataclass(frozen=True, slots=True)
class ArmPhase:
    """One phase of training."""

    answers: Answers
    is_assistants: bool
    """Whether all of them are the assistant's."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One student: its rows, and the order in which it is trained on them."""

    name: str
    curriculum: Curriculum = "progressive"
    system_id: str = ""
    every_nth: int = 1
    """Keep 1/n of the rows, by the hash of their query's id."""
    epochs: float | None = None
    """Passes over the rows, in place of the usual budget."""

    def phases(self, r: Recipe, rows: ArmRows, seed: int) -> list[ArmPhase]:
        """Return the phases of training, with the steps that choose their rows added."""
        first = ArmPhase(self._part(r, rows.ta_answers, seed), is_assistants=True)
        second = ArmPhase(self._part(r, rows.teacher_answers, seed), is_assistants=False)
        both = ArmPhase({**first.answers, **second.answers}, is_assistants=False)
        gold = ArmPhase(rows.gold_answers, is_assistants=False)
        phases = {
            "progressive": [first, second],
            "teacher": [second],
            "assistant": [first],
            "reversed": [second, first],
            "mixed": [both],
            "answers": [gold],
            "style": [ArmPhase(rows.styled, is_assistants=False)],
        }
        if self.curriculum in ("assistant", "reversed", "mixed") and not rows.ta_answers:
            raise RecipeError(f"the student {self.name!r} needs an assistant; set [assistant]")
        return [phase for phase in phases[self.curriculum] if phase.answers]

    def _part(self, r: Recipe, answers: Answers, seed: int) -> Answers:
        if not self.system_id and self.every_nth == 1:
            return answers
        part = FilterAnswersConfig(
            system_ids=(self.system_id,) if self.system_id else (),
            every_nth=self.every_nth,
            seed=seed,
        )
        return {
            name: r.add(f"{self.name}.{name}", filter_answers, part, answers=each)
            for name, each in answers.items()
        }


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
    if "queries" in ablations:
        yield Arm("answers-once", "answers", epochs=1.0)
    if "style" in ablations:
        yield Arm("style-only", "style")
    if "messages" in ablations:
        for name in message_ids:
            yield Arm(f"message-{name}", system_id=name)
    if "size" in ablations:
        for size in SIZES:
            yield Arm(f"one-of-{size}", every_nth=size)
