import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
)

from spyhop.models.local import load, saved_format
from spyhop.render import Renderer
from spyhop.schema import Message, Score, TrainingError
from spyhop.stage import Runtime
from spyhop.store import Artifact, Source
from spyhop.store.artifact import digest_of, digests
from spyhop.train import TuneConfig, read_metrics, tune
from spyhop.train.delta import apply_delta, make_delta
from spyhop.train.release import CardConfig, Origin, ReleaseConfig, base_licence, card, release
from toys import answer_row, artifact_of, rows_artifact

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _neox(folder: Path, tokenizer: Any, **changes: Any) -> Path:
    torch.manual_seed(0)
    shape = GPTNeoXConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=128, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id, **changes,
    )  # fmt: skip
    GPTNeoXForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _made(root: Path, base: Path, config: CardConfig, **changes: Any) -> tuple[Artifact, Artifact]:
    rows = [answer_row(n, f"Ask {n}?", "So it is.") for n in range(8)]
    answers = {"teacher": artifact_of(root, rows)}
    start = Source(base).open(root)
    how = TuneConfig.model_validate(
        {"epochs": 1, "batch_tokens": 400, "max_tokens": 128, **changes}
    )
    here = Runtime(device="cpu")
    model = tune.run(root, how, runtime=here, base=start, answers=answers)
    given = ReleaseConfig(card=config)
    return model, release.run(root, given, model=model, base=start, answers=answers)


def test_a_base_of_another_class_with_an_added_token(tmp_path: Path, words_with_bos: Any):
    base = _neox(tmp_path / "base", words_with_bos)
    _, made = _made(tmp_path / "store", base, CardConfig())
    tokenizer = AutoTokenizer.from_pretrained(made.path)
    model = AutoModelForCausalLM.from_pretrained(made.path)
    assert type(model) is GPTNeoXForCausalLM and tokenizer.pad_token == "[[PAD]]"
    assert model.get_input_embeddings().num_embeddings == len(words_with_bos) + 1
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    (ours,) = Renderer(tokenizer, saved_format(made.path, tokenizer)).encode(
        [[Message.model_validate(turn) for turn in turns]]
    )
    assert tokenizer.apply_chat_template(turns)["input_ids"] == ours.ids.tolist()
    make_delta(base, made.path, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_template_of_a_base_and_what_ends_its_turns_stay(tmp_path: Path, words: Any):
    tokenizer = copy.deepcopy(words)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = CHATML
    base = _neox(tmp_path / "base", tokenizer)
    (base / "generation_config.json").write_text('{"eos_token_id": [1, 5], "temperature": 0.6}')
    _, made = _made(tmp_path / "store", base, CardConfig(), format="chat")
    again = AutoTokenizer.from_pretrained(made.path)
    assert again.chat_template == CHATML
    generation = json.loads((made.path / "generation_config.json").read_text())
    assert generation["eos_token_id"] == sorted({1, 5, again.eos_token_id})
    assert again.convert_tokens_to_ids("<|im_end|>") in generation["eos_token_id"]


def test_an_adapter_names_its_base_and_no_place_here(tmp_path: Path, words_with_bos: Any):
    base = _neox(tmp_path / "base", words_with_bos)
    adapter = {"rank": 2, "targets": ["query_key_value"]}
    _, made = _made(tmp_path / "store", base, CardConfig(base_name="org/name"), adapter=adapter)
    given = json.loads((made.path / "adapter" / "adapter_config.json").read_text())
    assert given["base_model_name_or_path"] == "org/name"
    assert (made.path / "adapter" / "adapter_model.safetensors").is_file()
    for path in made.path.rglob("*"):
        if path.suffix in (".json", ".md", ".jinja"):
            assert str(tmp_path) not in path.read_text(), path
    AutoModelForCausalLM.from_pretrained(made.path)


def test_a_model_with_fewer_rows_than_tokens_is_refused(tmp_path: Path, tiny_folder: Path):
    model, _ = _made(tmp_path / "store", tiny_folder, CardConfig())
    given = tmp_path / "model"
    shutil.copytree(model.path, given)
    config = json.loads((given / "config.json").read_text())
    (given / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    with pytest.raises(TrainingError, match="the tokenizer has 261 tokens, the model 100"):
        release.run(
            tmp_path / "other", ReleaseConfig(), model=Source(given).open(tmp_path),
            base=Source(tiny_folder).open(tmp_path), answers={},
        )  # fmt: skip


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_are_rounded_where_that_is_asked_for(tmp_path: Path, tiny_folder: Path, dtype: str):
    root = tmp_path / "store"
    model, _ = _made(root, tiny_folder, CardConfig())
    before = digest_of(digests(model.path))
    start = Source(tiny_folder).open(root)
    how = ReleaseConfig.model_validate({"dtype": dtype})
    made = release.run(root, how, model=model, base=start, answers={})
    kind = getattr(torch, dtype)
    given = AutoModelForCausalLM.from_pretrained(made.path)  # the type that the config names
    trained = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32)
    for one, other in zip(given.parameters(), trained.parameters(), strict=True):
        assert one.dtype == kind and torch.equal(one, other.to(kind))
    assert f"rounded to {dtype}" in (made.path / "README.md").read_text()
    assert digest_of(digests(model.path)) == before == model.digest


def _cards(root: Path, base: Path, **changes: Any) -> tuple[Artifact, str]:
    """Train on 40 rows of two teachers, and return the training and its card."""
    rows = [
        answer_row(n, f"Ask {n}?", "So it is.").model_copy(
            update={"model": "big" if n % 4 else "small", "licence": "mit" if n % 2 else ""}
        )
        for n in range(40)
    ]
    start, answers = Source(base).open(root), {"one": artifact_of(root, rows)}
    config = TuneConfig.model_validate({"batch_tokens": 120, "max_tokens": 128, **changes})
    model = tune.run(root, config, runtime=Runtime(device="cpu"), base=start, answers=answers)
    made = release.run(root, ReleaseConfig(), model=model, base=start, answers=answers)
    return model, (made.path / "README.md").read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": 300},
        {"epochs": 2.0},
        {"epochs": 9.0, "optimizer": {"learning_rate": 1.0},
         "held_out": {"frac": 0.2, "times": 40, "patience": 1}},
    ],
)  # fmt: skip
def test_the_card_states_what_was_read(tmp_path: Path, tiny_folder: Path, changes: Any):
    """A part of the rows; all of them twice; and a training that stops early."""
    model, text = _cards(tmp_path, tiny_folder, **changes)
    counts, metrics = model.record.counts, read_metrics(model)
    num = counts["rows/read"]
    assert num == 40 if changes.get("epochs") == 2.0 else 0 < num < 40
    assert counts["answered_by/big"] + counts.get("answered_by/small", 0) == num
    assert counts["licence/mit"] + counts.get("licence/unknown", 0) == num
    assert counts["tokens"] == metrics["tokens"]
    assert f"on {num} rows: {counts['tokens']:,} tokens" in text
    assert f"big ({counts['answered_by/big']} rows)" in text
    lines = (model.path / "logs" / "steps.jsonl").read_text().splitlines()
    taken = [json.loads(line) for line in lines if "tokens_per_s" in line]
    assert counts["steps"] == len(taken) and counts["tokens"] == taken[-1]["tokens"]


def _scored(root: Path, *right: bool) -> Artifact:
    rows = [
        Score(
            id=str(n), suite="bbh", task="t", response="", extracted=None, correct=each, target="A",
            chance=0.5, finish_reason="stop", response_tokens=1,
        )
        for n, each in enumerate(right)
    ]  # fmt: skip
    return rows_artifact(root / "scores", rows)


def test_scores_stand_beside_their_interval(tmp_path: Path, tiny_folder: Path):
    model, _ = _made(tmp_path / "store", tiny_folder, CardConfig())
    made = release.run(
        tmp_path / "store", ReleaseConfig(card=CardConfig(title="Mine")), model=model,
        base=Source(tiny_folder).open(tmp_path / "store"), answers={},
        scores=_scored(tmp_path, True, False, False, True),
    )  # fmt: skip
    text = (made.path / "README.md").read_text()
    assert "| bbh | 4 | 50.0 | 15.0 to 85.0 |" in text and "# Mine\n" in text


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ('---\nlicense: other\nlicense_name: "llama2"\n---\n', "llama2"),
        ("---\ntags: []\n---\nlicense: mit\n", "unknown"),
        ("# A model\n\nlicense: mit\n", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_licence_of_a_base_stands_in_the_head_of_its_card(
    tmp_path: Path, text: str | None, licence: str
):
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert base_licence(tmp_path) == licence


def _origin(**changes: Any) -> Origin:
    values: dict[str, Any] = {
        "title": "t", "base": "base", "base_licence": "mit", "recipe": "k", "teachers": {"a": 2},
        "licences": {"mit": 2}, "trainings": {"the last one": ({}, {"rows/trained": 2})}, **changes,
    }  # fmt: skip
    return Origin(**values)


@pytest.mark.parametrize(
    ("config", "changes", "tag"),
    [
        ({}, {}, "mit"),
        ({}, {"licences": {"mit": 1, "cc-by-4.0": 1}}, "other"),
        ({}, {"licences": {"mit": 1, "unknown": 1}}, "other"),
        ({"data_licence": "MIT"}, {"licences": {"mit": 1, "unknown": 1}}, "mit"),
        ({}, {"licences": {}}, "other"),
        ({}, {"base_licence": "unknown"}, "other"),
        ({"base_licence": "mit"}, {"base_licence": "unknown"}, "mit"),
    ],
)
def test_one_licence_is_named_only_where_all_are_known_and_the_same(
    config: dict[str, str], changes: dict[str, Any], tag: str
):
    head = card(CardConfig(**config), _origin(**changes)).split("---")[1]
    assert f"license: {tag}\n" in head


def test_only_models_have_terms_to_read():
    alone = card(CardConfig(), _origin(teachers={"people": 3}))
    assert "people (3 rows).\n" in alone and "Not stated" not in alone
    both = card(CardConfig(), _origin(teachers={"people": 3, "gpt": 1}))
    assert "the service behind gpt before" in both
    assert "behind unknown" in card(CardConfig(), _origin(teachers={}))


def test_what_a_person_states_replaces_what_is_not_known():
    config = CardConfig(
        title="Mine", base_name="org/base", teacher_terms="Free for all.", intended_use="Sums.",
        limitations="Only sums.",
    )  # fmt: skip
    text = card(config, _origin())
    assert 'base_model: "org/base"\n' in text and "Not stated" not in text
    for line in ("# Mine", "a (2 rows). Free for all.", "Sums.", "Only sums."):
        assert line in text


@pytest.mark.parametrize("changes", [{}, {"adapter": {"rank": 2}}], ids=["all", "lora"])
def test_embeddings_that_the_base_ties_stay_tied(
    tmp_path: Path, tiny_folder: Path, changes: dict[str, Any]
):
    """Through training, release, rounding, delta and reload: one tensor, in the file and loaded."""
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    shape = AutoConfig.from_pretrained(tiny_folder, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(shape).save_pretrained(base)
    _, made = _made(
        tmp_path / "store", base, CardConfig(), precision="bfloat16",
        optimizer={"learning_rate": 0.05}, **changes,
    )  # fmt: skip
    make_delta(base, made.path, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    (before,) = (load_file(path) for path in base.glob("*.safetensors"))
    for folder in (made.path, tmp_path / "again"):
        (found,) = (load_file(path) for path in folder.glob("*.safetensors"))
        assert "lm_head.weight" not in found and "model.embed_tokens.weight" in found
        assert any(not torch.equal(found[name], before[name].bfloat16()) for name in found)
        for model in (
            AutoModelForCausalLM.from_pretrained(folder, dtype="auto"),
            load(folder, torch.bfloat16, torch.device("cpu"))[1],
        ):
            read, written = (
                model.get_input_embeddings().weight,
                model.get_output_embeddings().weight,
            )
            assert model.config.tie_word_embeddings and read.data_ptr() == written.data_ptr()
            assert torch.equal(read, found["model.embed_tokens.weight"])
