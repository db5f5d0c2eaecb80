"""The quick start: one model run whole in miniature, edited, killed and run again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spyhop.recipe import resolve
from spyhop.recipe.load import read_recipe
from spyhop.recipe.plan import plan
from spyhop.recipe.why import why
from spyhop.recipes import RECIPES, write_example
from spyhop.schema import RecipeError
from spyhop.store.artifact import load

BEYOND = ["quickstart_beyond.toml", "thorough_beyond.toml"]
TINY = [
    "snapshots=[0.5]",
    "settings.0.num_queries=300",
    "settings.0.num_items=24",
    "settings.0.tokens=20000",
    "settings.0.few_tokens=12000",
    "settings.0.copy_tokens=8000",
    "settings.0.teacher_queries=40",
    "runtime.checkpoint_s=0.2",
]


def _recipe(folder: Path, *changes: str, name: str = "quickstart.toml"):
    file = read_recipe(write_example(folder, name), [*TINY, *changes])
    kind = RECIPES[file.recipe]
    return kind.build(file.config(kind.config_type), file.name)


def _command(folder: Path, *changes: str) -> list[str]:
    options = [part for change in (*TINY, *changes) for part in ("--set", change)]
    path = str(write_example(folder, "quickstart.toml"))
    return [sys.executable, "-m", "spyhop", "run", path, "--out", str(folder), *options]


def _digests(folder: Path) -> dict[str, str]:
    """Digest of every artifact but the report, which holds seconds."""
    found = [load(path) for path in folder.glob("*.*-*")]
    return {
        each.path.name: each.digest for each in found if each and "report." not in each.path.name
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("finished")
    subprocess.run(_command(folder), check=True, capture_output=True, timeout=200)
    return folder


@pytest.mark.parametrize("name", ["quickstart.toml", "thorough.toml", *BEYOND])
def test_shipped_recipes_plan_without_running(tmp_path: Path, name: str):
    file = read_recipe(write_example(tmp_path, name))
    kind = RECIPES[file.recipe]
    recipe = kind.build(file.config(kind.config_type), file.name)
    assert resolve(recipe, tmp_path).made == {}
    assert recipe.steps[-1].name == "report"
    assert not list(tmp_path.glob("*.*-*"))


@pytest.mark.parametrize("name", BEYOND)
def test_arms_of_several_answers_differ_in_their_rows_alone(tmp_path: Path, name: str):
    """Equal tokens everywhere; an arm of equal dollars asks its teacher as often as one of one."""
    file = read_recipe(write_example(tmp_path, name))
    kind = RECIPES[file.recipe]
    config = file.config(kind.config_type)
    recipe = kind.build(config, file.name)
    asked = {line.step.name: line.estimate.rows for line in plan(resolve(recipe, tmp_path))}
    for setting in config.settings:
        students = [recipe.step(f"{setting.name}.{arm}.0") for arm in setting.arms]
        if setting.name == "teacher-model":
            teacher, own, *imitating = students
            assert own.inputs["teacher"] is teacher and own.config.objective.top_k
            for num, student in zip((3, 1), imitating, strict=True):
                assert student.inputs["base"] is own.inputs["base"]
                answered = recipe.step(f"{student.name.removesuffix('.0')}.answers.0")
                assert answered.inputs["teacher"].folder is teacher
                assert asked[answered.name] == setting.num_queries // num
            assert own.inputs["answers"].keys() == {"divergence"}
            continue
        assert len({student.config.model_dump_json() for student in students}) == 1
        if setting.name == "on-policy":
            assert {student.inputs["base"].name for student in students} == {"on-policy.warm.0"}
            corrected = recipe.step("on-policy.corrected.0")
            assert students[0].inputs["answers"] == {"on-policy": corrected}
            for arm, times in (("off-policy", 1), ("off-policy-3x", 3)):
                matched = recipe.step(f"on-policy.{arm}.rows.0")
                assert matched.inputs["like"] == corrected and matched.config.times == times
            continue
        for arm in setting.arms:
            num, keep, *usd = arm.split("-")
            picked = recipe.step(f"{setting.name}.{arm}.rows.0")
            assert picked.config.keep == keep
            sampled = picked.inputs["answers"]
            each = setting.num_queries // int(num) if usd else setting.num_queries
            assert asked[sampled.name] == each * int(num)
    if name == BEYOND[0]:
        trained = [step for step in recipe.steps if step.stage.name == "train.tune"]
        assert len([step for step in trained if not step.name.endswith(".base")]) <= 12


@pytest.mark.parametrize("arm", ["17-all", "0-all", "4-best", "4-all-eur", "most"])
def test_an_unknown_arm_is_refused_with_the_known_ones(tmp_path: Path, arm: str):
    with pytest.raises(RecipeError, match=r"is not an arm; known: base, .*N-KEEP.*shortest"):
        _recipe(tmp_path, f'settings.0.arms=["{arm}"]')


@pytest.mark.slow
def test_a_student_learns_from_the_probabilities_of_a_larger_budget(tmp_path: Path):
    """The arms of a teacher model, in miniature: figures and the teacher's tokens in the page."""
    arms = ["explanations", "divergence", "imitation", "imitation-3x"]
    changes = [f"settings.0.arms={json.dumps(arms)}", "settings.0.num_queries=30", "snapshots=[]"]
    subprocess.run(_command(tmp_path, *changes), check=True, capture_output=True, timeout=300)
    folder = tmp_path / "runs/quickstart"
    rows = json.loads((folder / "report/results.json").read_text())
    assert {row["arm"] for row in rows} == set(arms)
    counts = json.loads((folder / "core.divergence.0/record.json").read_text())["counts"]
    assert counts["rows/read"] == 10 and counts["asked/prompt_tokens"] == counts["tokens"]
    assert "own answers, scored by a teacher model" in (folder / "report/report.html").read_text()


@pytest.mark.slow
def test_results_name_every_arm_family_and_seed(finished: Path):
    rows = json.loads((finished / "runs/quickstart/report/results.json").read_text())
    assert {row["arm"] for row in rows} == {
        "explanations",
        "answers-tokens",
        "ta",
        "teacher",
        "progressive",
    }
    assert {row["family"] for row in rows} == {"all", "coin", "compass", "cups", "lift"}
    assert {row["seed"] for row in rows} == {"all", 0}
    for row in rows:
        assert row["n"] == (24 if row["family"] == "all" else 6)
        assert row["low"] <= row["accuracy"] <= row["high"]
        budget = 12_000 if row["arm"] in ("ta", "teacher", "progressive") else 20_000
        assert budget <= row["tokens"] <= budget + 512


@pytest.mark.slow
def test_a_second_run_makes_nothing(finished: Path):
    again = subprocess.run(_command(finished), check=True, capture_output=True, text=True)
    assert ": 0 steps run, " in again.stdout


@pytest.mark.slow
def test_an_edited_message_touches_only_what_reads_it(finished: Path):
    recipe = _recipe(finished, "messages.2.text=Explain each and every step.")
    resolved = resolve(recipe, finished)
    due = {step.name for step in recipe.steps if step.name not in resolved.made}
    assert not {name for name in due if "answers-tokens" in name or "bare" in name}
    assert {"core.explaining.0", "core.explanations.0", "core.ta.0", "report"} <= due
    assert {"core.base", "core.queries.0", "core.answered.0", "core.items"} <= set(resolved.made)
    reasons = why(resolved, recipe.step("core.explaining.0"))
    assert reasons == [
        "messages[2].text: 'Explain each step.' became 'Explain each and every step.'"
    ]
    assert "core.explaining.0 runs again" in why(resolved, recipe.step("core.explained.0"))


@pytest.mark.slow
def test_killed_at_random_and_run_again_gives_the_same_rows(finished: Path, tmp_path: Path):
    clock = random.Random(7)
    for _ in range(4):
        process = subprocess.Popen(
            _command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(clock.uniform(0.5, 9.0))
        os.kill(process.pid, signal.SIGKILL)  # its workers must notice by themselves
        process.wait()
    subprocess.run(_command(tmp_path), check=True, capture_output=True, timeout=200)
    assert _digests(tmp_path) == _digests(finished)
    partial = [path for path in (tmp_path / ".partial").glob("*-*") if path.is_dir()]
    assert partial == []
