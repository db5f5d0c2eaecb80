"""Processes, here or on a Ray cluster, that share the parts of a corpus.

No page can hang or crash the stage: a worker reports each page before it begins it. A worker that
is silent for longer than a page may take is killed; its page is given up with a reason, and a new
worker continues with the rest of the part. A cluster runs the same function in such processes.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from spyhop.cluster import Cluster
from spyhop.corpus.read import Part
from spyhop.corpus.work import SegmentConfig
from spyhop.corpus.worker import PartItem, WorkItemUpdate, is_done
from spyhop.processes import ProcessDied, WorkerProcess, ready
from spyhop.schema import ArtifactError
from spyhop.store import atomic_write

POLL_S = 0.2
MAX_DEATHS = 3
"""Worker crashes allowed on one page, or between pages."""


class Pool:
    """Worker processes over the parts of a corpus."""

    def __init__(
        self,
        parts: Mapping[int, Part],
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
            for number, part in parts.items()
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
    parts: Mapping[int, Part],
    config: SegmentConfig,
    folder: Path,
    address: str,
    tell: Callable[[int, Counter[str]], None],
) -> Iterator[int]:
    """Yield the number of each part as it is finished, in any order; results come to `folder`."""
    waiting = [number for number in parts if not is_done(folder, number)]
    with closing(Cluster(address, part_on_node)) as cluster:
        for place, (files, tally) in cluster.map(config, (parts[number] for number in waiting)):
            number = waiting[place]
            for name, data in sorted(files.items()):  # the mark of a finished part sorts last
                with atomic_write(folder / f"{number:06d}{name}") as temporary:
                    temporary.write_bytes(data)
            tell(number, tally)
            yield number


def part_on_node(config: SegmentConfig, part: Part) -> tuple[dict[str, bytes], Counter[str]]:
    """Return the files of one part by the ends of their names, made by a process on this node."""
    folder = Path(tempfile.mkdtemp(prefix="spyhop-part-"))
    total: Counter[str] = Counter()
    try:
        pool = Pool({0: part}, config, folder, 1, lambda _, tally: total.update(tally))
        list(pool.run())
        files = [path for path in folder.iterdir() if path.is_file()]
        return {path.name[6:]: path.read_bytes() for path in files}, total
    finally:
        shutil.rmtree(folder, ignore_errors=True)
