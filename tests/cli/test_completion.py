"""What a shell completes, in this process and in bash."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import toys
from spyhop.evaluate.suite import task_names
from spyhop.recipe import Recipe, resolve, run
from spyhop.recipes import RECIPES, write_example
from spyhop.runtime import Runtime
from toys import Numbers


@pytest.fixture
def complete(cli, monkeypatch: pytest.MonkeyPatch):
    def ask(words: str) -> list[str]:
        monkeypatch.setenv("_SPYHOP_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", f"spyhop {words}")
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" "))))
        done = cli()
        assert done.code == 0 and done.stderr == "", done.stderr
        return done.stdout.split()

    return ask


def test_commands_and_options(complete):
    assert complete("re") == ["recipes", "report", "reproduce"]
    assert "--retry-errors" in complete("run r.toml --")
    assert {"--version", "--install-completion"} <= set(complete("--"))


def test_names_of_recipes_and_benchmarks(complete):
    assert complete("recipes ") == list(RECIPES)
    assert complete("recipes quickstart_") == ["quickstart_humpback"]
    assert complete("tasks ") == task_names()
    for command in ("eval m --suite bb", "train rows --suite bb", "scale a b --suite bb"):
        assert complete(command) == [name for name in task_names() if name.startswith("bb")]


def test_steps_of_a_recipe_and_of_past_runs(complete, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_example(tmp_path, "quickstart.toml")
    found = complete("why quickstart.toml ")
    assert {"report", "audit"} <= set(found) and len(found) > 20
    assert complete("show --recipe quickstart.toml rep") == ["report"]
    assert complete("run quickstart.toml --retry-errors rep") == ["report"]
    assert complete("show ") == complete("why none.toml ") == []
    Path("broken.toml").write_text('recipe = "orca"\ncollections = 3\n')
    assert complete("why broken.toml ") == []
    recipe = Recipe("one")
    recipe.add("few", toys.numbers, Numbers(num_rows=3))
    run(resolve(recipe, Path("spyhop-out")), Runtime())
    assert complete("show f") == ["few"]


@pytest.mark.slow
def test_bash_completes_after_the_installation(tmp_path: Path):
    script = """
    spyhop --install-completion; source "$HOME/.bashrc"
    COMP_WORDS=(spyhop recipes quick); COMP_CWORD=2; _spyhop_completion spyhop
    echo "${COMPREPLY[@]}"
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "HOME": str(tmp_path), "PATH": path},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "quickstart quickstart_humpback", done
    assert "completion installed in" in done.stdout
