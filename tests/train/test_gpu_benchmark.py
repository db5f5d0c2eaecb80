"""`benchmarks/gpu.py` at toy size: every piece writes its lines, failures and lack of time too."""

import importlib.util
import json
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from spyhop.train.distributed import Group

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> Any:
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def _bench(gpu: Any, tmp_path: Path, seconds: float, **options: Any) -> Any:
    given = {"out": tmp_path / "x.jsonl", "device": "cpu", "seconds": seconds, **options}
    ends = time.monotonic() + seconds
    group = Group(torch.device("cpu"))
    return gpu.Bench(group, Namespace(**given), ends, ("toy",), 512, 128, ends)


def test_pieces_measure_and_hold_what_is_guaranteed(gpu: Any, tmp_path: Path):
    """Without time left, each does the least that it can: a step after the warm-up, one batch."""
    bench = _bench(gpu, tmp_path, 0.0)
    (first,) = gpu.first_step(bench)
    assert first["steps"] == 1 and first["loss"] == pytest.approx(5.7, abs=0.2)
    assert all(each["holds"] for each in gpu.isolation(bench))
    ways = list(gpu.identity(bench))
    assert len(ways) == 4 and all(each["holds"] for each in ways)
    assert max(each["from_float32"] for each in ways) < 0.02
    (own,) = gpu.training("toy")(bench)
    assert own["steps"] == gpu.WARM_UP_STEPS + 1 and own["tokens_per_s"] > 0
    (peer,) = gpu.peer("toy")(bench)
    assert peer["by"] == "trl"
    (made,) = gpu.generation(bench)
    assert made["requests"] == 1 and 0 < made["response_tokens"] <= 8


@pytest.mark.slow
def test_the_arms_report_each_training(gpu: Any, tmp_path: Path, tiny_folder: Path):
    rows = [{"prompt": f"Ask {n}?", "response": "So it is."} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'recipe = "train"\nrows = ["rows.jsonl"]\nbase = "{tiny_folder}"\n'
        "[train]\nbatch_tokens = 400\nmax_tokens = 128\n"
    )
    bench = _bench(gpu, tmp_path, 300.0, recipe=recipe, arm_tokens=900)
    trained = (each for each in gpu.arms(bench) if "train.tune" in each.get("artifact", ""))
    first, second = next(trained), next(trained)
    assert (first["seed"], second["seed"]) == (0, 1)
    assert first["counts"]["tokens"] >= 900 <= second["counts"]["tokens"]


def test_a_failure_and_the_end_of_time_are_lines(gpu: Any, tmp_path: Path):
    def broken(bench: Any) -> Iterator[Any]:
        yield {"so far": 1}
        raise RuntimeError("out of memory")

    _bench(gpu, tmp_path, 600.0).run("one", 1.0, broken)
    _bench(gpu, tmp_path, 0.0).run("two", 1.0, broken)
    first, failed, skipped = map(json.loads, (tmp_path / "x.jsonl").read_text().splitlines())
    assert first["so far"] == 1 and failed["failed"] == "RuntimeError: out of memory"
    assert skipped == {"piece": "two", "skipped": "no time left"}


@pytest.mark.slow
def test_it_runs_under_torchrun(tmp_path: Path):
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    out = tmp_path / "x.jsonl"
    options = ["--device", "cpu", "--size", "toy", "--seconds", "20", "--out", str(out)]
    done = subprocess.run([*run, str(SCRIPT), *options], capture_output=True, timeout=220)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines[0]["processes"] == 2 and not [each for each in lines if "failed" in each]
    measured = {each["piece"] for each in lines if "skipped" not in each}
    assert measured >= {"first_step", "identity", "training"}
    assert all(each["holds"] for each in lines if "holds" in each)
