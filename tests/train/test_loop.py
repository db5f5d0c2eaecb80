"""G6 at the level of gradients, and what the loop does besides: held-out loss, watchdogs, parts."""

import json
import os
import random
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gradients import BOUNDS, CPU, WAYS, gradient, plain_gradient
from pydantic import ValidationError
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import toys
from spyhop.schema import ArtifactError, TrainingError
from spyhop.stage import Runtime
from spyhop.store import Artifact, Source
from spyhop.train import (
    HeldOutConfig,
    OptimizerConfig,
    TuneConfig,
    WatchConfig,
    read_metrics,
    tune,
)
from spyhop.train import loop as loop_module
from spyhop.train.checkpoint import Position
from spyhop.train.loop import StepMeter, should_step

FAST = OptimizerConfig(learning_rate=3e-3, warmup_steps=2)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", BOUNDS)
def test_the_gradient_is_the_same_however_a_batch_is_cut(way: str, dtype: torch.dtype):
    wanted = plain_gradient()
    found = gradient(CPU.model_copy(update=WAYS[way]), dtype).double()
    assert float((found - wanted).norm() / wanted.norm()) < BOUNDS[dtype]
    assert float((found - wanted).abs().max()) < 3 * BOUNDS[dtype] * float(wanted.abs().max())


def test_in_bfloat16_the_gradient_is_the_same_within_its_rounding():
    """The stated bound, of the gradient's norm: 2 % between two ways, 4 % to float32."""
    wanted = plain_gradient()
    found = [
        gradient(CPU.model_copy(update=way), torch.float32, "bfloat16").double()
        for way in WAYS.values()
    ]
    for one in found:
        assert 1e-4 < float((one - wanted).norm() / wanted.norm()) < 0.04
        assert float((one - found[0]).norm() / wanted.norm()) < 0.02


def _rows(num: int, seed: int = 0) -> list[Any]:
    source = random.Random(seed)
    texts = ["".join(source.choices("abcd", k=source.randint(1, 24))) for _ in range(num)]
    return [toys.answer_row(n, f"copy {text}", f"it is {text}") for n, text in enumerate(texts)]


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path) -> Artifact:
    return Source(tiny_folder).open(tmp_path)


@pytest.fixture
def answers(tmp_path: Path) -> Artifact:
    return toys.artifact_of(tmp_path, _rows(60))


def _tune(root: Path, base: Artifact, answers: Any, runtime: Runtime = CPU, **config) -> Artifact:
    inputs = (
        {"held_out": toys.named(config.pop("rows_held_out"))} if "rows_held_out" in config else {}
    )
    values = {"epochs": 1.0, "batch_tokens": 400, "optimizer": FAST, **config}
    return tune.run(
        root, TuneConfig(**values), runtime=runtime, base=base, answers={"one": answers}, **inputs
    )


def _steps(made: Artifact) -> list[dict[str, float]]:
    return [
        json.loads(line) for line in (made.path / "logs" / "steps.jsonl").read_text().splitlines()
    ]


def test_packed_training_ends_where_padded_training_does(tmp_path: Path, base, answers):
    padded = _tune(tmp_path / "padded", base, answers)
    packed = _tune(tmp_path / "packed", base, answers, CPU.model_copy(update={"packing": "on"}))
    losses = [read_metrics(made)["losses"] for made in (padded, packed)]
    assert (
        losses[0] == pytest.approx(losses[1], rel=1e-5) and "unpacked" not in packed.record.counts
    )


def test_a_model_that_cannot_be_packed_is_trained_without_and_says_so(
    tmp_path: Path, words: Any, answers
):
    import copy

    from transformers import Gemma2Config, Gemma2ForCausalLM

    from spyhop.render import TURNS
    from spyhop.train.base import save

    shape = Gemma2Config(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, pad_token_id=0, eos_token_id=1,
        bos_token_id=None,
    )  # fmt: skip
    save(tmp_path / "gemma2", Gemma2ForCausalLM(shape), copy.deepcopy(words), TURNS)
    odd = Source(tmp_path / "gemma2").open(tmp_path)
    said: list[str] = []
    made = tune.run(
        tmp_path, TuneConfig(epochs=1.0, batch_tokens=800, optimizer=FAST),
        runtime=CPU.model_copy(update={"packing": "on"}), base=odd, answers={"one": answers},
        report=lambda progress: said.append(progress.doing),
    )  # fmt: skip
    assert made.record.counts["unpacked"] == 1
    assert any(text.startswith("trained without packing: ") for text in said)


@pytest.mark.parametrize("batches", ["best_fit", "grouped", "in_order"])
def test_batches_of_packs_are_trained_on(tmp_path: Path, base, answers, batches: str):
    made = _tune(tmp_path, base, answers, batches=batches, max_tokens=90, batch_tokens=180)
    counts = made.record.counts
    assert counts["packs"] < counts["rows/trained"] == 60
    assert counts["steps"] == -(-counts["packs"] // 2)


def test_held_out_rows_are_looked_at_and_not_trained_on(tmp_path: Path, base, answers):
    settings = HeldOutConfig(frac=0.25, times=4)
    made = _tune(tmp_path, base, answers, held_out=settings, epochs=4.0)
    metrics = read_metrics(made)
    assert [step for step, _ in metrics["held_out"]][-1] == metrics["steps"]
    assert metrics["held_out"][0][0] == 0 and len(metrics["held_out"]) == 5
    losses = [loss for _, loss in metrics["held_out"]]
    assert losses[-1] < losses[0] < 7
    logged = [line["held_out_loss"] for line in _steps(made) if "held_out_loss" in line]
    assert logged == losses
    every = _tune(tmp_path / "every", base, answers, epochs=4.0)
    assert made.record.counts["tokens"] < 0.85 * every.record.counts["tokens"]


def test_the_held_out_loss_is_that_of_the_saved_model(tmp_path: Path, base, answers, words):
    """Rows of their own, weighed as one batch with a plain forward pass."""
    from transformers import AutoModelForCausalLM

    from spyhop.render import TURNS, Renderer

    others = _rows(9, seed=5)
    made = _tune(
        tmp_path, base, answers,
        rows_held_out=[toys.artifact_of(tmp_path / "others", others)],
        held_out=HeldOutConfig(times=1), dropout=0.1,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(made.path)
    total, num = 0.0, 0
    for encoded in Renderer(words, TURNS).encode([row.messages for row in others]):
        ids = torch.tensor(encoded.ids.astype(np.int64))[None]
        with torch.no_grad():
            logs = model(input_ids=ids).logits[0].log_softmax(-1)
        for place in np.flatnonzero(encoded.is_supervised):
            total -= float(logs[place - 1, ids[0, place]])
            num += 1
    _, (_, found) = read_metrics(made)["held_out"]
    assert found == pytest.approx(total / num, rel=1e-5)


def test_the_best_weights_are_kept_and_training_stops_early(tmp_path: Path, base):
    """Four rows learned by heart: the loss on other rows rises after a while."""
    few = toys.artifact_of(tmp_path, _rows(4))
    settings = HeldOutConfig(times=60, keep="best", patience=3)
    wild = OptimizerConfig(learning_rate=2e-2, warmup_steps=1, schedule="constant")
    common = {"optimizer": wild, "epochs": 60.0, "snapshots": (0.05, 1.0)}
    others = [toys.artifact_of(tmp_path / "others", _rows(30, seed=5))]
    best = _tune(tmp_path, base, few, held_out=settings, rows_held_out=others, **common)
    metrics = read_metrics(best)
    losses = [loss for _, loss in metrics["held_out"]]
    assert len(losses) < 60 and losses.index(min(losses)) == len(losses) - 4
    assert metrics["steps"] == metrics["held_out"][-1][0]
    assert [each.name for each in (best.path / "snapshots").iterdir()] == ["at-0.05"]
    keep_last = settings.model_copy(update={"keep": "last"})
    last = _tune(tmp_path, base, few, held_out=keep_last, rows_held_out=others, **common)
    one, other = (load_file(made.path / "model.safetensors") for made in (best, last))
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("settings", [{"keep": "best"}, {"patience": 3}, {"times": 3}])
def test_held_out_settings_without_held_out_rows_are_refused(
    tmp_path: Path, base, answers, settings: dict[str, Any]
):
    with pytest.raises(TrainingError, match="no held-out rows: set"):
        _tune(tmp_path, base, answers, held_out=HeldOutConfig(**settings))


def test_metrics_of_every_step_are_written(tmp_path: Path, base, answers):
    runtime = CPU.model_copy(update={"peak_tflops": 0.1, "track": ("tensorboard",)})
    made = _tune(tmp_path, base, answers, runtime)
    lines, metrics = _steps(made), read_metrics(made)
    assert [line["step"] for line in lines] == list(range(1, metrics["steps"] + 1))
    assert [line["loss"] for line in lines] == metrics["losses"]
    last = lines[-1]
    assert last["tokens"] == metrics["tokens"] and last["eta_s"] == 0
    assert 0 < last["terms_per_s"] < last["tokens_per_s"] and 0 < last["mfu_frac"] < 1
    assert last["memory_bytes"] > 50e6 and last["gradient_norm"] > 0
    board = EventAccumulator(str(made.path / "logs" / "tensorboard")).Reload()
    shown = [(event.step, event.value) for event in board.Scalars("loss")]
    assert shown == [(n, pytest.approx(loss)) for n, loss in enumerate(metrics["losses"], 1)]


def test_a_resumed_training_continues_the_same_weights_and_biases_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls: list[dict[str, Any]] = []
    run = SimpleNamespace(finish=lambda: None)
    module = SimpleNamespace(init=lambda **how: calls.append(how) or run)  # not installed here
    monkeypatch.setattr(loop_module, "wandb", module)
    runtime = CPU.model_copy(update={"track": ("wandb",)})
    for folder in ("one", "one", "two"):
        (tmp_path / folder).mkdir(exist_ok=True)
        device = torch.device("cpu")
        StepMeter(tmp_path / folder, runtime, device, 5, 1.0, Position()).close()
    ids = [how["id"] for how in calls]
    assert ids[0] == ids[1] != ids[2] and all(how["resume"] == "allow" for how in calls)


def test_weights_and_biases_is_asked_for_where_it_is_absent(tmp_path: Path, base, answers):
    if find_spec("wandb"):
        pytest.skip("wandb is installed here")
    runtime = CPU.model_copy(update={"track": ("wandb",)})
    with pytest.raises(TrainingError, match="track names wandb: pip install wandb"):
        _tune(tmp_path, base, answers, runtime)


def test_dropout_is_the_models_own_and_resumes(tmp_path: Path, base, answers):
    plain, noisy, again = (
        _tune(tmp_path / str(n), base, answers, dropout=p) for n, p in enumerate((0.0, 0.3, 0.3))
    )
    assert noisy.digest == again.digest != plain.digest
    config = json.loads((noisy.path / "config.json").read_text())
    assert config["attention_dropout"] == 0.0


STEP: dict[str, Any] = {"loss": 1.0, "norm": 1.0, "num_terms": 9, "rate": 0.5, "num_steps": 50}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"loss": float("nan")}, "skipped/not_finite"),
        ({"norm": float("inf")}, "skipped/not_finite"),
        ({"norm": 30.0}, "skipped/spike"),
        ({"num_terms": 0}, "skipped/no_targets"),
        ({"rate": 0.0}, "skipped/rate_0"),
    ],
)
def test_odd_steps_are_skipped_counted_and_stop_in_the_end(change: dict[str, Any], name: str):
    config = WatchConfig(not_finite="skip", spike="skip", most_skips=3)
    position = Position(step=19, norms=[1.0] * 20)

    def is_taken(**change: Any) -> bool:
        return should_step(config, position, **{**STEP, **change})

    assert not is_taken(**change) and not is_taken(**change)
    assert is_taken() and position.skips_in_a_row == 0
    assert position.anomalies == {name: 2}
    assert not is_taken(**change) and not is_taken(**change)
    with pytest.raises(TrainingError, match=r"step 20 of 50: .* skipped 3 steps in a row"):
        is_taken(**change)


def test_by_default_a_spike_is_noted_and_no_number_stops():
    position = Position(norms=[1.0] * 20)
    assert should_step(WatchConfig(), position, **{**STEP, "norm": 30.0})
    assert position.anomalies == {"noticed/spike": 1}
    with pytest.raises(TrainingError, match=r"loss nan, gradient norm 1\.0; lower optimizer"):
        should_step(WatchConfig(), position, **{**STEP, "loss": float("nan")})


def test_skipped_steps_leave_the_weights_alone(tmp_path: Path, base, answers):
    """A rate beyond all numbers: after the first step every loss is no number."""
    wild = OptimizerConfig(learning_rate=1e30, warmup_steps=0, clip=None)
    watch = WatchConfig(not_finite="skip", most_skips=1000)
    made = _tune(tmp_path, base, answers, optimizer=wild, watch=watch)
    counts = made.record.counts
    assert counts["steps/skipped/not_finite"] == counts["steps"] - len(read_metrics(made)["losses"])
    assert counts["steps/skipped/not_finite"] > 3


def test_a_full_disk_leaves_the_checkpoint_before_intact(small_disk: Path, base, answers):
    """The second checkpoint does not fit: a clear error, and the first one is gone on from."""
    filler = small_disk / "filler"
    seen: list[int] = []

    def fill(progress) -> None:
        kept = list(small_disk.glob(".partial/*/state/checkpoint-*-*.pt"))
        if progress.doing == "training" and kept and not filler.exists():
            seen.append(torch.load(kept[0], weights_only=True)["position"]["step"])
            free = 4096 * (os.statvfs(small_disk).f_bavail - 2)
            filler.write_bytes(bytes(free))

    runtime = CPU.model_copy(update={"checkpoint_s": 1e-9})
    config = TuneConfig(epochs=20.0, batch_tokens=400, optimizer=FAST)
    few = {"base": base, "answers": {"answers": answers}}
    with pytest.raises(ArtifactError, match="the disk or quota is full"):
        tune.run(small_disk, config, runtime=runtime, report=fill, **few)
    left = max(small_disk.glob(".partial/*/state/checkpoint-*-*.pt"))
    assert torch.load(left, weights_only=True)["position"]["step"] >= max([1, *seen])
    assert not list(small_disk.glob(".partial/*/state/*.tmp"))


@pytest.mark.parametrize(
    "wrong",
    [{"held_out": {"frac": 1.0}}, {"watch": {"spike_factor": 0.5}}, {"dropout": 1.0},
     {"optimizer": {"betas": [1.5, 0.9]}}, {"adapter": {"rank": 0}},
     {"adapter": {}, "optimizer": {"muon_learning_rate": 0.1}}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ValidationError):
        TuneConfig.model_validate({"epochs": 1.0, **wrong})
