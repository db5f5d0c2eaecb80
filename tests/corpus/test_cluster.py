import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from cluster_nodes import of_cluster
from corpus.pages import slow_page, write_articles
from spyhop.corpus import SegmentConfig, segment
from spyhop.schema import InputError
from spyhop.stage import Runtime
from spyhop.store import Artifact, Source

ray = pytest.importorskip("ray")
enable_client_mode = ray._private.client_mode_hook._explicitly_enable_client_mode


def _run(root: Path, inputs: list[Path], on: str = "") -> Artifact:
    pages = {path.name: Source(path).open(root) for path in inputs}
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


@pytest.mark.server
@pytest.mark.filterwarnings("default")
def test_a_part_whose_worker_is_killed_is_made_again(tmp_path: Path, two_nodes):
    for n in range(2):
        write_articles(tmp_path / f"in{n}", 4)
        for number in range(4):
            (tmp_path / f"in{n}/0001-{number}.html").write_bytes(slow_page(10_000))
    inputs = [tmp_path / f"in{n}" for n in range(2)]
    here = _run(tmp_path / "here", inputs)
    port = int(two_nodes[0].rpartition(":")[2])
    killed: list[int] = []

    def harm() -> None:
        end = time.monotonic() + 90
        while not killed and time.monotonic() < end:
            for process in of_cluster(port, "ray::Actor.do"):
                with suppress(psutil.Error):
                    if any(child.cpu_times().user > 0.5 for child in process.children()):
                        process.kill()  # its own child, which reads the pages, dies with it
                        killed.append(process.pid)
                        break
            time.sleep(0.05)

    killer = threading.Thread(target=harm)
    killer.start()
    there = _run(tmp_path / "there", inputs, two_nodes[0])
    killer.join()
    assert len(killed) == 1
    assert there.digest == here.digest and there.num_rows == 8


@pytest.mark.server
@pytest.mark.filterwarnings("default")
def test_a_failed_connection_is_made_again(tmp_path: Path, two_nodes, monkeypatch):
    write_articles(tmp_path / "in", 1)
    here = _run(tmp_path / "here", [tmp_path / "in"])
    calls, init = [], ray.init

    def fail_once(**kwargs):
        calls.append(kwargs)
        if len(calls) == 1:
            enable_client_mode()  # what a client leaves whose server did not start
            raise ConnectionAbortedError("Starting Ray client server failed.")
        return init(**kwargs)

    monkeypatch.setattr(ray, "init", fail_once)
    there = _run(tmp_path / "there", [tmp_path / "in"], two_nodes[0])
    assert len(calls) == 2 and there.digest == here.digest

    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(RuntimeError("a\nno room")))
    with pytest.raises(InputError, match=r"ray:.*did not let us in \(no room\)"):
        _run(tmp_path / "never", [tmp_path / "in"], two_nodes[0])


@pytest.mark.filterwarnings("default")
def test_a_cluster_that_is_not_there_is_one_clear_line(tmp_path: Path):
    write_articles(tmp_path / "in", 1)
    with pytest.raises(InputError, match=r"ray:127\.0\.0\.1:1: no cluster there"):
        _run(tmp_path / "out", [tmp_path / "in"], "ray:127.0.0.1:1")
