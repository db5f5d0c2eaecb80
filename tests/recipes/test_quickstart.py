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
from spyhop.recipes.quickstart_config import QuickstartConfig
from spyhop.schema import Answer, Preference, RecipeError
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
        check = CHECKS.get(setting.name, _check_several)
        check(recipe, setting, asked)
        assert setting.student == config.settings[0].student  # inherited
    assert len(config.settings) == 5 + (name != BEYOND[0])
    if name == BEYOND[0]:
        assert sum(len(setting.arms) for setting in config.settings) <= 12


def test_a_setting_inherits_no_name(tmp_path: Path):
    path = write_example(tmp_path, BEYOND[0])
    path.write_text(path.read_text().replace('name = "misconceptions"\n', ""))
    with pytest.raises(RecipeError, match=r"settings\.1\.name is missing"):
        read_recipe(path).config(QuickstartConfig)


def _check_several(recipe, setting, asked):
    students = [recipe.step(f"{setting.name}.{arm}.0") for arm in setting.arms]
    assert len({student.config.model_dump_json() for student in students}) == 1
    for arm in setting.arms:
        num, keep, *usd = arm.split("-")
        picked = recipe.step(f"{setting.name}.{arm}.rows.0")
        assert picked.config.keep == keep
        sampled = picked.inputs["answers"]
        each = setting.num_queries // int(num) if usd else setting.num_queries
        assert asked[sampled.name] == each * int(num)


def _check_on_policy(recipe, setting, asked):
    students = [recipe.step(f"on-policy.{arm}.0") for arm in setting.arms]
    assert {student.inputs["base"].name for student in students} == {"on-policy.warm.0"}
    corrected = recipe.step("on-policy.corrected.0")
    assert students[0].inputs["answers"] == {"on-policy": corrected}
    for arm in setting.arms[1:]:
        matched = recipe.step(f"on-policy.{arm}.rows.0")
        assert matched.inputs["like"] == corrected
        assert matched.config.times == (3 if arm.endswith("3x") else 1)


def _check_teacher_model(recipe, setting, asked):
    teacher, own, *imitating = [recipe.step(f"{setting.name}.{arm}.0") for arm in setting.arms]
    assert own.inputs["teacher"] is teacher and own.config.objective.top_k
    for num, student in zip((3, 1), imitating, strict=True):
        assert student.inputs["base"] is own.inputs["base"]
        answered = recipe.step(f"{student.name.removesuffix('.0')}.answers.0")
        assert answered.inputs["teacher"].folder is teacher
        assert asked[answered.name] == setting.num_queries // num
    assert own.inputs["answers"].keys() == {"divergence"}


def _check_pairs(recipe, setting, asked):
    """DPO and its control: one start, equal tokens, the same paid answers."""
    pairs, chosen = recipe.step("pairs.pairs.0"), recipe.step("pairs.chosen.0")
    assert pairs.inputs["base"] is chosen.inputs["base"] is recipe.step("pairs.warm.0")
    assert pairs.config.tokens == chosen.config.tokens and chosen.config.objective is None
    paired = recipe.step("pairs.paired.0")
    assert pairs.inputs["answers"] == {"pairs": paired}
    kept = recipe.step("pairs.chosen.rows.0").inputs
    assert kept["pairs"] is paired and paired.inputs["chosen"] == {"answers": kept["answers"]}
    assert asked[kept["answers"].name] == 4 * setting.num_queries


def _check_round(recipe, setting, asked):
    """A round's student and its control: one base, equal tokens, equally many queries."""
    students = [recipe.step(f"rounds.{arm}.0") for arm in setting.arms]
    assert len({student.config.model_dump_json() for student in students}) == 1
    assert {student.inputs["base"].name for student in students} == {"rounds.base"}
    drawn = [recipe.step(f"rounds.0.round-1{end}.drawn") for end in ("", "-random")]
    assert "answers" in drawn[0].inputs and "answers" not in drawn[1].inputs
    assert [asked[each.name] for each in drawn] == [setting.teacher_queries] * 2


CHECKS = {
    "on-policy": _check_on_policy,
    "teacher-model": _check_teacher_model,
    "pairs": _check_pairs,
    "rounds": _check_round,
}


@pytest.mark.parametrize(
    ("arms", "needed"), [(["failures", "first"], "first"), (["divergence"], "explanations")]
)
def test_an_arm_comes_after_the_one_it_begins_from(tmp_path: Path, arms: list[str], needed: str):
    with pytest.raises(RecipeError, match=f"needs the arm '{needed}' before it"):
        _recipe(tmp_path, f"settings.0.arms={json.dumps(arms)}")


@pytest.mark.parametrize("arm", ["failures", "at-random"])
def test_a_round_without_its_control_is_on_the_page_with_it(tmp_path: Path, arm: str):
    recipe = _recipe(tmp_path, f"settings.0.arms={json.dumps(['first', arm])}")
    shown = recipe.step("report").config
    assert {run.arm for run in shown.runs.values()} == {"first", "failures", "at-random"}
    assert {run.arm for run in shown.runs.values()} <= shown.arm_titles.keys()
    assert ("at-random", "failures") in [(each.first, each.second) for each in shown.comparisons]


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
def test_a_round_and_pairs_are_compared_with_their_controls(tmp_path: Path):
    """In miniature: who read what, and a page with the round's draws and the pairs' metrics."""
    arms = ["start", "pairs", "chosen", "first", "failures", "at-random"]
    changes = [f"settings.0.arms={json.dumps(arms)}", 'settings.0.teacher="slips"']
    changes += ["settings.0.teacher_queries=20", "settings.0.num_queries=100", "snapshots=[]"]
    subprocess.run(_command(tmp_path, *changes), check=True, capture_output=True, timeout=300)
    folder = tmp_path / "runs/quickstart"
    rows = {
        name: list(load((folder / name).resolve()).rows(kind))
        for name, kind in (
            ("core.paired.0", Preference),
            ("core.chosen.rows.0", Answer),
            ("core.taught.0", Answer),
            ("core.0.round-1.rows", Answer),
            ("core.0.round-1-random.rows", Answer),
        )
    }
    assert [row.messages[-1].content for row in rows["core.chosen.rows.0"]] == [
        pair.chosen for pair in rows["core.paired.0"]
    ]
    first = {row.query_id for row in rows["core.taught.0"]}
    for end in ("", "-random"):
        taught = {row.query_id for row in rows[f"core.0.round-1{end}.rows"]}
        assert len(taught) == 40 and first < taught
    results = json.loads((folder / "report/results.json").read_text())
    assert {row["arm"] for row in results} == set(arms)
    page = (folder / "report/report.html").read_text()
    for text in (
        "points over the control", "drawn at random", "rejected_gain", "chosen_tokens",
        "about half as many right answers", "the right answers of these pairs",
    ):  # fmt: skip
        assert text in page, text


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
