"""Orca's rounds: find where the student fails, teach more such queries, promote or stop.

Rounds are unrolled. Once a student is not promoted, later rounds have the inputs of that round, so
their keys are equal and nothing runs again: the loop stops.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import Field

from spyhop.augment import AnswerConfig, answer
from spyhop.collect import Stratum
from spyhop.curate import DrawFailingConfig, draw_failing, join_rows
from spyhop.models import Local, Sampling
from spyhop.recipe.graph import Chosen, Made, Recipe, RecipeStep, Ref, Use
from spyhop.recipe.promote import PromoteConfig, promote
from spyhop.schema import Config, NoConfig

RANDOM = "-random"
"""End of a control's name: it gets as many more queries, drawn at random."""


class RoundsConfig(Config):
    """Rounds after the first training: more queries where the student fails."""

    num: int = Field(1, ge=1)
    """Most rounds; the first student that is not promoted ends them."""
    add_queries: int = Field(gt=0)
    """Queries that a round adds; `num_queries` is where they start."""
    dev_queries: int = Field(400, gt=0)
    """Queries on which errors are measured; no student is trained on them. They need gold
    answers."""
    strata: tuple[Stratum, ...] = ()
    """Classes within each task in which errors are measured, such as lengths of the query, or
    topics for operations. Default: the tasks alone."""

    def names(self) -> list[str]:
        """Return the students' names: each round's, followed by its control's."""
        return [f"round-{n}{end}" for n in range(1, self.num + 1) for end in ("", RANDOM)]


@dataclass(slots=True)
class Rounds:
    """Builds the rounds; afterwards it holds their steps by the student's name."""

    r: Recipe
    config: RoundsConfig
    seed: int
    sampling: Sampling
    """Of the student's answers to the development queries."""
    pool: Made
    """Prompts to draw from."""
    dev: RecipeStep
    teach: Callable[[Recipe, Made], RecipeStep]
    """Adds the teacher's answers to prompts."""
    train: Callable[[str, Made], list[RecipeStep]]
    """Adds a student of the teacher's answers; the last of its phases is the student."""
    measure: Callable[[str, RecipeStep], RecipeStep]
    """Adds a student's scores."""
    students: dict[str, list[RecipeStep]] = field(default_factory=dict)
    scores: dict[str, RecipeStep] = field(default_factory=dict)
    answers: dict[str, Ref] = field(default_factory=dict)
    """The teacher's answers to the queries that a round adds."""
    draws: dict[str, Ref] = field(default_factory=dict)
    promotions: dict[str, Ref] = field(default_factory=dict)

    def add(self, start: Made, answers: Made, model: Made, scores: Made) -> dict[str, Made]:
        """Add the rounds after a first student; return `model`, `scores`, `answers` of the best.

        `start` are the first student's prompts, `answers` the teacher's answers to them.
        """
        best: dict[str, Made] = {"model": model, "scores": scores}
        state: dict[str, tuple[Made, Made]] = dict.fromkeys(("", RANDOM), (start, answers))
        how = DrawFailingConfig(
            num_rows=self.config.add_queries, strata=self.config.strata, seed=self.seed
        )
        for n in range(1, self.config.num + 1):
            asked = self.r.add(
                f"round-{n}.dev", answer, AnswerConfig(sampling=self.sampling),
                prompts=self.dev, teacher=Use(Local(name="student"), best["model"]),
            )  # fmt: skip
            joined: dict[str, list[RecipeStep]] = {}
            for end, (prompts, taught) in state.items():
                name = f"round-{n}{end}"
                part, known = self.r.within(f"{name}."), {"dev": self.dev, "taken": prompts}
                by = {} if end else {"answers": asked}
                drawn = part.add("drawn", draw_failing, how, prompts=self.pool, known=known, **by)
                new = self.teach(part, drawn)
                joined[end] = [
                    part.add(kind, join_rows, NoConfig(), rows={"old": old, "new": added})
                    for kind, old, added in (("prompts", prompts, drawn), ("rows", taught, new))
                ]
                self.draws[name], self.answers[name] = drawn, new
                self.students[name] = self.train(name, joined[end][1])
                self.scores[name] = self.measure(name, self.students[name][-1])
            name = f"round-{n}"
            after = {"model": self.students[name][-1], "scores": self.scores[name]}
            compared = {"before": best["scores"], "after": after["scores"]}
            won = self.r.add(f"promoted-{n}", promote, PromoteConfig(), **compared)
            self.promotions[name] = won
            best = {kind: Chosen(won, best[kind], each) for kind, each in after.items()}
            state = {
                end: (Chosen(won, prompts, joined[end][0]), Chosen(won, taught, joined[end][1]))
                for end, (prompts, taught) in state.items()
            }
        return {**best, "answers": state[""][1]}
