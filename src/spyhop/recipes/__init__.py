"""The recipes that ship with spyhop, by name: a typed config and the function that it fills."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, create_model

from spyhop.models.local import Dtype
from spyhop.recipe.graph import Recipe
from spyhop.recipes.combined import CombinedConfig, combined
from spyhop.recipes.evaluating import EvaluatingConfig, evaluating
from spyhop.recipes.humpback import humpback
from spyhop.recipes.humpback_config import HumpbackConfig
from spyhop.recipes.judging import JudgingConfig, judging
from spyhop.recipes.orca import OrcaConfig, orca
from spyhop.recipes.own import (
    AnsweringConfig,
    BacktranslatingConfig,
    CuratingConfig,
    answering,
    backtranslating,
    curating,
)
from spyhop.recipes.pilot import PilotConfig, pilot
from spyhop.recipes.preferring import PreferringConfig, preferring
from spyhop.recipes.quickstart import quickstart
from spyhop.recipes.quickstart_config import QuickstartConfig
from spyhop.recipes.quickstart_humpback import QuickstartHumpbackConfig, quickstart_humpback
from spyhop.recipes.scale import ScaleConfig, scale
from spyhop.recipes.segments import SegmentsConfig, segments
from spyhop.recipes.training import TrainingConfig, training
from spyhop.runtime import Runtime
from spyhop.schema import Config, RecipeError
from spyhop.settings import TomlSchema


@dataclass(frozen=True, slots=True)
class RecipeKind:
    """A recipe that a TOML file can name."""

    config_type: type[Config]
    build: Callable[[Any, str], Recipe]
    """The recipe of a config and a run's name."""
    papers: tuple[str, ...] = ()
    """The arXiv ids of the papers that it follows."""

    @property
    def summary(self) -> str:
        """First line of the recipe's docstring."""
        return (self.build.__doc__ or "").strip().splitlines()[0]

    def schema(self, name: str) -> dict[str, Any]:
        """Return the JSON Schema of a recipe file, for editors; `name` is the recipe's."""
        about = "Run name; results are linked under runs/<name>. Default: the file's name."
        precision = "Precision of local models that answer or score."
        fields: dict[str, Any] = {
            "recipe": (Literal[name], ...),
            "name": (str, Field("", description=about)),
            "dtype": (Dtype, Field("auto", description=precision)),
            "runtime": (Runtime, Field(default_factory=Runtime)),
        }
        file = create_model(name, __base__=self.config_type, __doc__=self.summary, **fields)
        found = file.model_json_schema(schema_generator=TomlSchema)
        return {"$schema": TomlSchema.schema_dialect, **found}


ORCA, HUMPBACK = "2306.02707", "2308.06259"

RECIPES: dict[str, RecipeKind] = {
    "answer": RecipeKind(AnsweringConfig, answering),
    "backtranslate": RecipeKind(BacktranslatingConfig, backtranslating),
    "combined": RecipeKind(CombinedConfig, combined, (ORCA, HUMPBACK)),
    "curate": RecipeKind(CuratingConfig, curating),
    "eval": RecipeKind(EvaluatingConfig, evaluating),
    "humpback": RecipeKind(HumpbackConfig, humpback, (HUMPBACK,)),
    "judge": RecipeKind(JudgingConfig, judging),
    "orca": RecipeKind(OrcaConfig, orca, (ORCA,)),
    "pairs": RecipeKind(PreferringConfig, preferring),
    "pilot": RecipeKind(PilotConfig, pilot),
    "quickstart": RecipeKind(QuickstartConfig, quickstart, (ORCA,)),
    "quickstart_humpback": RecipeKind(QuickstartHumpbackConfig, quickstart_humpback, (HUMPBACK,)),
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
