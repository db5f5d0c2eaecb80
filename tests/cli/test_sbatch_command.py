"""The script for Slurm, run with a stand-in for `sbatch` that prints how it is called."""

import os
import subprocess
from pathlib import Path

import pytest

SBATCH = '#!/bin/bash\necho "$@" >>"$CALLS"\nwc -l <"$CALLS"\n'


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sbatch").write_text(SBATCH)
    (tmp_path / "bin/sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def _submitted(cli, calls: Path, folder: Path, *options: object) -> list[str]:
    (folder / "pages").mkdir(exist_ok=True)
    recipe = folder / "recipe.toml"
    recipe.write_text('recipe = "segments"\ninputs = ["pages"]\n')
    calls.unlink(missing_ok=True)
    done = cli("sbatch", recipe, *options)
    assert done.code == 0, done.stderr
    script = folder / "job.sh"
    script.write_text(done.stdout)
    subprocess.run(["bash", script], check=True, capture_output=True)
    return calls.read_text().splitlines()


def test_arrays_alternate_with_jobs_and_the_last_job_makes_what_is_left(
    cli, calls: Path, tmp_path: Path
):
    first, array, last = _submitted(
        cli, calls, tmp_path, "--shards", 4, "--options", "--partition='my gpus'", "--set",
        "near.threshold=0.9", "--gpus", 1,
    )  # fmt: skip
    for line in (first, array, last):
        assert "--partition=my gpus" in line and "--gpus-per-node=1" in line
        assert f"{tmp_path}/recipe.toml" in line and "near.threshold=0.9" in line
    assert "--shard 0/4" in first and "--array" not in first
    assert "--shard $SLURM_ARRAY_TASK_ID/4" in array and "--array=1-4" in array
    assert "--dependency=afterok:1" in array and "--dependency=afterany:2" in last
    assert "--shard" not in last and "torch" not in first + array + last


def test_rounds_and_nodes(cli, calls: Path, tmp_path: Path):
    lines = _submitted(cli, calls, tmp_path, "--rounds", 2, "--nodes", 2, "--gpus", 8)
    assert ["--array" in line for line in lines] == [False, True, False, True, False]
    assert all(("srun" in line and "--nodes=2" in line) != ("--array" in line) for line in lines)
    assert "--nnodes=2 --nproc-per-node=8" in lines[0]
    (alone,) = _submitted(cli, calls, tmp_path, "--rounds", 0)
    assert "--dependency" not in alone and "--shard" not in alone
