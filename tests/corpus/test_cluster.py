import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from corpus.pages import write_articles
from spyhop.corpus import SegmentConfig, segment
from spyhop.schema import InputError
from spyhop.stage import Runtime
from spyhop.store import Artifact, Source

ray = pytest.importorskip("ray")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def two_nodes():
    """Two `ray start` processes of one processor each; their address."""
    port, client = _free_port(), _free_port()
    program = str(Path(sys.executable).with_name("ray"))
    environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    head = [f"--port={port}", f"--ray-client-server-port={client}", "--include-dashboard=false"]
    common = ["--num-cpus=1", "--disable-usage-stats", "--object-store-memory=100000000"]
    start = [program, "start", "--head", "--node-ip-address=127.0.0.1", *head, *common]
    try:
        subprocess.run(start, check=True, capture_output=True, env=environment)
        join = [program, "start", f"--address=127.0.0.1:{port}", *common]
        subprocess.run(join, check=True, capture_output=True, env=environment)
        yield f"ray:127.0.0.1:{port}", f"ray://127.0.0.1:{client}"
    finally:
        subprocess.run([program, "stop", "--force"], capture_output=True)


def _run(root: Path, inputs: list[Path], on: str = "") -> Artifact:
    pages = [Source(path).open(root) for path in inputs]
    return segment.run(root, SegmentConfig(), runtime=Runtime(on=on), pages=pages)


@pytest.mark.server
@pytest.mark.filterwarnings("default")
def test_a_cluster_of_two_nodes_makes_the_same_rows(tmp_path: Path, two_nodes):
    for n in range(4):
        write_articles(tmp_path / f"in{n}", 4)
    inputs = [tmp_path / f"in{n}" for n in range(4)]
    here = _run(tmp_path / "here", inputs)
    for number, address in enumerate(two_nodes):
        there = _run(tmp_path / f"there{number}", inputs, address)
        assert there.digest == here.digest and there.num_rows == 16


@pytest.mark.filterwarnings("default")
def test_a_cluster_that_is_not_there_is_one_clear_line(tmp_path: Path):
    write_articles(tmp_path / "in", 1)
    with pytest.raises(InputError, match=r"--on ray:127\.0\.0\.1:1: no cluster there"):
        _run(tmp_path / "out", [tmp_path / "in"], "ray:127.0.0.1:1")
