"""The Humpback quick start: what each arm may read, and one model run whole in miniature."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from spyhop.augment import SEED_MESSAGE, WEB_MESSAGE
from spyhop.recipe import Recipe, RecipeStep, resolve, run
from spyhop.recipe.graph import parents
from spyhop.recipe.load import read_recipe
from spyhop.recipes import RECIPES, write_example
from spyhop.schema import Pair, RecipeError, Segment
from spyhop.stage import Runtime
from spyhop.world import kind_of

FILES = ["quickstart_humpback.toml", "thorough_humpback.toml"]
DEFAULT = {"seed", "uncurated", "curated"}
TINY = [
    "seeds=[0]",
    "settings.0.tokens=15000",
    "settings.0.copy_tokens=8000",
    "settings.0.backward_tokens=8000",
    "settings.0.num_documents=120",
    "settings.0.num_items=24",
    "settings.0.num_pairs=40",
    "written.sampling={temperature=0.7, max_new_tokens=128}",  # greedily it would never end
]


def _recipe(folder: Path, name: str, *changes: str) -> Recipe:
    file = read_recipe(write_example(folder, name), changes)
    kind = RECIPES[file.recipe]
    return kind.build(file.config(kind.config_type), file.name)


def _needed(step: RecipeStep) -> Iterable[RecipeStep]:
    for parent in parents(step):
        yield parent
        yield from _needed(parent)


@pytest.mark.parametrize("name", FILES)
def test_shipped_recipes_plan_without_running(tmp_path: Path, name: str):
    recipe = _recipe(tmp_path, name)
    assert resolve(recipe, tmp_path).made == {}
    assert recipe.steps[-1].name == "report"


def test_the_page_tells_what_rounding_does_and_how_many_are_drawn_at_random(tmp_path: Path):
    recipe = _recipe(tmp_path, FILES[1])
    limits = " ".join(recipe.steps[-1].config.caveats)
    assert "Rounding alone" in limits and "is not robust" in limits
    assert recipe.step("systematic.drawn.6").config.num_rows == 1000
    assert "two fifths of all documents" in limits


@pytest.mark.parametrize("name", FILES)
def test_arms_have_equal_budgets_and_differ_in_their_rows_alone(tmp_path: Path, name: str):
    recipe = _recipe(tmp_path, name)
    for setting in ("systematic", *(["random"] if "thorough" in name else [])):
        arms = ["seed", "uncurated", *(["random"] if "thorough" in name else []), "curated"]
        students = [recipe.step(f"{setting}.{arm}.6") for arm in arms]
        assert len({student.config.model_dump_json() for student in students}) == 1
        assert {student.inputs["base"] for student in students} == {recipe.step(f"{setting}.base")}
        learned = recipe.step(f"{setting}.learned.6")
        assert students[0].inputs["answers"] == {"seeds": learned}
        for arm, student in zip(arms[1:], students[1:], strict=True):
            others = recipe.step(f"{setting}.{arm}.pairs.6")
            assert list(student.inputs["answers"].values()) == [learned, learned, others]


def test_only_rating_decides_what_is_kept(tmp_path: Path):
    recipe = _recipe(tmp_path, FILES[1])
    uncurated, random, curated, again = (
        {step.stage.name for step in _needed(recipe.step(f"systematic.{arm}.8"))}
        for arm in ("uncurated", "random", "curated", "round-2")
    )
    assert not {"curate.rate_by_likelihood", "curate.gate"} & (uncurated | random)
    assert {"curate.rate_by_likelihood", "curate.gate", "curate.keep"} <= curated & again
    assert recipe.step("systematic.curated.8") in _needed(recipe.step("systematic.rated-2.8"))
    readers = [
        step for step in recipe.steps if recipe.step("systematic.documents.8") in parents(step)
    ]
    assert [step.stage.name for step in readers] == [
        "augment.backtranslate",
        "report.arms_page",
    ]


def test_students_are_asked_under_both_messages(tmp_path: Path):
    recipe = _recipe(tmp_path, FILES[1])
    asked = {
        arm: recipe.step(f"systematic.{arm}.5.scores").config for arm in (*DEFAULT, "seed-own")
    }
    both = f"{SEED_MESSAGE} {WEB_MESSAGE}"
    assert all(asked[arm].system_message == both for arm in DEFAULT)
    assert asked["seed-own"].system_message == SEED_MESSAGE


def test_seeds_of_development_are_not_reported(tmp_path: Path):
    """Settings were chosen on the seeds from 100 on, and on other test problems."""
    for name in FILES:
        recipe = _recipe(tmp_path, name)
        assert {step.name for step in recipe.steps if step.name.endswith(".100")} == set()
        assert recipe.step("systematic.items").config.seed == 1


def test_kinds_that_are_unknown_are_refused(tmp_path: Path):
    with pytest.raises(RecipeError, match="kinds"):
        _recipe(tmp_path, FILES[0], "settings.0.kinds={brilliant=1.0}")


@pytest.mark.slow
def test_a_small_run_follows_every_document_to_its_training_row(tmp_path: Path):
    recipe = _recipe(tmp_path, FILES[0], *TINY)
    made = run(resolve(recipe, tmp_path), Runtime(device="cpu"))
    rows = json.loads((made["report"].path / "results.json").read_text())
    assert {row["arm"] for row in rows} == DEFAULT
    assert all(15_000 <= row["tokens"] <= 15_512 for row in rows)
    documents = {row.id: row for row in made["systematic.documents.0"].rows(Segment)}
    written, rated, kept = (
        list(made[f"systematic.{name}.0"].rows(Pair)) for name in ("written", "rated-1", "kept-1")
    )
    assert [row.id for row in written] == [row.id for row in rated]
    assert all(documents[row.segment_id].text == row.response for row in written)
    lowest = min(row.rating.value for row in kept)
    left = {row.id: row for row in rated}.keys() - {row.id for row in kept}
    assert all(row.rating.value <= lowest for row in rated if row.id in left)
    (figures,) = json.loads((made["report"].path / "curation.json").read_text())
    right = sum(kind_of(documents[row.segment_id]) == "correct" for row in kept)
    assert figures["precision"] == pytest.approx(right / len(kept))
