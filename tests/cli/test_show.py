"""`show`, `plan` and `report` with folders, steps of several runs, and recipes without a page."""

import json
import re
from pathlib import Path

import pytest

import toys
from spyhop.recipe import Recipe, resolve, run
from spyhop.recipes import RECIPES, RecipeKind
from spyhop.runtime import Runtime
from spyhop.schema import Config
from toys import Numbers


def _run(name: str, num_rows: int) -> None:
    recipe = Recipe(name)
    few = recipe.add("few", toys.numbers, Numbers(num_rows=num_rows))
    recipe.add("odd", toys.odd_only, Numbers(), rows=few)
    run(resolve(recipe, Path("out")), Runtime())


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _run("one", 3)
    _run("two", 4)


def test_a_step_of_two_runs_lists_both_and_is_an_error(cli):
    done = cli("show", "few", "--out", "out")
    assert done.code == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    named = re.findall(r"`spyhop show (\S+)`", line)
    assert line.startswith("spyhop: few: 2 runs have a step of this name; use ")
    assert named == ["out/runs/one/few", "out/runs/two/few"]
    assert [f"({n} rows" in cli("show", path).stdout for n, path in zip((3, 4), named, strict=True)]


def test_one_artifact_of_two_runs_is_shown(cli):
    _run("three", 3)  # the same work as `one`
    Path("out/runs/two/few").unlink()
    assert "(3 rows" in cli("show", "few", "--out", "out").stdout


def test_folders_list_runs_and_steps(cli):
    runs = cli("show", "out").stdout.splitlines()
    assert [re.sub(r"started \S+,", "", line).split() for line in runs] == [
        [f"out/runs/{name}", "done,", "2", "finished", "steps"] for name in ("one", "two")
    ]
    steps = cli("show", "out/runs/two").stdout.splitlines()
    assert [" ".join(line.split()) for line in steps[1:]] == [
        "out/runs/two/few toys.numbers 4 rows", "out/runs/two/odd toys.odd_only 2 rows",
    ]  # fmt: skip
    Path("out/runs/one/run.json").write_text("{")
    assert "out/runs/one  2 finished steps" in cli("show", "out").stdout
    Path("empty").mkdir()
    done = cli("show", "empty")
    assert done.code == 2 and "empty: neither an artifact, nor a run, nor an" in done.stderr
    assert cli("show", "few").stderr.startswith("spyhop: spyhop-out: no such folder; ")


def test_a_folder_with_one_recipe_is_that_recipe(cli):
    done = cli("plan", "out")
    assert done.code == 2 and "out: the folder has no recipe (*.toml)" in done.stderr
    folder = Path("mine")
    folder.mkdir()
    (folder / "prompts.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "?"}]})
    )
    (folder / "teacher.toml").write_text('model = "m"\n[[endpoints]]\nurl = "http://127.0.0.1:9"\n')
    (folder / "a.toml").write_text(
        'recipe = "answer"\nprompts = "prompts.jsonl"\nteacher = "teacher.toml"'
    )
    (folder / "broken.toml").write_text("recipe =")
    done = cli("plan", "mine")
    assert done.code == 0 and "augment.answer" in done.stdout, done
    (folder / "b.toml").write_text('recipe = "train"')
    done = cli("plan", "mine")
    assert (
        done.code == 2
        and "the folder has 2 recipes; name one: mine/a.toml, mine/b.toml" in done.stderr
    )


class Bare(Config):
    """Settings of a recipe without a report."""


def test_a_report_without_a_page_says_so(cli, monkeypatch: pytest.MonkeyPatch):
    def build(config: Bare, name: str) -> Recipe:
        recipe = Recipe(name)
        recipe.add("few", toys.numbers, Numbers())
        return recipe

    monkeypatch.setitem(RECIPES, "bare", RecipeKind(Bare, build))
    Path("r.toml").write_text('recipe = "bare"\n')
    done = cli("report", "r.toml", "--out", "out")
    assert done.code == 2 and done.stderr == (
        "spyhop: r.toml: this recipe has no report; `spyhop show STEP --recipe r.toml` shows rows "
        "of its steps: few\n"
    )
