"""Two Ray nodes on this machine, for tests of several rooms."""

import os
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from filelock import FileLock


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def two_nodes():
    """Two `ray start` processes of one processor each; their address.

    One cluster at a time: the servers behind Ray's client take the ports from 23000 on.
    """
    with FileLock(Path(tempfile.gettempdir()) / "spyhop-test-cluster.lock"):
        yield from _two_nodes()


def _two_nodes():
    port, client = _free_port(), _free_port()
    program = str(Path(sys.executable).with_name("ray"))
    environment = {
        **os.environ,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
        "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "120",  # this machine is busy
    }
    head = [f"--port={port}", f"--ray-client-server-port={client}", "--include-dashboard=false"]
    common = ["--num-cpus=1", "--disable-usage-stats", "--object-store-memory=100000000"]
    start = [program, "start", "--head", "--node-ip-address=127.0.0.1", *head, *common]
    try:
        subprocess.run(start, check=True, capture_output=True, env=environment)
        join = [program, "start", f"--address=127.0.0.1:{port}", *common]
        subprocess.run(join, check=True, capture_output=True, env=environment)
        yield f"ray:127.0.0.1:{port}", f"ray://127.0.0.1:{client}"
    finally:
        for process in of_cluster(port):
            with suppress(psutil.Error):
                process.kill()


def of_cluster(port: int, name: str = "") -> list[psutil.Process]:
    """Every process of the cluster of this port and no other's, or those of one title."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(arg.endswith(f"={port}") or f":{port}" in arg for arg in process.cmdline()):
                found |= {each.pid: each for each in (process, *process.children(recursive=True))}
    with suppress(psutil.Error):
        return [each for each in found.values() if each.is_running() and _has(each, name)]
    return []


def _has(process: psutil.Process, name: str) -> bool:
    try:
        return name in " ".join(process.cmdline())
    except psutil.Error:
        return False
