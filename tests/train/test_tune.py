import copy
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
)

import toys
from spyhop.models.folder import load_tokenizer
from spyhop.models.local import saved_format
from spyhop.render import ORCA, TURNS, Renderer
from spyhop.report.sections import mask_section
from spyhop.schema import ArtifactError, Message, TrainingError
from spyhop.stage import Context, Runtime
from spyhop.store import Artifact, Source
from spyhop.train import HeldOutConfig, NewModelConfig, TuneConfig, new_model, tune
from spyhop.train.base import save
from spyhop.train.encoding import Encoding, check_row, read_sample
from spyhop.train.objective import has_plain_head
from spyhop.train.optimizer import OptimizerConfig, rate_factor
from spyhop.train.rows import tokenise

LOSS = sys.modules["spyhop.train.objective"]
ENGINE = sys.modules["spyhop.train.engine"]
CPU = Runtime(device="cpu")
FAST = OptimizerConfig(learning_rate=3e-3, warmup_steps=2)
GOLDEN = Path(__file__).parent.parent / "golden" / "tune_loss.v4.json"


def _rows(num: int, seed: int = 0) -> list[Any]:
    """Copy a word: easy to learn a little of, and of many lengths."""
    source = random.Random(seed)
    texts = ["".join(source.choices("abcd", k=source.randint(1, 24))) for _ in range(num)]
    return [toys.answer_row(n, f"copy {text}", f"it is {text}") for n, text in enumerate(texts)]


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path) -> Artifact:
    return Source(tiny_folder).open(tmp_path)


@pytest.fixture
def answers(tmp_path: Path) -> Artifact:
    return toys.artifact_of(tmp_path, _rows(60))


def _losses(made: Artifact) -> list[float]:
    return json.loads((made.path / "metrics.json").read_text())["losses"]


def _weights(made: Artifact) -> dict[str, torch.Tensor]:
    return load_file(made.path / "model.safetensors")


def _distance(one: Artifact, other: Artifact) -> float:
    pairs = zip(_weights(one).values(), _weights(other).values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def _tune(root: Path, base: Artifact, answers: list[Artifact], runtime: Runtime = CPU, **config):
    values = {"epochs": 1.0, "batch_tokens": 400, "optimizer": FAST, **config}
    return tune.run(
        root, TuneConfig(**values), runtime=runtime, base=base, answers=toys.named(answers)
    )


def test_micro_batches_change_neither_loss_nor_weights(tmp_path: Path, base, answers):
    runtimes = [
        CPU.model_copy(update={"microbatch_tokens": tokens}) for tokens in (64, 150, 10_000)
    ]
    made = [
        _tune(tmp_path / str(place), base, [answers], runtime)
        for place, runtime in enumerate(runtimes)
    ]
    assert len(_losses(made[0])) > 5
    for other in made[1:]:
        assert _losses(other) == pytest.approx(_losses(made[0]), rel=1e-5)
        assert _distance(made[0], other) < 2e-5
    start = load_file(base.path / "model.safetensors")
    moved = [float((w - start[name]).abs().max()) for name, w in _weights(made[0]).items()]
    assert max(moved) > 1e-3


@pytest.mark.parametrize("width", [1, 3])
def test_the_head_in_pieces_gives_the_same(
    tmp_path: Path, base, answers, monkeypatch: pytest.MonkeyPatch, width: int
):
    whole = _tune(tmp_path / "whole", base, [answers])
    monkeypatch.setattr(LOSS, "CPU_LOGITS_BYTES", width * 4 * 261)
    monkeypatch.setattr(LOSS, "CACHE_BYTES", 2 * 4 * 261)
    pieces = _tune(tmp_path / "pieces", base, [answers])
    assert _losses(pieces) == pytest.approx(_losses(whole), rel=1e-5)
    assert _distance(whole, pieces) < 2e-5


def test_the_whole_forward_pass_gives_the_same(
    tmp_path: Path, base, answers, monkeypatch: pytest.MonkeyPatch
):
    quick = _tune(tmp_path / "quick", base, [answers])
    monkeypatch.setattr(ENGINE, "has_plain_head", lambda model: False)
    slow = _tune(tmp_path / "slow", base, [answers])
    assert _losses(slow) == pytest.approx(_losses(quick), rel=1e-5)
    assert _distance(quick, slow) < 2e-5


def test_the_loss_is_the_mean_over_target_tokens_alone(tmp_path: Path, base, words: Any):
    """The first step's loss against a plain computation, row by row, without padding."""
    rows = _rows(7)
    made = _tune(tmp_path, base, [toys.artifact_of(tmp_path, rows)], batch_tokens=10_000)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float64)
    total, num = 0.0, 0
    for encoded in Renderer(words, TURNS).encode([row.messages for row in rows]):
        ids = torch.tensor(encoded.ids.astype(np.int64))[None]
        with torch.no_grad():
            logs = model(input_ids=ids).logits[0].log_softmax(-1)
        for place in np.flatnonzero(encoded.is_supervised):
            total -= float(logs[place - 1, ids[0, place]])
            num += 1
    assert _losses(made) == [pytest.approx(total / num, rel=1e-5)]


def test_the_same_run_twice_gives_the_same_bytes(tmp_path: Path, base, answers):
    one, two = (_tune(tmp_path / name, base, [answers]) for name in ("one", "two"))
    assert one.digest == two.digest
    other = _tune(tmp_path / "three", base, [answers], seed=1)
    assert other.digest != one.digest


def test_a_grown_vocabulary_is_trained_the_same_twice(tmp_path: Path, words_with_bos: Any):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(4)
    shape = LlamaConfig(
        vocab_size=len(words_with_bos), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=1, eos_token_id=0, bos_token_id=1, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(tmp_path / "bare")
    copy.deepcopy(words_with_bos).save_pretrained(tmp_path / "bare")
    base = Source(tmp_path / "bare").open(tmp_path)
    answers = toys.artifact_of(tmp_path, _rows(20))
    one, two = (_tune(tmp_path / name, base, [answers]) for name in ("one", "two"))
    assert one.digest == two.digest
    saved = load_tokenizer(one.path)
    assert saved.pad_token == "[[PAD]]" and len(saved) == len(words_with_bos) + 1
    assert _weights(one)["model.embed_tokens.weight"].shape[0] == len(saved)
    assert saved_format(one.path, saved) == ORCA


def test_twenty_steps_have_the_committed_losses(tmp_path: Path, words: Any):
    save(tmp_path / "words", _Saved(), copy.deepcopy(words), TURNS)
    (tmp_path / "words" / "spyhop.json").unlink()
    shape = NewModelConfig(
        format="turns", hidden_size=32, intermediate_size=64, num_layers=2, num_heads=2,
        max_positions=128, previous_token_heads=1, seed=3,
    )  # fmt: skip
    base = new_model.run(tmp_path, shape, tokenizer=Source(tmp_path / "words").open(tmp_path))
    config = TuneConfig(
        tokens=11_000, batch_tokens=520, seed=5,
        optimizer=OptimizerConfig(learning_rate=3e-3, muon_learning_rate=0.02, warmup_steps=5),
    )  # fmt: skip
    answers = toys.artifact_of(tmp_path, _rows(200, seed=6))
    losses = _losses(tune.run(tmp_path, config, runtime=CPU, base=base, answers={"one": answers}))[
        :20
    ]
    if not GOLDEN.exists():
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps([round(loss, 6) for loss in losses], indent=1) + "\n")
        pytest.fail(f"wrote {GOLDEN}: look at it and commit it")
    assert len(losses) == 20
    assert losses == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-4)


class _Saved:
    """Stands for a model where only the tokenizer is written."""

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir()


def test_the_loss_falls_on_what_can_be_learned(tmp_path: Path, base):
    rows = [toys.answer_row(n, f"say {n % 4}", "abcd"[n % 4] * 6) for n in range(64)]
    made = _tune(
        tmp_path, base, [toys.artifact_of(tmp_path, rows)],
        epochs=15.0, batch_tokens=600, optimizer=FAST.model_copy(update={"learning_rate": 1e-2}),
    )  # fmt: skip
    losses = _losses(made)
    assert losses[0] > 4 and np.mean(losses[-5:]) < 0.3


def test_rows_that_cannot_be_trained_on_are_dropped_and_counted(tmp_path: Path, base):
    rows = [
        *_rows(4),
        toys.answer_row(10, "q", None, error="no", finish_reason="error"),
        toys.answer_row(11, "q", "Half of an ans", finish_reason="content_filter"),
        toys.answer_row(15, "q", "I cannot say.", ending="refused"),
        toys.answer_row(12, "q", " \n"),
        toys.answer_row(13, "q", None),
        toys.answer_row(14, "q", "x" * 100),
    ]
    made = _tune(tmp_path, base, [toys.artifact_of(tmp_path, rows)], max_tokens=80)
    assert made.record.dropped == {"cut": 1, "empty": 2, "failed": 1, "refused": 1, "too_long": 1}
    assert made.record.counts["rows/trained"] == 4
    lost = pq.read_table(made.path / "dropped").to_pylist()
    assert {row["reason"] for row in lost} == set(made.record.dropped)
    (long,) = [json.loads(row["row"]) for row in lost if row["reason"] == "too_long"]
    assert long["messages"][-1]["content"] == "x" * 100


def test_rows_beyond_the_models_positions_are_dropped(tmp_path: Path, words: Any):
    """Learned positions end with their table: a longer row cannot be trained on."""
    torch.manual_seed(7)
    shape = GPT2Config(
        vocab_size=len(words), n_embd=16, n_layer=1, n_head=2, n_positions=48,
        eos_token_id=words.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    save(tmp_path / "gpt2", GPT2LMHeadModel(shape), copy.deepcopy(words), TURNS)
    texts = ["x" * n for n in (1, 10, 200)]
    (short,) = Renderer(words, TURNS).encode([toys.answer_row(1, "q", "").messages])
    texts += ["x" * (48 - len(short.ids)), "x" * (49 - len(short.ids))]
    rows = [toys.answer_row(n, "q", text) for n, text in enumerate(texts)]
    muon = OptimizerConfig(learning_rate=1e-3, muon_learning_rate=0.01, warmup_steps=1)
    base = Source(tmp_path / "gpt2").open(tmp_path)
    made = _tune(tmp_path, base, [toys.artifact_of(tmp_path, rows)], optimizer=muon)
    assert made.record.dropped == {"too_long": 2} and made.record.counts["rows/trained"] == 3
    assert np.isfinite(_losses(made)).all()


def test_a_row_of_exactly_the_limit_is_kept(context: Context, tmp_path: Path, words: Any):
    renderer = Renderer(words, TURNS)
    rows = [toys.answer_row(1, "q", "x" * 10), toys.answer_row(2, "q", "x" * 11)]
    length = len(renderer.encode([rows[0].messages])[0].ids)
    made = tokenise(context, [toys.artifact_of(tmp_path, rows)], Encoding(renderer, length))
    assert made.lengths.tolist() == [length] and context.dropped == {"too_long": 1}


def test_no_row_left_is_one_clear_line(tmp_path: Path, base):
    rows = [toys.answer_row(1, "q", None, error="no"), toys.answer_row(2, "q", "")]
    with pytest.raises(TrainingError, match=r"no row is left.*dropped: empty: 1, failed: 1"):
        _tune(tmp_path, base, [toys.artifact_of(tmp_path, rows)])
    assert not list(tmp_path.glob("train.tune-*"))


def test_inputs_without_rows_are_one_clear_line(tmp_path: Path, base):
    with pytest.raises(TrainingError, match="the steps before this one give no rows"):
        _tune(tmp_path, base, [toys.artifact_of(tmp_path, [])])


def test_no_row_left_beside_those_held_out_is_told(tmp_path: Path, base):
    one = [toys.artifact_of(tmp_path / "one", _rows(1))]
    wide = HeldOutConfig(frac=0.6)
    with pytest.raises(TrainingError, match=r"no row is left to train on \(dropped: held out: 1\)"):
        _tune(tmp_path, base, one, held_out=wide)
    made = _tune(tmp_path, base, [toys.artifact_of(tmp_path, _rows(10))], held_out=wide)
    assert made.record.counts["rows/trained"] == 4 and made.record.counts["rows/held_out"] == 6


def test_a_row_that_breaks_the_form_is_shown(words_with_bos: Any):
    renderer = Renderer(words_with_bos, ORCA)
    row = toys.answer_row(1, "q", "said this")
    (encoded,) = renderer.encode([row.messages])
    check_row(row, encoded, renderer)
    twice = copy.deepcopy(encoded)
    twice.ids[1] = words_with_bos.bos_token_id
    endless = copy.deepcopy(encoded)
    endless.is_supervised[-1] = False
    silent = copy.deepcopy(encoded)
    silent.is_supervised[:-1] = False
    for broken in (twice, endless, silent):
        with pytest.raises(TrainingError, match=r"row a1 cannot be trained on.*said this"):
            check_row(row, broken, renderer)


def test_shares_draw_from_each_input(tmp_path: Path, base):
    two = [toys.artifact_of(tmp_path, _rows(40, seed)) for seed in (1, 2)]
    one_sided = _tune(tmp_path, base, two, epochs=None, tokens=2_000, shares=(1.0, 0.0))
    first_only = _tune(tmp_path, base, two[:1], epochs=None, tokens=2_000)
    assert _losses(one_sided) == _losses(first_only)
    mixed = _tune(tmp_path, base, two, epochs=None, tokens=2_000, shares=(0.5, 0.5))
    assert _losses(mixed) != _losses(first_only)
    assert 2_000 <= mixed.record.counts["tokens"] < 2_100


def test_wrong_shares_and_budgets_are_refused(tmp_path: Path, base, answers):
    with pytest.raises(TrainingError, match="shares has 2 values for 1 inputs"):
        _tune(tmp_path, base, [answers], shares=(0.5, 0.5))
    none = toys.artifact_of(tmp_path, [toys.answer_row(1, "q", "")])
    with pytest.raises(TrainingError, match="input 2 has a share, but no usable"):
        _tune(tmp_path, base, [answers, none], shares=(0.5, 0.5))
    with pytest.raises(TrainingError, match="the training budget is less than one token"):
        _tune(tmp_path, base, [answers], epochs=1e-9)
    wrong_ones = (
        {},
        {"tokens": 1, "epochs": 1},
        {"tokens": 1, "shares": (0.0, 0.0)},
        {"tokens": 1, "shares": (-1.0, 2.0)},
        {"tokens": 1, "snapshots": (1.5,)},
    )
    for wrong in wrong_ones:
        with pytest.raises(ValidationError):
            TuneConfig.model_validate(wrong)


def test_a_loss_that_explodes_stops_the_training(tmp_path: Path, base, answers):
    wild = OptimizerConfig(learning_rate=1e30, warmup_steps=0, clip=None)
    with pytest.raises(TrainingError, match=r"step \d+ of \d+: .*lower optimizer\.learning_rate"):
        _tune(tmp_path, base, [answers], optimizer=wild)


def test_snapshots_are_models(tmp_path: Path, base, answers):
    made = _tune(tmp_path, base, [answers], snapshots=(0.001, 0.5, 0.501, 1.0))
    folders = sorted(path.name for path in (made.path / "snapshots").iterdir())
    assert folders == ["at-0.001", "at-0.5", "at-0.501", "at-1"]
    last = load_file(made.path / "snapshots" / "at-1" / "model.safetensors")
    assert all(torch.equal(last[name], weight) for name, weight in _weights(made).items())
    half = load_file(made.path / "snapshots" / "at-0.5" / "model.safetensors")
    assert not all(torch.equal(half[name], weight) for name, weight in _weights(made).items())


def _odd_model(name: str, num_tokens: int) -> Any:
    torch.manual_seed(6)
    shared = {
        "vocab_size": num_tokens, "hidden_size": 16, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
        "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
    }  # fmt: skip
    if name == "gemma2":
        return Gemma2ForCausalLM(Gemma2Config(**shared, head_dim=8, final_logit_softcapping=2.0))
    return CohereForCausalLM(CohereConfig(**shared, logit_scale=0.25))


@pytest.mark.parametrize("name", ["gemma2", "cohere"])
def test_models_that_change_their_logits_are_trained_as_they_are(
    tmp_path: Path, words: Any, name: str
):
    model = _odd_model(name, len(words))
    assert not has_plain_head(model)
    save(tmp_path / "model", model, copy.deepcopy(words), TURNS)
    base = Source(tmp_path / "model").open(tmp_path)
    rows = _rows(5)
    answers = toys.artifact_of(tmp_path, rows)
    made = _tune(tmp_path, base, [answers], batch_tokens=10_000, epochs=1.0)
    total, num = 0.0, 0
    for encoded in Renderer(words, TURNS).encode([row.messages for row in rows]):
        ids = torch.tensor(encoded.ids.astype(np.int64))[None]
        with torch.no_grad():
            logs = model.eval()(input_ids=ids).logits[0].log_softmax(-1)
        for place in np.flatnonzero(encoded.is_supervised):
            total -= float(logs[place - 1, ids[0, place]])
            num += 1
    assert _losses(made) == [pytest.approx(total / num, rel=1e-4)]


def test_capped_logits_are_noticed_even_where_they_are_small(words: Any):
    model = _odd_model("gemma2", len(words))
    model.config.final_logit_softcapping = 30.0
    for parameter in model.parameters():
        parameter.data *= 0.1
    assert not has_plain_head(model)


def test_plain_heads_are_plain(tiny_folder: Path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    before = model(input_ids=torch.arange(5)[None]).logits
    assert has_plain_head(model)
    assert torch.equal(model(input_ids=torch.arange(5)[None]).logits, before)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_rate_rises_and_falls(schedule: str):
    config = OptimizerConfig(warmup_steps=4, schedule=schedule, final_frac=0.1)
    rates = [rate_factor(config, step, 20) for step in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rate_factor(config, 19, 20) == pytest.approx(1.0 if schedule == "constant" else 0.1)


def test_a_full_disk_in_training_is_one_clear_line(small_disk: Path, tmp_path: Path, words: Any):
    save(tmp_path / "words", _Saved(), copy.deepcopy(words), TURNS)
    shape = NewModelConfig(hidden_size=256)
    with pytest.raises(ArtifactError, match="the disk or quota is full"):
        new_model.run(small_disk, shape, tokenizer=Source(tmp_path / "words").open(tmp_path))


def test_a_full_disk_at_a_checkpoint_is_one_clear_line(small_disk: Path, base, answers):
    runtime = CPU.model_copy(update={"checkpoint_s": 1e-6})
    (small_disk / "filler").write_bytes(bytes(900_000))
    with pytest.raises(ArtifactError, match="the disk or quota is full"):
        _tune(small_disk, base, [answers], runtime)


def test_messages_without_a_user_turn_train_too(tmp_path: Path, base):
    row = toys.answer_row(1, "q", "answer")
    rows = [row.model_copy(update={"messages": [Message(role="assistant", content="answer")]})]
    made = _tune(tmp_path, base, [toys.artifact_of(tmp_path, rows)])
    assert made.record.counts["rows/trained"] == 1


@pytest.mark.parametrize(("warmup_steps", "is_told"), [(1, False), (1000, True)])
def test_a_warm_up_that_never_ends_is_told(
    tmp_path: Path,
    base: Artifact,
    answers: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    warmup_steps: int,
    is_told: bool,
):
    said: list[str] = []
    monkeypatch.setattr(Context, "notice", lambda _, text: said.append(text))
    how = OptimizerConfig(learning_rate=1e-3, warmup_steps=warmup_steps)
    config = TuneConfig(epochs=1, batch_tokens=400, optimizer=how)
    tune.run(tmp_path, config, runtime=CPU, base=base, answers={"one": answers})
    assert any("warmup_steps = 1000" in text for text in said) == is_told


@pytest.mark.parametrize("train_on", ["all", "last"])
def test_pages_show_the_masks_that_training_used(tmp_path: Path, base, words: Any, train_on: str):
    """Whatever comes first: rows that are dropped, and rows that are held out."""
    turns = [
        Message(role="user", content="caf\u00e9?"),
        Message(role="assistant", content="\u4f60\u597d"),
    ]
    rows = [toys.answer_row(90, "q", " "), *_rows(6)]
    rows = [
        row.model_copy(update={"messages": [*turns, *row.messages]}) if row.messages else row
        for row in rows
    ]
    made = _tune(
        tmp_path, base, [toys.artifact_of(tmp_path, rows)], train_on=train_on,
        held_out=HeldOutConfig(frac=0.5),
    )  # fmt: skip
    sample = read_sample(made.path)
    assert len(sample) == 3
    by_id = {row.id: row for row in rows}
    for shown in sample:
        (encoded,) = Renderer(words, TURNS).encode([by_id[shown.row_id].messages], train_on)
        assert [piece.is_supervised for piece in shown.pieces] == encoded.is_supervised.tolist()
        assert "".join(piece.text for piece in shown.pieces) == words.decode(encoded.ids)
    page = "".join(mask_section(made).blocks)
    assert "\u4f60" in page and f"{sample[0].num_supervised} of" in page
