"""Processes, here or on a Ray cluster, that share the parts of a corpus.

No page can hang or crash the stage: a worker reports each page before it begins it. A worker that
is silent for longer than a page may take is killed; its page is given up with a reason, and a new
worker continues with the rest of the part. A cluster runs the same function in such processes.
"""

import logging
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spyhop.corpus.read import Part
from spyhop.corpus.work import SegmentConfig
from spyhop.corpus.worker import PartItem, WorkItemUpdate, is_done
from spyhop.lazy import library
from spyhop.processes import ProcessDied, WorkerProcess, ready
from spyhop.schema import ArtifactError, InputError
from spyhop.store import atomic_write

POLL_S = 0.2
MAX_DEATHS = 3
"""Worker crashes allowed on one page, or between pages."""
MAX_RETRIES = 3
"""Times that Ray may start a part again whose node or worker died."""
CONNECT_S = 5.0
CONNECT_ATTEMPTS = 3
AHEAD = 2
"""Parts handed out for each processor of the cluster; more would only wait there."""


class Pool:
    """Worker processes over the parts of a corpus."""

    def __init__(
        self,
        parts: Sequence[Part],
        config: SegmentConfig,
        folder: Path,
        num_workers: int,
        tell: Callable[[int, Counter[str]], None] = lambda number, tally: None,
    ) -> None:
        """Keep finished parts and chunks in `folder`; `tell` is called for each new chunk."""
        self._tell = tell
        time_s, memory = config.page_s, config.page_memory_mb << 20
        self._waiting = [
            PartItem(number, part, config, folder, time_s=time_s, memory_bytes=memory)
            for number, part in enumerate(parts)
            if not is_done(folder, number)
        ]
        self._num_workers = min(num_workers, len(self._waiting))
        self._workers: list[_PartWorker] = []
        self._deaths: Counter[tuple[int, str, int]] = Counter()

    def run(self) -> Iterator[int]:
        """Yield the number of each part as it is finished, in any order."""
        try:
            self._workers = [_PartWorker() for _ in range(self._num_workers)]
            while self._waiting or any(worker.item for worker in self._workers):
                for worker in self._workers:
                    if worker.item is None and self._waiting:
                        worker.start(self._waiting.pop(0))
                busy = [worker for worker in self._workers if worker.item]
                with_news = ready(busy, POLL_S)
                for worker in busy:
                    if worker in with_news:
                        yield from self._read(worker)
                    elif worker.time_left_s() == 0:
                        self._replace(worker, "time_cap")
        finally:
            for worker in self._workers:
                worker.kill()

    def _read(self, worker: "_PartWorker") -> Iterator[int]:
        try:
            while worker.has_message():
                update: WorkItemUpdate = worker.receive()
                worker.update = update
                if update.tally:
                    self._tell(worker.part.number, update.tally)
                if update.kind == "done":
                    worker.item = None
                    yield worker.part.number
        except ProcessDied:
            self._replace(worker, "crash")

    def _replace(self, worker: "_PartWorker", reason: str) -> None:
        """Replace a dead process by a new one, and put its part first in the queue."""
        worker.kill()
        if worker.item is not None:
            place = (worker.part.number, worker.update.kind, worker.update.page)
            self._deaths[place] += 1
            rest = _after(worker.part, worker.update, reason, self._deaths[place])
            self._waiting.insert(0, rest)
        self._workers[self._workers.index(worker)] = _PartWorker()


class _PartWorker(WorkerProcess):
    """A process, its part and its last update."""

    part: PartItem
    update: WorkItemUpdate

    def __init__(self) -> None:
        super().__init__("spyhop.corpus.worker:serve", OMP_NUM_THREADS="1")

    def start(self, part: PartItem) -> None:
        self.part, self.update = part, WorkItemUpdate("starting")
        self.send(part)


def _after(item: PartItem, update: WorkItemUpdate, reason: str, deaths: int) -> PartItem:
    """Return the item to resume with after a worker's death.

    A page that takes too long is given up at once. Another death (a kill, no memory left) is
    retried first, then blamed on the page.
    """
    if reason == "crash" and deaths < MAX_DEATHS:
        return item
    if update.kind == "working" and update.page not in item.given_up:
        return replace(item, given_up={**item.given_up, update.page: reason})
    if update.kind == "reading" and reason == "time_cap":
        return replace(item, unread=update.page)
    raise ArtifactError(
        f"{item.part.files[0][1]}: its workers died {deaths} times "
        f"{'over a page given up' if update.kind == 'working' else 'between pages'}; "
        "memory may be short: use fewer workers, and rerun to resume"
    )


def run_on_ray(
    parts: Sequence[Part],
    config: SegmentConfig,
    folder: Path,
    address: str,
    tell: Callable[[int, Counter[str]], None],
) -> Iterator[int]:
    """Yield the number of each part as it is finished, in any order; results come to `folder`.

    The inputs must lie under the same paths on every node. `ray://host:port` goes through a Ray
    client server, `ray:host:port` straight to a cluster that this machine is part of.
    """
    ray = library("ray", f"--on {address}")
    try:
        _connect(address)
        task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(part_on_node)
        waiting = [number for number in range(len(parts)) if not is_done(folder, number)]
        room = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        running: dict[Any, int] = {}
        while waiting or running:
            while waiting and len(running) < room:
                number = waiting.pop(0)
                running[task.remote(parts[number], config, number)] = number
            done, _ = ray.wait(list(running), num_returns=1)
            files, tally = ray.get(done[0])
            number = running.pop(done[0])
            for name, data in sorted(files.items()):  # the mark of a finished part sorts last
                with atomic_write(folder / name) as temporary:
                    temporary.write_bytes(data)
            tell(number, tally)
            yield number
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    """Join the cluster; a busy one that does not start a server for us in time is asked again."""
    import ray
    import ray.util

    host, _, port = address.removeprefix("ray:").removeprefix("//").rpartition(":")
    try:  # Ray itself would wait for minutes
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise InputError(f"--on {address}: no cluster there ({error})") from None
    plain = address if address.startswith("ray://") else address.removeprefix("ray:")
    for attempt in range(1, CONNECT_ATTEMPTS + 1):
        try:
            ray.init(address=plain, log_to_driver=False, logging_level=logging.ERROR)
            return
        except (ConnectionError, RuntimeError) as error:
            ray.util.disconnect()  # a half-made connection would answer for the next one
            if attempt == CONNECT_ATTEMPTS:
                reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
                text = f"--on {address}: the cluster did not let us in ({reason})"
                raise InputError(text) from None


def part_on_node(
    part: Part, config: SegmentConfig, number: int
) -> tuple[dict[str, bytes], Counter[str]]:
    """Return the files of one part, made by a killable process on this node."""
    folder = Path(tempfile.mkdtemp(prefix="spyhop-part-"))
    total: Counter[str] = Counter()
    try:
        pool = Pool([part], config, folder, 1, lambda _, tally: total.update(tally))
        list(pool.run())
        found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        return {f"{number:06d}{name[6:]}": data for name, data in found.items()}, total
    finally:
        shutil.rmtree(folder, ignore_errors=True)
