"""Orca's rounds in the embedded world, from files: what they draw, and that they stop."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from loops import write_world
from spyhop.recipe import resolve, run
from spyhop.recipe.plan import plan
from spyhop.recipes.orca import OrcaConfig, orca
from spyhop.schema import Answer, Prompt
from spyhop.stage import Runtime

ROUNDS = {"num": 2, "add_queries": 20, "dev_queries": 20}


@pytest.fixture(scope="module")
def settings(words: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return write_world(tmp_path_factory.mktemp("world"), words)


def test_rounds_are_planned_as_upper_bounds(settings, tmp_path: Path):
    recipe = orca(OrcaConfig.model_validate({**settings, "rounds": ROUNDS}))
    lines = {line.step.name: line for line in plan(resolve(recipe, tmp_path))}
    assert lines["round-1.answers"].estimate.calls["teacher"].requests == 20
    assert lines["round-2.rows"].estimate.rows == 70
    assert lines["round-2.answers"].waits_for == ("promoted-1",)
    assert lines["round-1.answers"].waits_for == ()


@pytest.mark.slow
def test_a_student_that_is_not_promoted_ends_the_rounds(settings, tmp_path: Path):
    """A student of some steps knows nothing: the second round is the first one again."""
    recipe = orca(OrcaConfig.model_validate({**settings, "rounds": ROUNDS}))
    made = run(resolve(recipe, tmp_path), Runtime())
    dev = {row.query_id for row in made["dev"].rows(Prompt)}
    taught = {
        name: {row.query_id for row in made[f"{name}.rows"].rows(Answer)}
        for name in ("round-1", "round-1-random")
    }
    first = {row.query_id for row in made["answers"].rows(Answer)}
    for queries in taught.values():
        assert len(queries) == 50 and first < queries and dev.isdisjoint(queries)
    for name in ("drawn", "answers", "rows"):
        assert made[f"round-2.{name}"].key == made[f"round-1.{name}"].key
        assert made[f"round-2-random.{name}"].key == made[f"round-1-random.{name}"].key
    assert made["scores-round-2"].key == made["scores-round-1"].key
    released = made["model"].record.inputs["model"]
    assert [each.name for each in released] == ["student"]
    page = (made["report"].path / "report.html").read_text()
    assert "round-2 did not run: round-1 was not promoted." in page
    assert "drawn at random" in page and "points over the control" in page


@pytest.mark.parametrize("without", ["num_queries", "suites", "teacher"])
def test_rounds_need_a_start_items_and_a_teacher(settings, without: str):
    changed = {name: value for name, value in settings.items() if name != without}
    changed |= {"ready": [{"path": "x"}], "rounds": ROUNDS}
    with pytest.raises(ValidationError, match="rounds need num_queries"):
        OrcaConfig.model_validate(changed)
