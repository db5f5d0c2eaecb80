"""A pilot: some queries of a collection are rated for how hard they are before it is drawn from."""

from typing import Literal

from pydantic import Field

from spyhop.augment import (
    AnswerConfig,
    MeasureLossesConfig,
    answer,
    measure_errors,
    measure_losses,
)
from spyhop.collect import DrawConfig, PairConfig, SourceTable, SystemMessage, draw, pair
from spyhop.recipe.graph import Recipe, RecipeStep, Ref
from spyhop.recipes.inputs import served
from spyhop.schema import Config, NoConfig
from spyhop.settings import InputPath


class Pilot(Config):
    """Pilot model that rates queries; needed for strata by difficulty."""

    file: InputPath
    """A teacher's file (TOML) or a folder of weights: the assistant, or any small model."""
    by: Literal["errors", "loss"] = "errors"
    """Measure of difficulty. `errors`: share of the pilot's answers that are wrong by the gold
    answer. `loss`: its loss per token on the gold answer."""
    num_rows: int | None = Field(None, gt=0)
    """Rows to draw for the pilot by Algorithm 1; the final draw is from these alone. Default: all
    rows are rated."""
    answers: AnswerConfig = AnswerConfig()
    """How it is asked, for `errors`."""


def rated(
    r: Recipe, label: str, pilot: Pilot, queries: Ref, table: SourceTable | None, seed: int
) -> tuple[RecipeStep, RecipeStep]:
    """Add a collection's pilot; return its queries and how hard they are."""
    size = DrawConfig(num_rows=pilot.num_rows, table=table, seed=seed)
    drawn = r.add(f"pilot-{label}", draw, size, queries={label: queries})
    model = served(pilot.file)
    if pilot.by == "loss":
        return drawn, r.add(
            f"hard-{label}", measure_losses, MeasureLossesConfig(), queries=drawn, model=model
        )
    plain = PairConfig(messages=(SystemMessage(id="pilot", text=""),), shares={"*": {"pilot": 1}})
    prompts = r.add(f"pilot-{label}.prompts", pair, plain, queries=drawn)
    name = f"pilot-{label}.answers"
    answers = r.add(name, answer, pilot.answers, prompts=prompts, teacher=model)
    return drawn, r.add(f"hard-{label}", measure_errors, NoConfig(), answers=answers)
