"""Both whales: Humpback's curated instructions become Orca's queries, explained by a teacher.

Source: Humpback (arXiv:2308.06259) for the instructions and the texts that they were written for;
Orca (arXiv:2306.02707) for the system messages and the explanations. Neither paper does this.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from spyhop.augment import ExplainConfig, explain, format_pairs
from spyhop.collect import PairConfig, SubsetConfig, draw_subset, pair
from spyhop.curate import QueriesConfig, pairs_to_queries
from spyhop.recipe.graph import Recipe, RecipeStep, Ref, Source
from spyhop.recipe.load import read_recipe
from spyhop.recipes.evaluating import add_audits
from spyhop.recipes.humpback import Data, Rounds, Scored, add_data, add_rounds, taken
from spyhop.recipes.humpback_config import HumpbackConfig
from spyhop.recipes.inputs import AuditJudge, check_judged, served
from spyhop.recipes.mixture import mixture
from spyhop.recipes.orca import OrcaConfig, add_answers, add_prompts
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

    humpback: InputPath
    """A recipe file of `humpback`: pages, seeds, rounds, student and suites. What its own run has
    made in the same store is not made again."""
    orca: InputPath
    """A recipe file of `orca`: collections, system messages and who answers. Its ablations, rounds
    and further bases are not run."""
    teacher: InputPath
    """Who explains the curated instructions: a model's file (TOML) or folder."""
    shares: dict[str, float] = Field(default_factory=lambda: dict(SHARES))
    """Weights of the system messages."""
    num_queries: int | None = Field(None, gt=0)
    """Curated instructions to explain. Default: all that were kept."""
    explain: ExplainConfig = ExplainConfig()
    judge: AuditJudge = None
    tokens: int = Field(gt=0)
    """Training tokens of each of the three students, whatever its data set's size."""


def combined(config: CombinedConfig, name: str = "combined") -> Recipe:
    """Compare curated web instructions explained by a teacher with each paper's own data."""
    r = Recipe(name)
    web = _read(config.humpback, "humpback", HumpbackConfig)
    orca = _read(config.orca, "orca", OrcaConfig).model_copy(update={"rounds": None})
    try:
        check_judged(config.judge, web.suites)
    except ValueError as error:
        raise RecipeError(f"{config.humpback}: {error}") from None
    data = add_data(r.within("humpback."), web)
    rounds = add_rounds(data)
    data = replace(data, r=r)
    pairs = {"seeds": data.seeds, "curated": rounds.best_kept}
    sets: dict[str, list[dict[str, Ref]]] = {
        "humpback": [{"humpback": r.add("humpback.all", format_pairs, web.forward, pairs=pairs)}],
        "orca": _collected(r.within("orca."), orca, data),
        "combined": [{"combined": _explained(r, config, orca, rounds)}],
    }
    students, scores = _learn(config, orca.seed, data, sets)
    audits: dict[str, Ref] = {}
    judged = scores["combined"].get("accuracy")
    if config.judge is not None and judged:
        (rows,), base = sets["combined"], data.measure("base", data.base, "")["accuracy"]
        audits = add_audits(r, [served(config.judge)], data.items, base, judged, rows)
    names = {name: tuple(each for rows in phases for each in rows) for name, phases in sets.items()}
    page = CombinedPageConfig(title=r.name, tokens=config.tokens, sets=names)
    answers = {
        name: ref for phases in sets.values() for rows in phases for name, ref in rows.items()
    }
    r.add(
        "report", combined_page, page, answers=answers, students=students, audits=audits,
        accuracy=taken(scores, "accuracy"), held_out=taken(scores, "held_out"),
    )  # fmt: skip
    return r


def _explained(r: Recipe, config: CombinedConfig, orca: OrcaConfig, rounds: Rounds) -> RecipeStep:
    """Add the curated instructions as queries under system messages, and the teacher's answers."""
    kept = rounds.best_kept
    queries = r.add("queries", pairs_to_queries, QueriesConfig(), pairs={"curated": kept})
    pairing = PairConfig(messages=orca.messages, shares={"*": config.shares}, seed=orca.seed)
    prompts = r.add("prompts", pair, pairing, queries=queries)
    if config.num_queries is not None:
        size = SubsetConfig(num_rows=config.num_queries, seed=orca.seed)
        prompts = r.add("sampled", draw_subset, size, prompts=prompts)
    teacher = served(config.teacher)
    return r.add("explained", explain, config.explain, prompts=prompts, pairs=kept, teacher=teacher)


def _collected(r: Recipe, orca: OrcaConfig, data: Data) -> list[dict[str, Ref]]:
    """Add Orca's own answers on its collections, by phase of training: the assistant's first."""
    clean = (orca.distinct, orca.decontaminate, data.items, orca.seed)
    mixed = mixture(r, orca.collections, *clean)
    rows = add_answers(r, orca, mixed, add_prompts(r, orca, mixed)).rows
    return [
        {f"orca {name}": ref for name, ref in answers.items()}
        for answers in (rows["ta"], rows["teacher"])
        if answers
    ]


def _learn(
    config: CombinedConfig, seed: int, data: Data, sets: Mapping[str, list[dict[str, Ref]]]
) -> tuple[dict[str, RecipeStep | Source], dict[str, Scored]]:
    """Add three students of equal tokens, each asked under its own recipe's system message.

    Phases of a training have equal shares of the tokens.
    """
    students, scores = {}, {}
    for name, phases in sets.items():
        tokens = config.tokens // len(phases)
        equal = {"tokens": tokens, "epochs": None, "shares": None, "seed": seed}
        how, student = data.config.train.model_copy(update=equal), data.base
        for number, rows in enumerate(phases, 1):
            suffix = "" if number == len(phases) else f".{number}"
            student = data.r.add(f"student-{name}{suffix}", tune, how, base=student, answers=rows)
        students[name] = student
        scores[name] = data.measure(name, student, None if name == "humpback" else "")
    return students, scores


def _read(path: Path, recipe: str, config_type: type[Settings]) -> Settings:
    file = read_recipe(path)
    if file.recipe != recipe:
        raise RecipeError(f"{path}: recipe = {file.recipe!r}, not {recipe!r}")
    found = file.config(config_type)
    assert isinstance(found, config_type)
    return found
