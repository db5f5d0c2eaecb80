"""Pilots of orca: arms at growing sizes, ranked by cost, from files of the embedded world."""

import json
from pathlib import Path
from typing import Any

import pytest

from loops import write_world
from spyhop.recipe import resolve, run
from spyhop.recipe.plan import plan
from spyhop.recipe.promote import read_promotion
from spyhop.recipes.pilot import PilotConfig, pilot
from spyhop.schema import RecipeError
from spyhop.stage import Runtime


def _toml(path: Path, settings: dict[str, Any], **changes: Any) -> Path:
    """Write settings as TOML, a value a line."""
    lines = ['recipe = "orca"']
    for name, value in {**settings, **changes}.items():
        lines.append(f"{name} = {_inline(value)}")
    path.write_text("\n".join(lines) + "\n")
    return path


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return (
        "false" if value is None else json.dumps(str(value) if isinstance(value, Path) else value)
    )


@pytest.fixture(scope="module")
def files(words: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("world")
    settings = write_world(folder, words)
    return {
        "steps": _toml(folder / "steps.toml", settings),
        "short": _toml(folder / "short.toml", settings, shares={"*": {"short": 1.0}}),
        "other": _toml(folder / "other.toml", settings, measure={"system_message": "No."}),
    }  # fmt: skip


def test_larger_sizes_are_planned_as_upper_bounds(files: dict[str, Path], tmp_path: Path):
    arms = {name: files[name] for name in ("steps", "short")}
    recipe = pilot(PilotConfig(arms=arms, sizes=(10, 20, 40)))
    lines = {line.step.name: line for line in plan(resolve(recipe, tmp_path))}
    assert lines["steps-10.answers"].estimate.calls["teacher"].requests == 10
    assert lines["short-40.answers"].estimate.calls["teacher"].requests == 40
    assert lines["short-40.answers"].waits_for == ("ranked-10", "ranked-20")


@pytest.mark.slow
def test_arms_are_ranked_by_cost_at_each_size(files: dict[str, Path], tmp_path: Path):
    """Students of a few steps gain nothing: no order is resolved, so every size runs."""
    arms = {name: files[name] for name in ("steps", "short")}
    recipe = pilot(PilotConfig(arms=arms, sizes=(10, 20)))
    made = run(resolve(recipe, tmp_path), Runtime())
    for size in (10, 20):
        found = read_promotion(made[f"ranked-{size}"])
        assert found.chosen == "after" and found.reason.endswith("; not resolved")
    assert [made[f"steps-{size}.answers"].num_rows for size in (10, 20)] == [10, 20]
    page = (made["report"].path / "report.html").read_text()
    assert "points per 1,000 dollars" in page and "points per million tokens" in page


def test_arms_share_what_they_are_measured_by(files: dict[str, Path]):
    arms = {"steps": files["steps"], "other": files["other"]}
    with pytest.raises(RecipeError, match=r"other.toml: measure differs from the first arm's"):
        pilot(PilotConfig(arms=arms, sizes=(10,)))
    with pytest.raises(ValueError, match="greater than 0"):
        PilotConfig(arms=arms, sizes=(10, 0))
