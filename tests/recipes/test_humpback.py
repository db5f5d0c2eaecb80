"""Humpback's rounds: planned at the paper's scale, run on generated pages with tiny students."""

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from server import KEY, Call, Server
from spyhop.recipe import resolve, run
from spyhop.recipe.load import read_recipe
from spyhop.recipe.plan import PlannedStep, plan
from spyhop.recipe.promote import read_promotion
from spyhop.recipe.why import why
from spyhop.recipes import RECIPES
from spyhop.recipes.humpback import humpback
from spyhop.recipes.humpback_config import HumpbackConfig, paper_points
from spyhop.schema import Pair, TrainingError
from spyhop.stage import Runtime

EXAMPLES = Path(__file__).parents[2] / "examples"
WORDS = tuple("flour water yeast bowl oven stone towel crust rye salt spoon".split())  # noqa: SIM905


class Seen:
    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, event) -> None:
        if event.kind == "step_ended" and not event.is_reused:
            self.made.append(event.step)


def _pages(folder: Path, num: int) -> Path:
    """Pages of one section each that have few words in a row in common."""
    folder.mkdir()
    draw = random.Random(0)
    for n in range(num):
        said = [
            f"Put the {a} near the {b}, then wait for the {c} to become {n} times as warm. "
            for a, b, c in (draw.sample(WORDS, 3) for _ in range(10))
        ]
        body = "".join(f"<p>{text}</p>" for text in said)
        (folder / f"{n}.html").write_text(
            f"<html><head><title>Bread {n}</title></head><body><main><h1>Bread {n}</h1>{body}"
            "</main></body></html>"
        )
    return folder


def _settings(folder: Path, words: Any = None, **changes: Any) -> dict[str, Any]:
    if not (folder / "seeds.jsonl").exists():
        rows = [
            {"instruction": f"Bake {n}?", "response": f"Warm the oven {n} times."}
            for n in range(40)
        ]
        (folder / "seeds.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        _pages(folder / "pages", 30)
        (folder / "words").mkdir()
        if words is not None:
            words.save_pretrained(folder / "words")
    new = {
        "format": "turns", "hidden_size": 32, "intermediate_size": 64, "num_layers": 1,
        "num_heads": 2,
    }  # fmt: skip
    settings = {
        "seeds": [{"path": folder / "seeds.jsonl", "read": {"kind": "pairs"}}],
        "held_out_every_nth": 4,
        "promote_by": "held_out",
        "pages": {"inputs": [folder / "pages"], "near": {"threshold": 0.95}},
        "student": {"tokenizer": folder / "words", "new": new},
        "train": {
            "tokens": 12_000,
            "batch_tokens": 512,
            "max_tokens": 2000,
            "optimizer": {
                "learning_rate": 0.01, "muon_learning_rate": 0.02, "warmup_steps": 2,
            },
        },
        "backtranslate": {
            "filters": {"min_chars": 1},
            "sampling": {"temperature": 0.7, "max_new_tokens": 40},
        },
        "rate": {"by": "likelihood"},
        "keep": {"min_score": 4.0},
    }  # fmt: skip
    return {**settings, **changes}


def _recipe(folder: Path, words: Any = None, **changes: Any):
    return humpback(HumpbackConfig.model_validate(_settings(folder, words, **changes)))


def _plan(path: Path, root: Path, *changes: str) -> list[PlannedStep]:
    file = read_recipe(path, changes)
    kind = RECIPES[file.recipe]
    return plan(resolve(kind.build(file.config(kind.config_type), file.name), root))


def _examples(folder: Path, base: Path) -> None:
    """Copy the examples; a tiny model has the place of the paper's, local data sets are empty."""
    shutil.copytree(EXAMPLES, folder, dirs_exist_ok=True)
    for name in ("llama-7b", "llama-65b"):
        shutil.copytree(base, folder / "models" / name)
    for name in ("data/bbh/bbh", "data/agieval/v1"):
        (folder / name).mkdir(parents=True)
        (folder / name / "empty.json").write_text("{}")
    (folder / "data/lima").mkdir()
    (folder / "data/lima/train.jsonl").write_text("{}\n" * 1030)


def test_the_papers_steps_give_these_passes_over_the_data():
    """Table 18 of version 3; only from 12,800 rows on is less than twice read."""
    passes = {
        each.num_rows: each.batch_rows * each.steps / each.num_rows for each in paper_points()
    }
    assert passes == {100: 2.4, 800: 3, 1600: 3, 3200: 5, 6400: 3, 12_800: 1.5, 25_600: 1.5,
                      51_200: 1}  # fmt: skip
    assert {each.batch_rows for each in paper_points() if each.num_rows < 3000} == {8}


def test_the_papers_scale_is_planned_without_its_data(tmp_path: Path, tiny_folder: Path):
    _examples(tmp_path, tiny_folder)
    lines = {line.step.name: line for line in _plan(tmp_path / "humpback.toml", tmp_path / "out")}
    assert lines["seeds-1"].estimate.rows == 3200
    assert lines["augmented"].estimate.rows == 502_133
    assert lines["augmented"].estimate.calls["model"].requests == 502_133
    assert lines["rated-1"].estimate.rows == lines["rated-2"].estimate.rows == 502_133
    assert lines["rated-1"].waits_for == () and lines["rated-2"].waits_for == ("promoted-1",)
    assert lines["m2"].waits_for == ("promoted-1",)


def test_every_ablation_is_planned(tmp_path: Path, tiny_folder: Path):
    _examples(tmp_path, tiny_folder)
    every = 'ablate=["quality", "sources", "messages", "scaling"]'
    lines = {line.step.name for line in _plan(tmp_path / "humpback.toml", tmp_path / "out", every)}
    assert {"65b.a5-25600", "main.no-curation-3200", "sources.curated.student", "untagged"} <= lines
    assert {"scaling.flan-25600.0.student", "scaling.own-25600.0.student"} <= lines


def test_what_cannot_be_compared_is_refused(tmp_path: Path):
    with pytest.raises(ValidationError, match="promote_by = 'accuracy' has nothing to compare by"):
        _recipe(tmp_path, promote_by="accuracy")
    with pytest.raises(ValidationError, match="the ablation scaling needs data sets"):
        _recipe(tmp_path, ablate=["scaling"])


def test_a_fixed_judge_makes_one_round(tmp_path: Path):
    """The second would have the same inputs step by step, whatever was promoted."""
    rating = {"by": "likelihood", "file": tmp_path / "judge"}
    with pytest.raises(ValidationError, match=r"judge of all 2 rounds.*set rounds = 1"):
        _recipe(tmp_path, rate=rating)
    HumpbackConfig.model_validate(_settings(tmp_path, rate=rating, rounds=1))


def test_ratings_that_cannot_pass_are_not_asked_for(tmp_path: Path):
    with pytest.raises(ValidationError, match=r"rate\.judge\.num_repeated = 9 is below"):
        _recipe(tmp_path, rate={"judge": {"num_repeated": 9}})
    r = _recipe(tmp_path, rate={"by": "judge"})
    names = [step.name for step in r.steps]
    assert r.step("enough").inputs["pairs"] is r.step("augmented")
    assert names.index("enough") < names.index("m0.rows") < names.index("rated-1")
    free = _recipe(tmp_path, rate={"by": "judge"}, keep={"min_score": 4, "gate": "report"})
    assert "enough" not in {step.name for step in free.steps}


def test_the_gate_has_the_threshold_of_what_is_kept(tmp_path: Path):
    assert _recipe(tmp_path, keep={"min_score": 4.5}).step("gate-2").config.selected_from == 4.5
    assert _recipe(tmp_path, keep={"num_rows": 9}).step("gate-2").config.selected_from == 4
    own = _recipe(tmp_path, keep={"min_score": 4.5}, gate={"good_score": 3})
    assert own.step("gate-1").config.selected_from == 3


def test_rounds_rate_with_the_best_student_and_train_from_the_base(tmp_path: Path):
    r = _recipe(tmp_path, rounds=3)
    for n in (1, 2, 3):
        assert r.step(f"m{n}").inputs["base"] is r.step("base")
        pairs = {"seeds": r.step("seeds"), "curated": r.step(f"kept-{n}")}
        assert r.step(f"m{n}.rows").inputs["pairs"] == pairs
        assert r.step(f"rated-{n}").inputs["pairs"] is r.step("augmented")
    assert r.step("rated-1").inputs["model"].folder is r.step("m0")
    third = r.step("rated-3").inputs["model"].folder
    assert third.by is r.step("promoted-2") and third.after is r.step("m2")
    assert third.before.by is r.step("promoted-1") and third.before.before is r.step("m0")


def test_students_are_asked_under_both_tags(tmp_path: Path):
    r = _recipe(tmp_path, forward={"seed_message": "As an assistant.", "web_message": "As a page."})
    assert r.step("held-out-m1").config.system_message == "As an assistant. As a page."
    assert r.step("rated-1").config.system_message == "As an assistant."


def test_labels_are_held_against_every_round(tmp_path: Path):
    (tmp_path / "labels.jsonl").write_text('{"id": "x", "good": true}')
    read = {"good_score": 4.5}
    r = _recipe(tmp_path, labels=tmp_path / "labels.jsonl", read_labels=read)
    assert r.step("labels").config.good_score == 4.5
    assert r.step("labels").inputs["pairs"] is r.step("augmented")
    for n in (1, 2):
        assert r.step(f"gate-{n}").inputs["labels"] is r.step("labels")
    assert "labels" not in _recipe(tmp_path).step("gate-1").inputs


@pytest.mark.slow
def test_pages_and_seeds_to_two_rounds_and_every_table(tmp_path: Path, words: Any):
    every = {
        "ablate": ["quality", "sources", "messages", "scaling"],
        "points": [{"num_rows": n, "batch_rows": 4, "steps": 3} for n in (2, 4, 5, 500)],
        "row_tokens": 100,
        "quality_rows": (4, 500),
        "scaling": [{"name": "own", "own": True, "max_rows": 5}],
        "promote": {"rule": "better"},
    }
    settings = _settings(tmp_path, words)
    wide = {**settings["student"], "new": {**settings["student"]["new"], "hidden_size": 64}}
    r = _recipe(tmp_path, words, **every, students={"wide": wide})
    seen = Seen()
    made = run(resolve(r, tmp_path / "out"), Runtime(), seen)
    assert made["held-out"].num_rows + made["seeds"].num_rows == 40
    assert made["augmented"].num_rows > 20
    scores = [row.rating.score for row in made["rated-1"].rows(Pair)]
    assert {*scores} == {1, 2, 3, 4, 5}
    assert made["kept-1"].num_rows == sum(score >= 4 for score in scores)
    if read_promotion(made["promoted-1"]).chosen == "before":
        assert made["m2"].key == made["m1"].key and "m2" not in seen.made
    else:
        assert made["m2"].key != made["m1"].key
    html = (made["report"].path / "report.html").read_text()
    for title in (
        "Rounds", "Can the ratings be trusted?", "The data", "What the instructions ask for",
        "Quality against quantity", "Seeds, web pairs, both", "System messages",
        "What a data set gains by growing", "Pairs by score", "From pages to segments",
    ):  # fmt: skip
        assert title in html
    results = json.loads((made["report"].path / "results.json").read_text())
    lines = results["students"]
    quality = [line for line in lines if line["table"] == "quality"]
    assert {(line["student"], line["kind"]) for line in quality} == {
        (size, kind) for size in ("main", "wide") for kind in ("no curation", "A4", "A5")
    }
    assert {line["num_rows"] for line in quality if line["kind"] == "A4"} == {
        4, 5, made["kept-2"].num_rows
    }  # fmt: skip
    assert "all there are; the point is 500" in html
    (alpha,) = [line for line in lines if line["table"] == "alpha"]
    assert alpha["low"] <= alpha["value"] <= alpha["high"]
    assert [each["name"] for each in results["data"]][-1] == "all augmented"
    best = "m2" if read_promotion(made["promoted-2"]).chosen == "after" else "m1"
    best = best if read_promotion(made["promoted-1"]).chosen == "after" or best == "m2" else "m0"
    given = AutoModelForCausalLM.from_pretrained(made["model"].path).state_dict()
    trained = AutoModelForCausalLM.from_pretrained(made[best].path).state_dict()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in given.items())
    lines = (made["dataset"].path / "train.jsonl").read_text().splitlines()
    assert len(lines) == made[f"{best}.rows"].num_rows
    again = Seen()
    run(resolve(r, tmp_path / "out"), Runtime(), again)
    assert again.made == []


@pytest.mark.slow
def test_a_gate_that_does_not_pass_ends_the_run(tmp_path: Path, words: Any):
    """A judge that cannot be read: nothing is trained on what it rated."""
    asked = {
        "by": "judge",
        "judge": {
            "method": "verdict", "sampling": {"max_new_tokens": 8, "temperature": 0.7},
        },
    }  # fmt: skip
    r = _recipe(tmp_path, words, rate=asked, gate={"min_repeated": 0})
    with pytest.raises(TrainingError, match=r"kept-1: .*have a score"):
        run(resolve(r, tmp_path / "out"), Runtime())
    resolved = resolve(r, tmp_path / "out")
    assert why(resolved, r.step("gate-1")) == []
    assert why(resolved, r.step("rated-2")) == ["waiting for promoted-1 to be decided"]


def _verdict(call: Call) -> str:
    """Like what is warm every fifth time; speak of it first."""
    warm = int(re.findall(r"become (\d+) times", call.text)[0])
    return f"It is {warm} times as warm.\nScore: {warm % 5 + 1}"


@pytest.mark.slow
def test_a_served_judge_behind_the_gate(
    tmp_path: Path, words: Any, monkeypatch: pytest.MonkeyPatch
):
    """Ratings that repeat pass the gate, and the pairs of the upper scores are trained on."""
    monkeypatch.setenv("TOY_KEY", KEY)
    with Server(answer=_verdict) as server:
        endpoint = f'model = "teacher"\n[[endpoints]]\nurl = "{server.url}"\nkey_env = "TOY_KEY"\n'
        (tmp_path / "judge.toml").write_text(endpoint)
        rating = {
            "by": "judge",
            "file": tmp_path / "judge.toml",
            "judge": {"method": "verdict", "num_repeated": 15},
        }
        r = _recipe(
            tmp_path,
            words,
            rate=rating,
            rounds=1,
            keep={"min_score": 4.5},
            gate={"min_repeated": 10},
            promote={"rule": "always"},
        )
        made = run(resolve(r, tmp_path / "out"), Runtime())
    kept = list(made["kept-1"].rows(Pair))
    warm = [int(re.findall(r"become (\d+) times", row.response)[0]) for row in kept]
    assert kept and {n % 5 for n in warm} == {4}
    assert read_promotion(made["promoted-1"]).chosen == "after"
    results = json.loads((made["report"].path / "results.json").read_text())
    found = {each["id"]: each for each in results["gates"][0]}
    assert found["repeatability"]["value"] == 1 and found["repeatability"]["is_passed"]
    assert found["parse_rate"]["value"] == 1
    assert "times as warm" in (made["report"].path / "report.html").read_text()
