import json
import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import toys
from spyhop.stage import Runtime
from spyhop.store import Artifact, Source
from spyhop.store.work import Work
from spyhop.train import HeldOutConfig, TuneConfig, read_metrics, read_speed, tune
from spyhop.train.checkpoint import DIGEST_CHARS, Checkpoints, Position
from spyhop.train.distributed import Group
from spyhop.train.optimizer import OptimizerConfig
from spyhop.train.tensors import digest_file

SPAWN = multiprocessing.get_context("spawn")
RUNTIME = Runtime(device="cpu", checkpoint_s=0.05)
CONFIG = TuneConfig(
    epochs=15.0,
    batch_tokens=400,
    snapshots=(0.3, 0.9),
    dropout=0.1,
    held_out=HeldOutConfig(frac=0.1, times=9, keep="best"),
    optimizer=OptimizerConfig(learning_rate=1e-3, muon_learning_rate=0.01, warmup_steps=5),
)


def _train(root: Path, base: Artifact, answers: Artifact) -> None:
    tune.run(root, CONFIG, runtime=RUNTIME, base=base, answers={"one": answers})


def _checkpoint(root: Path) -> Path | None:
    return max((root / ".partial").glob("train.tune-*/state/checkpoint-*-*.pt"), default=None)


@pytest.mark.parametrize(
    "num_kills", [1, pytest.param(4, marks=pytest.mark.slow)], ids=["once", "often"]
)
def test_killed_training_ends_with_the_same_weights(
    tmp_path: Path, tiny_folder: Path, num_kills: int
):
    base = Source(tiny_folder).open(tmp_path)
    source = random.Random(1)
    rows = [toys.answer_row(n, f"copy {n}", "ab" * source.randint(1, 20)) for n in range(60)]
    answers = toys.artifact_of(tmp_path, rows)
    whole = tune.run(
        tmp_path / "whole", CONFIG, runtime=RUNTIME, base=base, answers={"one": answers}
    )
    root, moments = tmp_path / "killed", random.Random(num_kills)
    for _ in range(num_kills):
        process = SPAWN.Process(target=_train, args=(root, base, answers))
        process.start()
        before = path.stat().st_mtime_ns if (path := _checkpoint(root)) else 0
        while process.is_alive():
            path = _checkpoint(root)
            if path is not None and path.stat().st_mtime_ns > before:
                break
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, 0.3 / num_kills))
        process.kill()
        process.join()
    path = _checkpoint(root)
    assert path is not None and not list(root.glob("train.tune-*"))
    before_s = torch.load(path, weights_only=True)["position"]["seconds"]
    made = tune.run(root, CONFIG, runtime=RUNTIME, base=base, answers={"one": answers})
    assert made.digest == whole.digest  # weights, snapshots and losses, bit by bit
    assert made.record.counts == whole.record.counts
    assert len(list((made.path / "snapshots").iterdir())) == 2
    assert read_speed(made)["seconds"] > before_s > 0  # of all its parts together
    assert _checkpoint(root) is None
    lines = (made.path / "logs" / "steps.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines if "gradient_norm" in line]
    assert steps == list(range(1, read_metrics(made)["steps"] + 1))  # none twice, none lost


def test_a_kill_after_the_last_step_keeps_snapshots_and_metrics(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """They were in place already: what is made again must hold them again."""
    base = Source(tiny_folder).open(tmp_path)
    answers = toys.artifact_of(tmp_path, [toys.answer_row(n, "q", "abc") for n in range(9)])
    config = CONFIG.model_copy(update={"epochs": 4.0, "snapshots": (0.5,)})
    runtime = RUNTIME.model_copy(update={"checkpoint_s": 1e-9})
    held: list[Path] = []

    def keep(progress) -> None:
        if progress.done == progress.total and progress.doing == "training":
            held.append(next((tmp_path / ".partial").glob("train.tune-*/state")))
            raise KeyboardInterrupt

    def interrupt(work: Work, record: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune.run(
            tmp_path, config, runtime=runtime, report=keep, base=base, answers={"one": answers}
        )
    assert (held[0] / "snapshots" / "at-0.5" / "model.safetensors").is_file()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Work, "finish", interrupt)
        tune.run(tmp_path, config, runtime=runtime, base=base, answers={"one": answers})
    made = tune.run(tmp_path, config, runtime=runtime, base=base, answers={"one": answers})
    assert (made.path / "snapshots" / "at-0.5" / "model.safetensors").is_file()
    lines = (made.path / "logs" / "steps.jsonl").read_text().splitlines()
    losses = [line["loss"] for line in map(json.loads, lines) if "loss" in line]
    assert losses == read_metrics(made)["losses"]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        _flip,
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"junk" * 99),
    ],
    ids=["bit", "cut", "empty", "junk"],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, damage: Callable[[Path], object]
):
    model, lines = torch.nn.Linear(3, 3), []
    optimizers: list[Any] = [torch.optim.AdamW(model.parameters())]
    group = Group(torch.device("cpu"))
    checkpoints = Checkpoints(tmp_path, model, optimizers, group, lines.append)
    for step in (1, 2, 3):
        with torch.no_grad():
            model.weight.fill_(step)
        checkpoints.save(Position(step=step))
    newest = max(tmp_path.glob("checkpoint-*-*.pt"))
    damage(newest)
    assert checkpoints.load().step == 2 and float(model.weight[0, 0].detach()) == 2
    assert len(lines) == 1 and newest.name in lines[0] and "damaged" in lines[0]
    damage(next(tmp_path.glob("checkpoint-*-*.pt")))
    assert checkpoints.load() == Position() and len(lines) == 2


def test_the_best_weights_of_an_older_version_are_read(tmp_path: Path):
    model = torch.nn.Linear(3, 3)
    torch.save(model.state_dict(), tmp_path / "best.pt")
    digest = digest_file(tmp_path / "best.pt")[:DIGEST_CHARS]
    (tmp_path / "best.pt").rename(tmp_path / f"best-000000004-{digest}.pt")
    later, before = torch.nn.Linear(3, 3), model.weight.detach().clone()
    checkpoints = Checkpoints(tmp_path, later, [], Group(torch.device("cpu")), print)
    checkpoints.load_best()
    assert torch.equal(later.weight, before)
    checkpoints.save_best(5)
    with torch.no_grad():
        later.weight.fill_(1)
    checkpoints.load_best()
    assert torch.equal(later.weight, before)
