"""Students that learn from the same rows in different ways: the ablations of the Orca recipe."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from spyhop.augment import FilterAnswersConfig, filter_answers
from spyhop.recipe.graph import Recipe, Ref
from spyhop.schema import RecipeError

Ablation = Literal[
    "teacher", "assistant", "order", "answers", "queries", "style", "messages", "size", "humans",
    "coverage",
]  # fmt: skip
"""The teacher's rows alone; the assistant's alone; both orders reversed and mixed; gold answers
without explanation, for the same budget or for one pass over the queries; rationales of other
questions before the right answer; each system message alone; 1/16 to 1/2 of the data; human
explanations, and the teacher's of the same queries; a share of the rows, and of the tasks."""
SIZES, COVERAGES = (16, 8, 4, 2), (16, 4)
Answers = dict[str, Ref]
"""Training rows, by who answered."""
ArmRows = dict[str, Answers]
"""Answers that students are trained on: the assistant's (`ta`), the `teacher`'s, `gold` answers,
rationales of other questions before the right answer (`style`), `human` answers, and the teacher's
to the `same` queries."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One student: its rows, and the order in which it is trained on them."""

    name: str
    curriculum: tuple[str, ...] = ("ta", "teacher")
    """Phases of training: kinds of `ArmRows`, or `both` for the assistant's and the teacher's."""
    system_id: str = ""
    every_nth: int = 1
    """Keep 1/n of the rows, by the hash of their query's id."""
    tasks_nth: int = 1
    """Keep the rows of 1/n of the tasks."""
    epochs: float | None = None
    """Passes over the rows, in place of the usual budget."""

    def phases(self, r: Recipe, rows: ArmRows, seed: int) -> list[tuple[str, Answers]]:
        """Return the phases of training, with the steps that choose their rows added."""
        if not rows["ta"] and self.curriculum not in NEED_NO_ASSISTANT:
            raise RecipeError(f"the student {self.name!r} needs an assistant; set [assistant]")
        ta, teacher = (self._part(r, rows[name], seed) for name in ("ta", "teacher"))
        known = {**rows, "ta": ta, "teacher": teacher, "both": {**ta, **teacher}}
        return [(name, known[name]) for name in self.curriculum if known.get(name)]

    def _part(self, r: Recipe, answers: Answers, seed: int) -> Answers:
        if not self.system_id and self.every_nth == self.tasks_nth == 1:
            return answers
        part = FilterAnswersConfig(
            system_ids=(self.system_id,) if self.system_id else (), every_nth=self.every_nth,
            tasks_nth=self.tasks_nth, seed=seed,
        )  # fmt: skip
        return {
            name: r.add(f"{self.name}.{name}", filter_answers, part, answers=each)
            for name, each in answers.items()
        }


NEED_NO_ASSISTANT = (
    ("ta", "teacher"), ("teacher",), ("gold",), ("style",), ("human",), ("same",)
)  # fmt: skip
ARMS: dict[Ablation, tuple[Arm, ...]] = {
    "teacher": (Arm("teacher-only", ("teacher",)),),
    "assistant": (Arm("assistant-only", ("ta",)),),
    "order": (Arm("reversed", ("teacher", "ta")), Arm("mixed", ("both",))),
    "answers": (Arm("answers-only", ("gold",)),),
    "queries": (Arm("answers-once", ("gold",), epochs=1.0),),
    "style": (Arm("style-only", ("style",)),),
    "humans": (Arm("human-explanations", ("human",)), Arm("model-explanations", ("same",))),
}


def arms(ablations: Sequence[Ablation], message_ids: Sequence[str]) -> Iterator[Arm]:
    """Yield the further students."""
    for ablation, found in ARMS.items():
        if ablation in ablations:
            yield from found
    if "messages" in ablations:
        for name in message_ids:
            yield Arm(f"message-{name}", system_id=name)
    covers = COVERAGES if "coverage" in ablations else ()
    for size in dict.fromkeys((*(SIZES if "size" in ablations else ()), *covers)):
        yield Arm(f"one-of-{size}", every_nth=size)
    for size in covers:
        yield Arm(f"tasks-of-{size}", tasks_nth=size)
