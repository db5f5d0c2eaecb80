"""Which arm of `orca` gains most for its cost: small students first, and a stop once it is known.

Every arm is a recipe file of `orca`. At each size all arms' students are trained and ranked by
points per dollar. Once the order is resolved, larger sizes have the inputs of that size, so their
keys are equal and nothing more is asked or trained.
"""

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, PositiveInt

from spyhop.collect import SubsetConfig, draw_subset
from spyhop.models import Local
from spyhop.recipe.graph import Chosen, Made, Recipe, RecipeStep, Ref, Use
from spyhop.recipe.load import read_recipe
from spyhop.recipe.promote import RankConfig, rank_arms
from spyhop.recipes.arms import Arm
from spyhop.recipes.evaluating import SCORES, add_scores
from spyhop.recipes.inputs import add_base, add_items, placed
from spyhop.recipes.mixture import mixture
from spyhop.recipes.orca import OrcaConfig, add_answers, add_prompts, train_arm
from spyhop.report import ReportConfig, page
from spyhop.schema import Config, RecipeError
from spyhop.settings import InputPath

SAME = ("suites", "measure", "student")
"""Settings that all arms share."""


class PilotConfig(Config):
    """Settings of the `pilot` recipe."""

    arms: dict[str, InputPath] = Field(min_length=2)
    """Recipe files of `orca`, by the arm's name, with the same suites, measure and student. Their
    ablations, rounds and reports are not run."""
    sizes: tuple[PositiveInt, ...] = Field(min_length=1)
    """Queries of each arm's students, least first; a larger sample contains a smaller one."""


def pilot(config: PilotConfig, name: str = "pilot") -> Recipe:
    """Rank arms of orca by points per dollar on small samples; stop once the order is known."""
    r = Recipe(name)
    arms = {arm: _read(path) for arm, path in config.arms.items()}
    first = next(iter(arms.values()))
    for arm, each in arms.items():
        if odd := [key for key in SAME if getattr(each, key) != getattr(first, key)]:
            raise RecipeError(f"{config.arms[arm]}: {odd[0]} differs from the first arm's")
    suites = placed(first.suites)
    items = add_items(r, suites)
    base = add_base(r, first.student)
    scores: dict[str, Ref] = add_scores(
        r, first.measure, suites, items, {"base": Use(Local(name="base"), base)}
    )
    pools: dict[str, Made] = {}
    data = {}
    for arm, each in arms.items():
        part = r.within(f"{arm}.")
        clean = (each.distinct, each.decontaminate, items, each.seed)
        data[arm] = mixture(part, each.collections, *clean)
        pools[arm] = add_prompts(part, each, data[arm])
    prompts: dict[str, Made] = {}
    phases: dict[str, list[RecipeStep]] = {}
    answers: dict[str, Ref] = {}
    rankings: dict[str, RecipeStep] = {}
    for size in sorted(set(config.sizes)):
        for arm, each in arms.items():
            name, part = f"{arm}-{size}", r.within(f"{arm}-{size}.")
            some = SubsetConfig(num_rows=size, seed=each.seed)
            drawn: Made = part.add("sampled", draw_subset, some, prompts=pools[arm])
            if rankings:
                drawn = Chosen([*rankings.values()][-1], before=prompts[arm], after=drawn)
            prompts[arm] = drawn
            rows = add_answers(part, each, data[arm], drawn).rows
            phases[name] = train_arm(part, each, Arm("student"), base, rows)
            use = {name: Use(Local(name="student"), phases[name][-1])}
            scores |= add_scores(r, first.measure, suites, items, use)
            answers |= {f"{name} {by}": ref for by, ref in rows["teacher"].items()}
        trained = {name: steps[-1] for name, steps in phases.items()}
        how = RankConfig(looks=len(config.sizes), arms=_names(arms, phases))
        rankings[f"{size}"] = r.add(
            f"ranked-{size}", rank_arms, how, students=trained,
            scores={name: r.step(f"{SCORES}{name}") for name in ("base", *trained)},
        )  # fmt: skip
    shown = ReportConfig(
        title=r.name, phases={name: tuple(s.name for s in steps) for name, steps in phases.items()},
        sizes=_names(arms, phases),
    )  # fmt: skip
    r.add(
        "report", page, shown, items=items, scores=scores, answers=answers,
        students={step.name: step for steps in phases.values() for step in steps},
    )  # fmt: skip
    return r


def _names(arms: Iterable[str], students: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the students of each arm, in the order of their sizes."""
    return {arm: tuple(name for name in students if name.rpartition("-")[0] == arm) for arm in arms}


def _read(path: Path) -> OrcaConfig:
    """Return an arm's settings, for a sample: its own number of queries does not apply."""
    file = read_recipe(path)
    if file.recipe != "orca":
        raise RecipeError(f'{path}: recipe = "{file.recipe}"; an arm of a pilot is "orca"')
    found = file.config(OrcaConfig)
    assert isinstance(found, OrcaConfig)
    if not found.suites:
        raise RecipeError(f"{path}: add [[suites]]; arms are ranked by their scores")
    return found.model_copy(update={"num_queries": None, "rounds": None, "ablate": ()})
