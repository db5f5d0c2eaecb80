"""A launcher that starts the command several times: all processes train, one runs the recipe."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spyhop.store import Artifact
from spyhop.store.artifact import load

pytestmark = pytest.mark.slow
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
RUN = ["-m", "spyhop", "run", "recipe.toml", "--out"]


@pytest.fixture
def recipe(tmp_path: Path, tiny_folder: Path) -> Path:
    rows = [{"prompt": f"Ask {n}?", "response": "So it is."} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'recipe = "train"\nrows = ["rows.jsonl"]\nbase = "{tiny_folder}"\n'
        "[train]\ntokens = 900\nbatch_tokens = 400\nmax_tokens = 128\n"
        '[runtime]\ndevice = "cpu"\ngpus = 2\n'
    )
    return path


def _trained(folder: Path) -> Artifact:
    (path,) = folder.glob("train.tune-*")
    found = load(path)
    assert found is not None
    return found


def _run(command: list[str], folder: Path, **env: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command, cwd=folder, text=True, env={**os.environ, **env},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_a_launched_command_trains_as_the_processes_that_a_run_starts(recipe: Path):
    folder = recipe.parent
    for command, out in ([sys.executable], "spawned"), (TORCHRUN, "joined"):
        process = _run([*command, *RUN, out], folder)
        text, _ = process.communicate(timeout=200)
        assert process.returncode == 0, text
        assert text.count("output folder:") == 1  # the first process alone runs the recipe
    spawned, joined = _trained(folder / "spawned"), _trained(folder / "joined")
    assert joined.digest == spawned.digest and joined.record.counts == spawned.record.counts


def test_any_launcher_that_sets_the_variables_will_do(recipe: Path, free_tcp_port: int):
    """As under `srun`, without torchrun; an error ends all processes, with its line once."""
    folder = recipe.parent
    recipe.write_text(
        recipe.read_text()
        + "[train.optimizer]\nlearning_rate = 1e30\nwarmup_steps = 0\nclip = false\n"
    )
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_tcp_port), "WORLD_SIZE": "2"}
    both = [
        _run([sys.executable, *RUN, "out"], folder, **where, RANK=rank, LOCAL_RANK=rank)
        for rank in "01"
    ]
    said = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [2, 1], said
    assert "loss" in said[0] and "Traceback" not in said[0]
