"""The recipes that ship with spyhop, by name: a typed config and the function that it fills."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from spyhop.recipe.graph import Recipe
from spyhop.recipes.answering import AnsweringConfig, answering
from spyhop.recipes.backtranslating import BacktranslatingConfig, backtranslating
from spyhop.recipes.combined import CombinedConfig, combined
from spyhop.recipes.curating import CuratingConfig, curating
from spyhop.recipes.evaluating import EvaluatingConfig, evaluating
from spyhop.recipes.humpback import humpback
from spyhop.recipes.humpback_config import HumpbackConfig
from spyhop.recipes.judging import JudgingConfig, judging
from spyhop.recipes.orca import OrcaConfig, orca
from spyhop.recipes.pilot import PilotConfig, pilot
from spyhop.recipes.preferring import PreferringConfig, preferring
from spyhop.recipes.quickstart import QuickstartConfig, quickstart
from spyhop.recipes.quickstart_humpback import QuickstartHumpbackConfig, quickstart_humpback
from spyhop.recipes.scale import ScaleConfig, scale
from spyhop.recipes.segments import SegmentsConfig, segments
from spyhop.recipes.training import TrainingConfig, training
from spyhop.schema import Config, RecipeError


@dataclass(frozen=True, slots=True)
class RecipeKind:
    """A recipe that a TOML file can name."""

    config_type: type[Config]
    build: Callable[[Any, str], Recipe]
    """The recipe of a config and a run's name."""

    @property
    def summary(self) -> str:
        """First line of the recipe's docstring."""
        return (self.build.__doc__ or "").strip().splitlines()[0]


RECIPES: dict[str, RecipeKind] = {
    "answer": RecipeKind(AnsweringConfig, answering),
    "backtranslate": RecipeKind(BacktranslatingConfig, backtranslating),
    "combined": RecipeKind(CombinedConfig, combined),
    "curate": RecipeKind(CuratingConfig, curating),
    "eval": RecipeKind(EvaluatingConfig, evaluating),
    "humpback": RecipeKind(HumpbackConfig, humpback),
    "judge": RecipeKind(JudgingConfig, judging),
    "orca": RecipeKind(OrcaConfig, orca),
    "pairs": RecipeKind(PreferringConfig, preferring),
    "pilot": RecipeKind(PilotConfig, pilot),
    "quickstart": RecipeKind(QuickstartConfig, quickstart),
    "quickstart_humpback": RecipeKind(QuickstartHumpbackConfig, quickstart_humpback),
    "scale": RecipeKind(ScaleConfig, scale),
    "segments": RecipeKind(SegmentsConfig, segments),
    "train": RecipeKind(TrainingConfig, training),
}


INIT_FILES = ("mine.toml", "teacher.toml", "prompts.jsonl", "questions.jsonl")
"""Files that `spyhop init` writes: the recipe, then examples of the files that it names."""


def write_example(folder: Path, name: str) -> Path:
    """Write a recipe file that ships with spyhop, unless one of that name is there already."""
    path = folder / name
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(files("spyhop.recipes").joinpath(name).read_text())
        except OSError as error:
            raise RecipeError(f"{folder}: cannot be written ({error.strerror})") from None
    return path
