"""`spyhop serve`: the script runs, registers the servers' URLs and removes them again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from asking import KEY_ENV, ask, requests, until
from command import Command
from server import KEY
from spyhop.models import Service

SERVER = Path(__file__).parents[1] / "server.py"
VLLM = """#!{python}
import argparse, os, sys
parser = argparse.ArgumentParser()
parser.add_argument("serve"), parser.add_argument("model"), parser.add_argument("--port")
parser.add_argument("--host"), parser.add_argument("--tensor-parallel-size", type=int)
parser.add_argument("--served-model-name"), parser.add_argument("--max-model-len", type=int)
parser.add_argument("--enable-prompt-tokens-details", action="store_true")
args = parser.parse_args()
assert args.serve == "serve" and args.max_model_len == 512
assert len(os.environ["CUDA_VISIBLE_DEVICES"].split(",")) == args.tensor_parallel_size == 2
name = args.served_model_name
os.execv({python!r}, [{python!r}, {server!r}, "--port", args.port, "--models", name])
"""


def test_the_job_array_has_a_task_per_replica_and_every_name_is_quoted(
    tmp_path: Path, cli: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my $model").mkdir()
    told = cli(
        "serve", "my $model", "--slurm", "--replicas", 4, "--gpus", 2, "--options", "--a 'b c'"
    )
    assert told.code == 0
    for line in ("#SBATCH --array=0-3", "#SBATCH --gpus-per-node=2", "OPTIONS=(--a 'b c')"):
        assert line in told.stdout.splitlines()
    assert f"MODEL='{tmp_path / 'my $model'}'" in told.stdout
    assert f'urls = "{tmp_path / "urls"}"' in told.stdout
    assert subprocess.run(["bash", "-n"], input=told.stdout, text=True).returncode == 0


@pytest.mark.slow
def test_the_script_serves_and_registers_replicas_for_as_long_as_they_live(
    tmp_path: Path, cli: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(KEY_ENV, KEY)
    vllm, urls = tmp_path / "bin" / "vllm", tmp_path / "urls"
    vllm.parent.mkdir()
    vllm.write_text(VLLM.format(python=sys.executable, server=str(SERVER)))
    vllm.chmod(0o755)
    told = cli("serve", "teacher", "--urls", urls, "--replicas", 2, "--gpus", 2,
               "--options", "--max-model-len 512")  # fmt: skip
    path = f"{vllm.parent}:{os.environ['PATH']}"
    script = subprocess.Popen(["bash", "-c", told.stdout], env={**os.environ, "PATH": path})
    try:
        until(lambda: urls.exists() and len([*urls.glob("[!.]*")]) == 2, 60)
        where = Service.model_validate({"endpoints": [{"urls": urls, "key_env": KEY_ENV}]})
        assert all(reply.error is None for reply in ask(tmp_path, where, requests(20)))
        (dead, alive) = urls.glob("[!.]*")
        port = dead.name.rpartition("-")[2]
        found = subprocess.run(["pgrep", "-f", f"server.py --port {port}"], capture_output=True)
        os.kill(int(found.stdout), signal.SIGKILL)
        until(lambda: not dead.exists(), 30)
        assert alive.exists()
    finally:
        script.send_signal(signal.SIGTERM)
        script.wait(30)
    assert not list(urls.iterdir())
