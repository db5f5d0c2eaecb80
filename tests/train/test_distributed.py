"""Two processes train as one does, through the path that `spyhop run` takes (gloo, FSDP2)."""

import copy
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gradients
import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

import toys
from spyhop.render import TURNS
from spyhop.schema import ArtifactError, TrainingError
from spyhop.stage import Progress, Runtime
from spyhop.store import Artifact, Source
from spyhop.train import AdapterConfig, HeldOutConfig, OptimizerConfig, TuneConfig, tune
from spyhop.train.base import save

pytestmark = pytest.mark.slow
TWO = Runtime(device="cpu", gpus=2, microbatch_tokens=120, checkpoint_s=1000)
ONE = TWO.model_copy(update={"gpus": 1})
CONFIG = TuneConfig(
    epochs=1.0,
    batch_tokens=400,
    held_out=HeldOutConfig(frac=0.1, times=2, keep="best"),
    snapshots=(0.5,),
    optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=2),
)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    source = random.Random(0)
    texts = ["".join(source.choices("abcd", k=source.randint(1, 24))) for _ in range(61)]
    rows = [toys.answer_row(n, f"copy {text}", f"it is {text}") for n, text in enumerate(texts)]
    return toys.artifact_of(tmp_path_factory.mktemp("answers"), rows)


@pytest.fixture(scope="module")
def tiny_folder(words: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with tied embeddings, as small models have."""
    torch.manual_seed(1)
    shape = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=96, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id, bos_token_id=None, initializer_range=0.2,
        tie_word_embeddings=True,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tied")
    save(path, LlamaForCausalLM(shape), copy.deepcopy(words), TURNS)
    return path


def _tune(root: Path, folder: Path, answers: Artifact, runtime: Runtime, **changes) -> Artifact:
    base = Source(folder).open(root)
    config = CONFIG.model_copy(update=changes)
    return tune.run(root, config, runtime=runtime, base=base, answers={"one": answers})


def _distance(one: Path, other: Path) -> float:
    first, second = (load_file(path / "model.safetensors") for path in (one, other))
    assert set(first) == set(second)
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_the_gradient_of_two_processes_is_that_of_one(tmp_path: Path):
    """G6: rows, and passes, are uneven between the two; one may have nothing to do at all."""
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    out = tmp_path / "gradients.pt"
    subprocess.run([*run, gradients.__file__, str(out)], check=True, timeout=180)
    num_processes, made = torch.load(out)
    assert num_processes == 2 and len(made) == 2 * len([*gradients.WAYS, *gradients.TIED])
    wanted = gradients.plain_gradient()
    for (way, dtype), found in made.items():
        one = (
            gradients.gradient(gradients.CPU, dtype, kind=way) if way in gradients.TIED else wanted
        )
        is_rough = way == "tied gemma"  # its norms are computed in float32
        bound = 1e-6 if is_rough else gradients.BOUNDS[dtype]
        assert float((found - one).norm() / one.norm()) < bound, way


@pytest.mark.parametrize("kind", ["weights", "packed adapters"])
def test_two_processes_train_as_one(
    tmp_path: Path, tiny_folder: Path, answers: Artifact, kind: str
):
    adapter = AdapterConfig(rank=4) if kind == "packed adapters" else None
    more = {"packing": "on"} if kind == "packed adapters" else {}
    made = [
        _tune(tmp_path / str(runtime.gpus), tiny_folder, answers,
              runtime.model_copy(update=more), adapter=adapter)
        for runtime in (ONE, TWO)
    ]  # fmt: skip
    metrics = [json.loads((each.path / "metrics.json").read_text()) for each in made]
    assert metrics[1]["losses"] == pytest.approx(metrics[0]["losses"], rel=1e-5)
    assert [s for s, _ in metrics[1]["held_out"]] == [s for s, _ in metrics[0]["held_out"]]
    assert len(metrics[0]["losses"]) > 4 and len(metrics[0]["held_out"]) == 3
    assert _distance(made[0].path, made[1].path) < 3e-5
    places = [each.path / "snapshots" / "at-0.5" for each in made]
    assert _distance(*places) < 3e-5
    assert _distance(made[0].path, places[0]) > 1e-4
    assert made[0].record.counts == made[1].record.counts


def test_a_killed_process_is_reported_by_its_signal(
    tmp_path: Path, tiny_folder: Path, answers: Artifact
):
    def kill(progress: Progress) -> None:
        if progress.doing == "training" and progress.done:
            run = psutil.Process().children(recursive=True)
            ranks = [each for each in run if "spyhop.train.rank" in each.cmdline()]
            ranks[-1].send_signal(signal.SIGKILL)

    base = Source(tiny_folder).open(tmp_path)
    config = CONFIG.model_copy(update={"epochs": 30.0})
    with pytest.raises(TrainingError, match=r"Signal 9 \(SIGKILL\)"):
        tune.run(tmp_path, config, runtime=TWO, report=kill, base=base, answers={"one": answers})


def test_a_full_disk_leaves_the_shards_before_intact(
    small_disk: Path, tiny_folder: Path, answers: Artifact
):
    filler = small_disk / "filler"

    def fill(progress: Progress) -> None:
        if list(small_disk.glob(".partial/*/state/checkpoint-*[0-9]")) and not filler.exists():
            free = 4096 * (os.statvfs(small_disk).f_bavail - 2)
            filler.write_bytes(bytes(free))

    runtime = TWO.model_copy(update={"checkpoint_s": 0.05})
    config = CONFIG.model_copy(update={"epochs": 20.0, "held_out": HeldOutConfig()})
    base = Source(tiny_folder).open(small_disk)
    with pytest.raises(ArtifactError, match="the disk or quota is full"):
        tune.run(
            small_disk, config, runtime=runtime, report=fill, base=base, answers={"one": answers}
        )
    (left,) = small_disk.glob(".partial/*/state/checkpoint-*")
    assert {file.name for file in left.iterdir()} >= {".metadata", "rank-0.pt", "rank-1.pt"}


def test_an_error_of_a_process_is_told(tmp_path: Path, tiny_folder: Path, answers: Artifact):
    wild = OptimizerConfig(learning_rate=1e30, warmup_steps=0, clip=None)
    with pytest.raises(TrainingError, match=r"step \d+ of \d+: loss"):
        _tune(tmp_path, tiny_folder, answers, TWO, optimizer=wild)
    muon = OptimizerConfig(muon_learning_rate=0.1)
    with pytest.raises(TrainingError, match="muon_learning_rate works in one process"):
        _tune(tmp_path, tiny_folder, answers, TWO, optimizer=muon)


SCRIPT = """
import sys
from pathlib import Path
from typing import Any
sys.path.insert(0, sys.argv[1])
import test_distributed as t
from spyhop.store import Artifact
from spyhop.store.artifact import load
root, base, answers = map(Path, sys.argv[2:5])
runtime = t.TWO.model_copy(update={"checkpoint_s": float(sys.argv[5])})
t._tune(root, base, load(answers), runtime, epochs=6.0)
"""


@pytest.mark.parametrize(("kept", "checkpoint_s"), [("checkpoint", 0.05), ("best", 1000)])
def test_killed_processes_go_on_from_their_shards(
    tmp_path: Path, tiny_folder: Path, answers: Artifact, kept: str, checkpoint_s: float
):
    """Killed after a checkpoint; or after best weights were kept and before any checkpoint."""
    whole = _tune(tmp_path / "whole", tiny_folder, answers, TWO, epochs=6.0)
    root = tmp_path / "killed"
    here = str(Path(__file__).parent)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SCRIPT,
            here,
            str(root),
            str(tiny_folder),
            str(answers.path),
            str(checkpoint_s),
        ],
        env={**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{here}/.."},
    )
    deadline = time.monotonic() + 180
    while not list(root.glob(f".partial/*/state/{kept}-*[0-9]")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    ranks = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(ranks, timeout=20)
    assert len(ranks) >= 3 and not alive  # torchrun and its two ranks end with their parent
    made = _tune(root, tiny_folder, answers, TWO, epochs=6.0)
    assert made.digest == whole.digest
    assert not torch.distributed.is_initialized()
