"""Rows of your own to a model that other tools load."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from spyhop.models.local import saved_format
from spyhop.recipe import resolve, run
from spyhop.recipe.load import read_recipe
from spyhop.recipes.training import MODEL, TrainingConfig, training
from spyhop.render import Renderer
from spyhop.schema import Message, RecipeError
from spyhop.settings import validated
from spyhop.stage import Runtime
from spyhop.store import Artifact
from spyhop.train import DPOConfig, OptimizerConfig, TuneConfig, read_metrics
from spyhop.train.probe import Probed

ROWS = [
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"Say {n}."},
            {"role": "assistant", "content": f"{n}{n}"},
        ],
        "licence": "cc0-1.0",
        "model": "teacher-1",
    }
    for n in range(24)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("training")
    shutil.copytree(tiny_folder, folder / "base")
    (folder / "base" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    (folder / "base" / "LICENSE").write_text("Be kind.")
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return folder


def _config(place: Path, **changes: Any) -> TrainingConfig:
    values = {
        "rows": (place / "rows.jsonl",),
        "base": place / "base",
        "train": {"epochs": 2.0, "batch_tokens": 300, "max_tokens": 90},
        "probe": {"num_prompts": 3, "max_new_tokens": 8},
        **changes,
    }
    return TrainingConfig.model_validate(values)


@pytest.fixture(scope="module")
def made(place: Path) -> dict[str, Artifact]:
    resolved = resolve(training(_config(place)), place / "out")
    return run(resolved, Runtime(device="cpu"))


def test_transformers_loads_the_model_and_its_template_gives_our_ids(made: dict[str, Artifact]):
    folder = made[MODEL].path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    trained = AutoModelForCausalLM.from_pretrained(made["student"].path)
    for one, other in zip(model.parameters(), trained.parameters(), strict=True):
        assert torch.equal(one, other)
    renderer = Renderer(tokenizer, saved_format(folder, tokenizer))
    for row in ROWS[:3]:
        for turns in (row["messages"], row["messages"][1:]):
            messages = [Message.model_validate(turn) for turn in turns]
            (encoded,) = renderer.encode([messages])
            (prompt,) = renderer.encode_prompts([messages[:-1]])
            assert tokenizer.apply_chat_template(turns)["input_ids"] == encoded.ids.tolist()
            asked = tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True)
            assert asked["input_ids"] == prompt


def test_a_server_finds_what_it_needs(made: dict[str, Artifact]):
    folder = made[MODEL].path
    config = json.loads((folder / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert config["architectures"] == ["LlamaForCausalLM"] and config["model_type"] == "llama"
    assert config["vocab_size"] >= len(tokenizer)
    generation = GenerationConfig.from_pretrained(folder)
    assert generation.eos_token_id == tokenizer.eos_token_id
    assert generation.pad_token_id == tokenizer.pad_token_id
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        ROWS[0]["messages"][:-1], add_generation_prompt=True, return_tensors="pt"
    )
    assert model.generate(**prompt, max_new_tokens=3).shape[1] > prompt["input_ids"].shape[1]
    assert not list(folder.glob("metrics*")) and (folder / "LICENSE").read_text() == "Be kind."


def test_the_training_itself_is_not_changed_by_its_release(made: dict[str, Artifact]):
    student = made["student"]
    assert not (student.path / "README.md").exists()
    again = json.loads((student.path / "record.json").read_text())["digest"]
    from spyhop.store.artifact import digest_of, digests

    assert digest_of(digests(student.path)) == again


def test_the_card_tells_terms_use_and_limits(made: dict[str, Artifact]):
    card = (made[MODEL].path / "README.md").read_text()
    assert "license: other\n" in card  # two licences
    assert "- **Base**: base, licence apache-2.0." in card
    assert "- **Data**: cc0-1.0 (24 rows)." in card
    assert "- **Who answered**: teacher-1 (24 rows). Not stated." in card
    assert f"Recipe key: `{made['student'].record.stage}-{made['student'].key}`" in card
    for heading in ("Intended use", "Limitations", "Scores", "Training"):
        assert f"## {heading}\n" in card
    assert "responses ended by themselves" in card and "of 3, unasked in" in card


def test_the_probe_asks_under_messages_that_no_row_has(made: dict[str, Artifact]):
    rows = list(made["probe"].rows(Probed))
    counts = made["probe"].record.counts
    assert len(rows) == 3 * 6 and counts["prompts"] == 3
    assert counts.get("stopped", 0) + counts.get("cut", 0) == 18
    assert {row.messages[-1].content for row in rows} <= {f"Say {n}." for n in range(24)}


def test_the_report_holds_probe_loss_and_mask(made: dict[str, Artifact]):
    page = (made["report"].path / "report.html").read_text()
    for text in ("Probe", "ended by themselves", "capitals", "Training loss", "are supervised"):
        assert text in page


def test_trainings_follow_each_other(place: Path, tmp_path: Path):
    one = place / "rows.jsonl"
    config = _config(
        place, probe=None, then=[{"rows": [one]}, {"rows": [one, one], "train": {"tokens": 500}}]
    )
    recipe = training(config)
    names = [step.name for step in recipe.steps]
    assert names == [
        "rows-1", "student.1", "rows-2", "student.2", "rows-3", "rows-4", "student", "model",
        "report",
    ]  # fmt: skip
    assert recipe.step("student.2").inputs["base"] is recipe.step("student.1")
    assert recipe.step("student.2").config == recipe.step("student.1").config
    wanted = config.train.model_copy(update={"tokens": 500, "epochs": None})
    assert recipe.step("student").config == wanted != TuneConfig(tokens=500)


def test_pairs_are_trained_on_after_their_chosen_responses(place: Path, tmp_path: Path):
    """SFT on the chosen responses, then DPO on the same file, against the first phase's model."""
    rows = [{"prompt": f"Say {n}.", "chosen": f"{n}{n}", "rejected": "no", "chosen_origin": "big"}
            for n in range(12)]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    pairs = tmp_path / "pairs.jsonl"
    then = [{"rows": [pairs], "train": {"epochs": 2, "objective": {"beta": 0.2}}}]
    config = _config(place, rows=[pairs], then=then, held_out=[pairs], probe=None)
    made = run(resolve(training(config), tmp_path / "out"), Runtime(device="cpu"))
    record, scores = made["student"].record, made["student.reference"]
    (before,) = record.inputs["base"]
    assert before.key == made["student.1"].key and scores.num_rows == 24  # held-out pairs, too
    found = read_metrics(made["student"])
    assert found["losses"][0] == pytest.approx(0.6931, abs=1e-3)
    assert found["held_out"][0][1] == pytest.approx(0.6931, abs=1e-3)
    assert record.counts["answered_by/big"] == 12 and len(found["metrics"]["margin"]) > 1
    card = (made[MODEL].path / "README.md").read_text()
    assert "direct preference optimisation" in card and "pairs 24" in card
    page = (made["report"].path / "report.html").read_text()
    assert "chosen_gain" in page and "rejected_tokens" in page
    with pytest.raises(ValueError, match=r"moderate reads answers"):
        _config(place, then=then, moderate=place / "base")


def test_a_further_training_says_what_changes(place: Path):
    first = {"epochs": 2, "optimizer": {"learning_rate": 1e-4, "weight_decay": 0.1}}
    change = {"optimizer": {"learning_rate": 1e-5}}
    config = _config(place, train=first, then=[{"rows": ["x"], "train": change}])
    assert config.then[0].train == TuneConfig(
        epochs=2, optimizer=OptimizerConfig(learning_rate=1e-5, weight_decay=0.1)
    )


@pytest.mark.parametrize(
    ("train", "epochs", "tokens"),
    [({"seed": 1}, 3.0, None), ({"tokens": 10}, None, 10), ({"epochs": 1}, 1.0, None)],
)
def test_a_training_without_a_budget_has_three_epochs(
    place: Path, train: dict[str, Any], epochs: float | None, tokens: int | None
):
    config = _config(place, train=train)
    assert (config.train.epochs, config.train.tokens) == (epochs, tokens)


def test_wrong_settings_are_one_line(place: Path):
    given = {"rows": [], "base": "base"}
    with pytest.raises(RecipeError, match=r"x\.toml: rows = \[\]: .*at least 1 item"):
        validated(Path("x.toml"), TrainingConfig, given, "", {})


def test_the_settings_that_the_docs_show_are_settings(tmp_path: Path):
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "mine.toml").write_text(f'recipe = "train"\nrows = ["a"]\nbase = "b"\n{text}')
    file = read_recipe(tmp_path / "mine.toml")
    config = file.config(TrainingConfig)
    assert isinstance(config, TrainingConfig) and config.train.adapter is not None
    assert config.then[0].rows == (tmp_path / "teacher.jsonl",)
    assert file.runtime_with({}).gpus == 8


def test_prompts_alone_are_enough_for_a_training_on_own_responses(place: Path, tmp_path: Path):
    rows = [{"prompt": f"Say {n}."} for n in range(8)] + ROWS[:4]
    (tmp_path / "prompts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    objective = {"divergence": "reverse", "max_new_tokens": 8}
    changes = {
        "rows": (tmp_path / "prompts.jsonl",), "teacher": place / "base",
        "train": {"epochs": 1.0, "batch_tokens": 300, "max_tokens": 90, "objective": objective},
    }  # fmt: skip
    made = run(resolve(training(_config(place, **changes)), tmp_path), Runtime(device="cpu"))
    assert set(read_metrics(made["student"])["losses"]) == {0.0}  # the teacher is the base
    assert made["student"].record.counts["rows/read"] == 12
    page = (made["report"].path / "report.html").read_text()
    assert (
        "log_ratio" in page
        and "a teacher's weights" in (made[MODEL].path / "README.md").read_text()
    )
    then = [{"rows": (tmp_path / "a",), "train": {"objective": {"beta": 0.3}}}]
    (phase,) = _config(place, **changes, then=then).then
    assert phase.train is not None and phase.train.objective == DPOConfig(beta=0.3)
    with pytest.raises(ValueError, match=r"teacher is for train\.objective"):
        _config(place, teacher=place / "base")
