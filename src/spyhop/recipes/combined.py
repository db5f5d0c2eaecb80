"""Both whales: Humpback's curated instructions become Orca's queries, explained by a teacher.

Source: Humpback (arXiv:2308.06259) for the instructions and the texts that they were written for;
Orca (arXiv:2306.02707) for the system messages and the explanations. Neither paper does this.
"""

from pathlib import Path
from typing import TypeVar

from pydantic import Field

from spyhop.augment import ExplainConfig, explain, format_pairs
from spyhop.collect import (
    PairConfig,
    SubsetConfig,
    SystemMessage,
    draw_subset,
    orca_messages,
    pair,
)
from spyhop.curate import QueriesConfig, pairs_to_queries
from spyhop.recipe.graph import Node, Recipe, Ref
from spyhop.recipe.load import read_recipe
from spyhop.recipes.humpback_config import HumpbackConfig
from spyhop.recipes.inputs import served
from spyhop.recipes.mixture import mixture
from spyhop.recipes.orca import OrcaConfig, add_answers
from spyhop.recipes.rounds import Data, Rounds, Scored, add_data, add_rounds, add_scores
from spyhop.report import CombinedPageConfig, combined_page
from spyhop.schema import Config, RecipeError
from spyhop.settings import InputPath
from spyhop.train import tune

__all__ = ["CombinedConfig", "combined"]
Settings = TypeVar("Settings", bound=Config)
SHARES = {"6": 1.0, "11": 1.0, "16": 1.0}
"""Those of the chain-of-thought collection: they fit any question that people put."""


class CombinedConfig(Config):
    """Settings of the `combined` recipe."""

    name: str = "combined"
    """Name of the run; its nodes stand in `runs/<name>`. A file's own name, unless it says."""
    humpback: InputPath
    """A recipe file of `humpback`: pages, seeds, rounds, student and suites. What its own run has
    made in the same store is not made again."""
    orca: InputPath
    """A recipe file of `orca`: collections, system messages and who answers."""
    teacher: InputPath
    """Who explains the curated instructions: a model's file (TOML) or folder."""
    messages: tuple[SystemMessage, ...] = orca_messages()
    shares: dict[str, float] = Field(default_factory=lambda: dict(SHARES))
    """Weights of the system messages."""
    num_queries: int | None = Field(None, gt=0)
    """Curated instructions to explain; None takes all that were kept."""
    explain: ExplainConfig = ExplainConfig()
    tokens: int = Field(gt=0)
    """Training tokens of each of the three students, whatever its data set's size."""
    seed: int = 0


def combined(config: CombinedConfig) -> Recipe:
    """Curated web instructions explained by a teacher, beside each whale's own data."""
    r = Recipe(config.name)
    web = _read(config.humpback, "humpback", HumpbackConfig)
    part = r.within("humpback.")
    data = add_data(part, web)
    rounds = add_rounds(part, web, data)
    answers = _explained(r, config, rounds)
    sets: dict[str, list[Ref]] = {
        "humpback": [
            r.add("humpback.all", format_pairs, web.forward, pairs=[data.seeds, rounds.kept[-1]])
        ],
        "orca": _collected(r.within("orca."), config, data),
        "combined": [answers],
    }
    students, scores = _learn(r, config, web, data, sets)
    page = CombinedPageConfig(
        title=config.name,
        tokens=config.tokens,
        sizes=tuple(len(rows) for rows in sets.values()),
        students=tuple(sets),
        has_accuracy=bool(data.items),
        has_held_out=bool(data.held_out),
    )
    r.add(
        "report",
        combined_page,
        page,
        answers=[each for rows in sets.values() for each in rows],
        students=list[Ref](students),
        accuracy=[ref for each in scores for ref in each.accuracy],
        held_out=[ref for each in scores for ref in each.held_out],
    )
    return r


def _explained(r: Recipe, config: CombinedConfig, rounds: Rounds) -> Node:
    """Add the curated instructions as queries under system messages, and the teacher's answers."""
    kept = rounds.kept[-1]
    queries = r.add("queries", pairs_to_queries, QueriesConfig(), pairs=[kept])
    pairing = PairConfig(messages=config.messages, shares={"*": config.shares}, seed=config.seed)
    prompts = r.add("prompts", pair, pairing, queries=queries)
    if config.num_queries is not None:
        size = SubsetConfig(num_rows=config.num_queries, seed=config.seed)
        prompts = r.add("sampled", draw_subset, size, prompts=prompts)
    teacher = served(config.teacher)
    return r.add(
        "explained", explain, config.explain, prompts=prompts, pairs=[kept], teacher=teacher
    )


def _collected(r: Recipe, config: CombinedConfig, data: Data) -> list[Ref]:
    """Add Orca's own answers on its collections."""
    orca = _read(config.orca, "orca", OrcaConfig)
    clean = (orca.distinct, orca.decontaminate, data.items, orca.seed)
    rows = add_answers(r, orca, mixture(r, orca.collections, *clean))
    return [*rows.assisted, *rows.taught]


def _learn(
    r: Recipe,
    config: CombinedConfig,
    web: HumpbackConfig,
    data: Data,
    sets: dict[str, list[Ref]],
) -> tuple[list[Node], list[Scored]]:
    """Add three students of equal tokens; each is asked under what its recipe asks under."""
    equal = {"tokens": config.tokens, "epochs": None, "shares": None, "seed": config.seed}
    how = web.train.model_copy(update=equal)
    students, scores = [], []
    for name, rows in sets.items():
        student = r.add(f"student-{name}", tune, how, base=data.base, answers=rows)
        under = None if name == "humpback" else ""
        students.append(student)
        scores.append(add_scores(r, web, data, name, student, under))
    return students, scores


def _read(path: Path, recipe: str, config_type: type[Settings]) -> Settings:
    file = read_recipe(path)
    if file.recipe != recipe:
        raise RecipeError(f"{path}: recipe = {file.recipe!r}, not {recipe!r}")
    found = file.config(config_type)
    assert isinstance(found, config_type)
    return found
