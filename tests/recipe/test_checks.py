"""Checks and warnings before anything is paid."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

import toys
from spyhop.augment import AnswerConfig, answer
from spyhop.curate import RateConfig, rate
from spyhop.models import Local, Sampling
from spyhop.models.capabilities import save
from spyhop.models.endpoint import Remote
from spyhop.models.service import Endpoint, Service
from spyhop.recipe import Recipe, Source, Use, resolve, run
from spyhop.recipe.plan import check_extras, check_models, check_samples, plan, warnings
from spyhop.runtime import Runtime
from spyhop.schema import ModelError, NotInstalled, Pair, Prompt, RecipeError
from spyhop.stage import stage
from spyhop.store import Artifact
from spyhop.train import TuneConfig, tune


@stage(version=1, writes=Prompt, plan=lambda config: toys.Estimate(rows=config.num_rows))
def asked(ctx: Any, config: toys.Numbers) -> Any:
    return iter(())


def _served(name: str, port: int = 9, **changes: Any) -> Use:
    endpoint = Endpoint(
        url=f"http://127.0.0.1:{port}/v1", usd_per_million_prompt=1.0, usd_per_million_response=2.0,
        **{key: changes.pop(key) for key in ("key_env",) if key in changes},
    )  # fmt: skip
    omit = changes.pop("omit", ())
    return Use(Remote(model=name, omit=omit), service=Service(endpoints=[endpoint], **changes))


def _recipe(*models: Use, num: int = 1000, **config: Any) -> Recipe:
    r = Recipe("r")
    prompts = r.add("prompts", asked, toys.Numbers(num_rows=num))
    for number, use in enumerate(models):
        r.add(f"a{number}", answer, AnswerConfig(**config), prompts=prompts, teacher=use)
    return r


@pytest.mark.parametrize("library", ["torch", "transformers"])
def test_a_missing_extra_is_named_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    weights = Use(Local(), folder=Source(tmp_path / "m"))
    served, local = (resolve(_recipe(use), tmp_path / "out") for use in (_served("m"), weights))
    for resolved in (served, local):
        check_extras(resolved)
    monkeypatch.setitem(sys.modules, library, None)
    check_extras(served)
    text = f"step a0 needs {library}: pip install 'spyhop[local]'"
    with pytest.raises(NotInstalled, match=re.escape(f"nothing was run yet; {text}")):
        run(local, Runtime())
    assert text in warnings(plan(local))
    assert not list((tmp_path / "out").glob("*.*-*"))
    local.made["a0"] = local.made["prompts"] = Artifact(tmp_path, None)  # finished: not needed
    check_extras(local)


@pytest.mark.parametrize(
    ("budget", "text"),
    [(0.01, "is below the expected cost"), (0.7, "not the highest cost of"), (9.0, "")],
)
def test_budgets_below_the_cost_are_told(tmp_path: Path, budget: float, text: str):
    resolved = resolve(_recipe(_served("m", budget_usd=budget)), tmp_path)
    found = list(warnings(plan(resolved)))
    assert (len(found) == 1 and text in found[0]) if text else found == []


def test_every_served_model_is_checked_before_the_first_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    both = [_served("one"), _served("two", key_env="NO_SUCH_KEY")]
    with pytest.raises(ModelError, match=r"nothing was sent.*one: connection.*two: key: .*NO_SUCH"):
        check_models(resolve(_recipe(*both), tmp_path))
    check_models(resolve(_recipe(both[0]), tmp_path))  # its own first request tells


def test_equal_samples_are_refused_where_temperature_0_is_sent(tmp_path: Path):
    with pytest.raises(RecipeError, match="a0: num_samples = 3 at temperature 0"):
        check_samples(_recipe(_served("m"), num_samples=3))
    check_samples(_recipe(_served("m", omit=("temperature",)), num_samples=3))
    for temperature in (0.7, "unset"):
        sampling = Sampling(temperature=temperature)
        check_samples(_recipe(_served("m"), num_samples=3, sampling=sampling))


def test_local_generation_has_hours(tmp_path: Path, tiny_folder: Path):
    hours = [
        next(line.hours for line in plan(resolve(recipe, tmp_path)) if line.step.name == "a0")
        for recipe in (_recipe(Use(Local(), Source(tiny_folder)), num=n) for n in (1000, 2000))
    ]
    assert 0 < hours[0] < hours[1]


def test_trainings_too_short_to_learn_are_told(tmp_path: Path, tiny_folder: Path):
    r = _recipe(_served("m"), num=50)
    config = TuneConfig(epochs=1, batch_tokens=8192)
    r.add("student", tune, config, base=Source(tiny_folder), answers={"teacher": r.step("a0")})
    (found,) = warnings(plan(resolve(r, tmp_path)))
    assert found.startswith("student: ") and "training steps are too few" in found


@pytest.mark.parametrize(
    ("name", "has", "per_pair"),
    [("log-probabilities", True, 2), ("log-probabilities", False, 6), ("prefill", False, 6),
     ("n", False, 2), ("prefill", None, 2)],
)  # fmt: skip
def test_the_plan_knows_what_doctor_saw_of_a_judge(tmp_path: Path, name, has, per_pair: int):
    judge = _served("judge")
    save(tmp_path, judge.config.model, judge.service.endpoints[0], {name: (has, "seen")})
    r = Recipe("r")
    pairs = r.add("pairs", pairs_of, toys.Numbers(num_rows=100))
    r.add("rated", rate, RateConfig(num_repeated=0), pairs=pairs, judge=judge)
    line = next(line for line in plan(resolve(r, tmp_path)) if line.step.name == "rated")
    assert line.estimate.calls["judge"].requests == 100 * per_pair


@stage(version=1, writes=Pair, plan=lambda config: toys.Estimate(rows=config.num_rows))
def pairs_of(ctx: Any, config: toys.Numbers) -> Any:
    return iter(())
