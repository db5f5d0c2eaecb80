"""Processes, here or on a Ray cluster, that share the parts of a corpus.

No page can hang or crash the stage: a worker reports each page before it begins it. A worker that
is silent for longer than a page may take is killed; its page is given up with a reason, and a new
worker continues with the rest of the part. Results are written in chunks of `CHUNK_PAGES` pages, of
which a kill loses at most one. A cluster runs the same function in such processes.
"""

import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import pyarrow as pa

from spyhop.cluster import Cluster
from spyhop.corpus.read import ArchivePage, Part, read
from spyhop.corpus.work import SegmentConfig, refused, segments_of
from spyhop.processes import ProcessDied, WorkerProcess, WorkItem, ready
from spyhop.schema import ArtifactError
from spyhop.store import atomic_write

CHUNK_PAGES = 256
DONE = ".done"
PAGES = "pages"
"""Stands where a reason would, before the number of pages of a chunk."""
POLL_S = 0.2
MAX_DEATHS = 3
"""Worker crashes allowed on one page, or between pages."""


@dataclass(frozen=True, slots=True)
class PartItem(WorkItem):
    """A part to work on, and the pages of it that killed a process before."""

    number: int
    part: Part
    config: SegmentConfig
    folder: Path
    given_up: dict[int, str] = field(default_factory=dict)
    """Page number to reason."""
    unread: int | None = None
    """Page at which reading itself hung; the part ends there."""


@dataclass(frozen=True, slots=True)
class WorkItemUpdate:
    """A step that a worker begins or has finished."""

    kind: str
    """`reading` and `working` (on page `page`), `chunk` (written) or `done`."""
    page: int = 0
    tally: Counter[str] = field(default_factory=Counter)
    """Outcomes of a chunk by reason; segments have none, `PAGES` counts pages."""


def chunks_of(folder: Path, number: int) -> list[Path]:
    """Return the finished chunks of a part in order."""
    return sorted(folder.glob(f"{number:06d}-*.jsonl.zst"))


def is_done(folder: Path, number: int) -> bool:
    """Return whether a part is finished."""
    return (folder / f"{number:06d}{DONE}").exists()


def read_chunk(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the reason and the row, as JSON, of every outcome in a chunk; first its `PAGES`."""
    with pa.input_stream(path, compression="zstd") as stream:
        for line in stream.read().splitlines():
            reason, _, row = line.decode().partition("\t")
            yield reason, row


def serve(receive: Callable[[], PartItem], send: Callable[[WorkItemUpdate], None]) -> None:
    """Work on one part after the other."""
    while True:
        _work(receive(), send)


def _work(item: PartItem, send: Callable[[WorkItemUpdate], None]) -> None:
    num_chunks, num_pages = len(chunks_of(item.folder, item.number)), 0
    lines: list[tuple[str, str]] = []
    pages = read(item.part, item.config.read, item.config.extract.max_bytes)
    for number in count():
        send(WorkItemUpdate("reading", number))
        if number == item.unread:
            num_pages += 1
            hung = ArchivePage("", item.part.files[0][1], reason="time_cap")
            lines += _lines(hung, item.config)
            break
        page = next(pages, None)
        if page is None:
            break
        if number >= num_chunks * CHUNK_PAGES:
            send(WorkItemUpdate("working", number))
            num_pages += 1
            if number in item.given_up:
                page = replace(page, reason=item.given_up[number])
            lines += _lines(page, item.config)
        if (number + 1) % CHUNK_PAGES == 0 and num_pages:
            send(WorkItemUpdate("chunk", number, _write(item, num_chunks, lines, num_pages)))
            num_chunks, num_pages, lines = num_chunks + 1, 0, []
    tally = _write(item, num_chunks, lines, num_pages) if num_pages else Counter[str]()
    (item.folder / f"{item.number:06d}{DONE}").touch()
    send(WorkItemUpdate("done", number, tally))


def _lines(page: ArchivePage, config: SegmentConfig) -> list[tuple[str, str]]:
    """Return the reason and the row, as JSON, of each outcome of a page."""
    try:
        return [(out.reason, out.row.model_dump_json()) for out in segments_of(page, config)]
    except MemoryError:
        lost = refused(page, "memory_cap")
    except Exception:  # noqa: BLE001 (the edge of a process: no page may stop a crawl)
        print(f"{page.origin}:\n{traceback.format_exc()}", file=sys.stderr)  # noqa: T201
        lost = refused(page, "error")
    return [(lost.reason, lost.row.model_dump_json())]


def _write(
    item: PartItem, number: int, lines: list[tuple[str, str]], num_pages: int
) -> Counter[str]:
    """Write a chunk; return its outcomes by reason."""
    path = item.folder / f"{item.number:06d}-{number:06d}.jsonl.zst"
    text = "\n".join(f"{reason}\t{row}" for reason, row in [(PAGES, str(num_pages)), *lines])
    with atomic_write(path) as temporary, pa.output_stream(temporary, compression="zstd") as stream:
        stream.write(text.encode())
    return Counter({PAGES: num_pages}) + Counter(reason for reason, _ in lines)


class Pool:
    """Worker processes over the parts of a corpus."""

    def __init__(
        self,
        parts: Mapping[int, Part],
        config: SegmentConfig,
        folder: Path,
        num_workers: int,
        tell: Callable[[Counter[str]], None] = lambda tally: None,
    ) -> None:
        """Keep finished parts and chunks in `folder`; `tell` gets the tally of each new chunk."""
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
                    self._tell(update.tally)
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
        super().__init__("spyhop.corpus.pool:serve", OMP_NUM_THREADS="1")

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
    tell: Callable[[Counter[str]], None],
) -> Iterator[int]:
    """Yield the number of each part as it is finished, in any order; results come to `folder`."""
    waiting = [number for number in parts if not is_done(folder, number)]
    with closing(Cluster(address, part_on_node)) as cluster:
        for place, (files, tally) in cluster.map(config, (parts[number] for number in waiting)):
            number = waiting[place]
            for name, data in sorted(files.items()):  # the mark of a finished part sorts last
                with atomic_write(folder / f"{number:06d}{name}") as temporary:
                    temporary.write_bytes(data)
            tell(tally)
            yield number


def part_on_node(config: SegmentConfig, part: Part) -> tuple[dict[str, bytes], Counter[str]]:
    """Return the files of one part by the ends of their names, made by a process on this node."""
    folder = Path(tempfile.mkdtemp(prefix="spyhop-part-"))
    total: Counter[str] = Counter()
    try:
        list(Pool({0: part}, config, folder, 1, total.update).run())
        files = [path for path in folder.iterdir() if path.is_file()]
        return {path.name[6:]: path.read_bytes() for path in files}, total
    finally:
        shutil.rmtree(folder, ignore_errors=True)
