"""Job arrays on Debian's Slurm: several nodes on this machine, with a configuration of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from corpus.pages import slow_page, write_articles
from spyhop.store import Artifact
from spyhop.store.artifact import load

pytestmark = pytest.mark.scheduler
SHARDS, KILLED = 8, (2, 5, 7)
CONFIG = """
ClusterName=spyhop
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4
PartitionName=all Nodes=n0,n1 Default=YES MaxTime=INFINITE State=UP
"""


def _free_ports(num: int) -> list[int]:
    probes = [socket.socket() for _ in range(num)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if not all(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in
               ("slurmctld", "slurmd", "munged")):  # fmt: skip
        pytest.skip("needs Slurm: apt-get install slurm-wlm munge")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("munge", "state", "n0", "n1"):
        (folder / name).mkdir(mode=0o700)
    munge, config = folder / "munge", folder / "slurm.conf"
    (munge / "key").write_bytes(os.urandom(1024))
    (munge / "key").chmod(0o400)
    host, ports = socket.gethostname().split(".")[0], _free_ports(3)
    config.write_text(CONFIG.format(folder=folder, host=host, ports=ports))
    plain = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nConstrainCores=no\n"
    (folder / "cgroup.conf").write_text(plain)
    files = {"key": "key-file", "socket": "socket", "pid": "pid-file", "log": "log-file"}
    where = [f"--{option}={munge / name}" for name, option in files.items()]
    commands = [
        ["/usr/sbin/munged", "--force", *where, f"--seed-file={munge / 'seed'}"],
        ["/usr/sbin/slurmctld", "-f", str(config)],
        *(["/usr/sbin/slurmd", "-f", str(config), "-N", name] for name in ("n0", "n1")),
    ]
    try:
        for command in commands:
            subprocess.run(command, check=True, timeout=30, stdout=subprocess.DEVNULL)
        _wait(lambda: _said(folder, "sinfo", "-h", "-t", "idle", "-o", "%D") == "2", 60)
        yield folder
    finally:
        for file in [*folder.glob("*.pid"), munge / "pid"]:
            with suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGKILL)


def _said(cluster: Path, *command: object) -> str:
    env = {**os.environ, "SLURM_CONF": str(cluster / "slurm.conf"), "OMP_NUM_THREADS": "1"}
    words = [str(word) for word in command]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _wait(is_so, timeout_s: float = 400.0) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.2)


def _submit(cluster: Path, cli, recipe: Path, *options: object) -> None:
    """Write the script, submit it, and wait for its last job."""
    done = cli("sbatch", recipe, *options)
    assert done.code == 0, done.stderr
    script = recipe.parent / "job.sh"
    script.write_text(done.stdout)
    _said(cluster, "bash", script)


def _is_idle(cluster: Path) -> bool:
    return not _said(cluster, "squeue", "-h")


def _artifact(out: Path, stage: str) -> Artifact:
    (path,) = out.glob(f"{stage}-*")
    found = load(path)
    assert found is not None
    return found


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # Slurm writes its output here
    path = tmp_path / "recipe.toml"
    names = [f"in{n}" for n in range(2 * SHARDS)]
    for name in names:
        write_articles(tmp_path / name, 2)
    path.write_text(f'recipe = "segments"\ninputs = {json.dumps(names)}\n')
    return path


def test_eight_tasks_three_of_them_killed_make_what_one_process_makes(cluster: Path, cli, recipe):
    folder = recipe.parent
    for shard in KILLED:  # these still work when they are killed
        (folder / f"in{shard - 1}" / "slow.html").write_bytes(slow_page(30_000))
    _submit(cluster, cli, recipe, "--shards", SHARDS, "--out", "many")

    def killed() -> bool:
        running = _said(cluster, "squeue", "-h", "-r", "-t", "running", "-o", "%F_%K").split()
        tasks = [task for task in running if task.rpartition("_")[2] in map(str, KILLED)]
        begun = len(list(folder.glob("many/.partial/*.parts-*/*.done"))) >= SHARDS
        if begun and len(tasks) == len(KILLED):
            _said(cluster, "scancel", "--signal=KILL", "--full", *tasks)
            return True
        assert not _is_idle(cluster), "none was killed"
        return False

    _wait(killed)
    _wait(lambda: _is_idle(cluster))
    many = _artifact(folder / "many", "corpus.segment")
    assert cli("run", recipe, "--out", "one").code == 0
    one = _artifact(folder / "one", "corpus.segment")
    assert many.digest == one.digest and many.num_rows == one.num_rows > 0
    assert (folder / "many/runs/recipe/report/report.html").exists()


@pytest.mark.slow
def test_a_training_on_two_nodes_is_that_of_two_processes(
    cluster: Path, cli, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"Ask {n}?", "response": "So it is."} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'recipe = "train"\nrows = ["rows.jsonl"]\nbase = "{tiny_folder}"\n'
        "[train]\ntokens = 900\nbatch_tokens = 400\nmax_tokens = 128\n"
        '[runtime]\ndevice = "cpu"\ngpus = 2\n'
    )
    _submit(cluster, cli, recipe, "--nodes", 2, "--rounds", 0, "--out", "nodes")
    _wait(lambda: _is_idle(cluster))
    assert cli("run", recipe, "--out", "here").code == 0
    logs = "".join(path.read_text() for path in tmp_path.glob("slurm-*.out"))
    assert len(list(tmp_path.glob("nodes/train.tune-*"))) == 1, logs
    there, here = (_artifact(tmp_path / name, "train.tune") for name in ("nodes", "here"))
    assert there.digest == here.digest
