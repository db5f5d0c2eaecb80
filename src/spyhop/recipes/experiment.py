"""Shared by the two quick starts: the table of arms, the starting model, a student's training."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from spyhop import world
from spyhop.recipe.graph import Recipe, RecipeStep, Source
from spyhop.report import ArmPair
from spyhop.schema import Config
from spyhop.settings import InputPath
from spyhop.train import NewModelConfig, OptimizerConfig, TuneConfig, new_model, tune

COPY_BATCH_TOKENS = 1024
COPIES = 15
"""Rows to copy for 1,000 training tokens."""
MAX_TOKENS = 512


@dataclass(frozen=True, slots=True)
class ExperimentArm:
    """Title of an arm, and the arms that it is compared with."""

    title: str
    against: tuple[str, ...] = ()


ARMS = {
    "base": ExperimentArm("base, asked to explain"),
    "base-answers": ExperimentArm("base, asked for the answer"),
    "explanations": ExperimentArm(
        "explanations", against=("answers-tokens", "answers-queries", "style", "base")
    ),
    "answers-tokens": ExperimentArm("answers only, equal tokens", against=("base-answers",)),
    "answers-queries": ExperimentArm("answers only, equal queries"),
    "style": ExperimentArm("style only (random steps)", against=("answers-tokens",)),
    "ta": ExperimentArm("assistant only"),
    "teacher": ExperimentArm("teacher only (few)"),
    "progressive": ExperimentArm("assistant, then teacher", against=("ta", "teacher", "mixed")),
    "mixed": ExperimentArm("assistant and teacher, mixed"),
    "curated": ExperimentArm("seed + curated", against=("uncurated", "random", "seed", "seed-own")),
    "seed": ExperimentArm("seed pairs only"),
    "seed-own": ExperimentArm("seed pairs only, asked as trained"),
    "uncurated": ExperimentArm("seed + all documents", against=("seed",)),
    "random": ExperimentArm("seed + about as many at random"),
    "round-2": ExperimentArm("seed + curated in round 2", against=("curated",)),
}
"""Arms of both quick starts."""


def titles(names: Iterable[str]) -> dict[str, str]:
    """Return the titles of arms."""
    return {name: ARMS[name].title for name in names}


def comparisons(names: Iterable[str]) -> tuple[ArmPair, ...]:
    """Return the comparisons of arms; the difference is second minus first."""
    known = set(names)
    return tuple(
        ArmPair(first=first, second=second)
        for second, arm in ARMS.items()
        for first in arm.against
        if {first, second} <= known
    )


class ExperimentSetting(Config):
    """A student, its test problems and its budgets."""

    name: str
    """Name of the setting in the report."""
    steps: world.Steps = (3, 6)
    """Fewest and most steps of a problem."""
    num_items: int = Field(400, gt=0)
    """Held-out test problems, the same for every arm and seed."""
    student: NewModelConfig | InputPath
    """Shape of a new model, or folder of a pretrained one."""
    copy_tokens: int = Field(600_000, gt=0)
    """Training tokens of a new student's starting model, which learns to copy random words."""
    optimizer: OptimizerConfig
    batch_tokens: int = Field(1024, gt=0)
    """Tokens of a batch in training."""


def starting_model(
    r: Recipe, setting: ExperimentSetting, words: world.TokenizerConfig
) -> RecipeStep | Source:
    """Return the model that every arm starts from: a new one is small and can only copy."""
    if isinstance(setting.student, Path):
        return Source(setting.student)
    name = setting.name
    tokenizer = r.add(f"{name}.tokenizer", world.train_tokenizer, words)
    fresh = r.add(f"{name}.new", new_model, setting.student, tokenizer=tokenizer)
    config = world.CopiesConfig(num_rows=max(1, setting.copy_tokens * COPIES // 1000))
    copies = r.add(f"{name}.copies", world.draw_copies, config)
    learned = tuning(setting, tokens=setting.copy_tokens, seed=0)
    learned = learned.model_copy(update={"batch_tokens": COPY_BATCH_TOKENS})
    return r.add(f"{name}.base", tune, learned, base=fresh, answers={"copies": copies})


def tuning(setting: ExperimentSetting, *, tokens: int | None, seed: int) -> TuneConfig:
    """Return the settings of a student's training; without `tokens` one pass over its rows."""
    return TuneConfig(
        tokens=tokens,
        epochs=1.0 if tokens is None else None,
        batch_tokens=setting.batch_tokens,
        max_tokens=MAX_TOKENS,
        optimizer=setting.optimizer,
        precision="bfloat16" if isinstance(setting.student, Path) else "float32",
        seed=seed,
    )
