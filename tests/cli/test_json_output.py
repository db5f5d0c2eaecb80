"""`--json` of plan, why and show: one object on standard output and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

import toys
from spyhop.recipe import Recipe
from spyhop.recipes import RECIPES, RecipeKind
from spyhop.schema import Config
from toys import Numbers

FIGURES = {
    "rows", "requests", "prompt_tokens", "response_tokens", "trained_tokens", "usd", "most_usd",
    "hours",
}  # fmt: skip


class Sized(Config):
    """Settings of a recipe of two steps."""

    num_rows: int = 3


@pytest.fixture
def ask(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def build(config: Sized, name: str) -> Recipe:
        recipe = Recipe(name)
        few = recipe.add("few", toys.numbers, Numbers(num_rows=config.num_rows))
        recipe.add("odd", toys.odd_only, Numbers(), rows=few)
        return recipe

    monkeypatch.setitem(RECIPES, "toy", RecipeKind(Sized, build))
    monkeypatch.chdir(tmp_path)
    Path("toy.toml").write_text('recipe = "toy"\n')

    def call(*arguments: str) -> Any:
        done = cli(*arguments, "--json")
        assert done.code == 0 and done.stderr == "", done.stderr
        return json.loads(done.stdout)

    return call


def test_a_plan_has_the_figures_of_its_steps_and_their_sum(ask, cli):
    found = ask("plan", "toy.toml")
    assert set(found) == {
        "recipe", "output_folder", "steps", "remaining", "remaining_at_most", "training",
        "warnings", "missing_inputs", "deadlines",
    }  # fmt: skip
    assert [(s["name"], s["is_finished"]) for s in found["steps"]] == [
        ("few", False),
        ("odd", False),
    ]
    assert found["steps"][0].keys() >= FIGURES and found["remaining"].keys() == FIGURES
    for name in FIGURES:
        assert found["remaining"][name] == pytest.approx(sum(s[name] for s in found["steps"]))
    assert cli("run", "toy.toml").code == 0
    found = ask("plan", "toy.toml")
    assert [(s["rows"], s["is_finished"]) for s in found["steps"]] == [(3, True), (1, True)]
    assert not any(found["remaining"].values()) and found["output_folder"] == "spyhop-out"


def test_reasons_are_a_list_for_each_step(ask, cli):
    assert cli("run", "toy.toml").code == 0
    found = ask("why", "toy.toml")
    assert found["steps"] == [
        {"name": name, "is_finished": True, "reasons": []} for name in ("few", "odd")
    ]
    (step,) = ask("why", "toy.toml", "few", "--set", "num_rows=5")["steps"]
    assert step == {"name": "few", "is_finished": False, "reasons": ["num_rows: 3 became 5"]}


def test_show_gives_the_record_with_rows_or_the_runs(ask, cli):
    assert cli("run", "toy.toml").code == 0
    step = ask("show", "odd", "--recipe", "toy.toml", "-n", "1")
    assert step["stage"] == "toys.odd_only" and step["rows"] == 1 and step["counts"] is not None
    assert len(step["first_rows"]) == 1 and step["inputs"]["rows"][0]["name"] == "few"
    assert step["name"] == Path(step["path"]).name and len(step["digest"]) == 64
    dropped = ask("show", "odd", "--recipe", "toy.toml", "--dropped")
    assert [row["reason"] for row in dropped["first_rows"]] == ["even"] * 2
    assert dropped["dropped"] == {"even": 2}
    (run,) = ask("show", "spyhop-out")["runs"]
    assert (run["name"], run["state"], len(run["steps"])) == ("toy", "done", 2)
    assert ask("show", "spyhop-out/runs/toy")["runs"] == [run]
    assert run["steps"][0] | {"stage": "toys.numbers", "rows": 3} == run["steps"][0]


def test_an_error_leaves_standard_output_empty(cli, ask):
    for arguments in (["plan", "none.toml"], ["why", "toy.toml", "nine"], ["show", "few"]):
        done = cli(*arguments, "--json")
        assert (done.code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert cli("run", "toy.toml").code == 0
    done = cli("show", "few", "--mask", ".", "--json")
    assert done.code == 2 and "--mask shows tokens in a terminal; it has no --json" in done.stderr
