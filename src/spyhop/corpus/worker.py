"""A process that works on parts and may be killed at any moment.

It takes jobs from its standard input and tells its steps on its standard output. Results go to
files of `CHUNK_PAGES` pages each, written aside and renamed, so that what a kill takes along is at
most one unfinished chunk.
"""

import ctypes
import os
import resource
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

import pyarrow as pa

from spyhop.corpus.archive import Page
from spyhop.corpus.read import Part, read
from spyhop.corpus.work import Outcome, SegmentConfig, refused, segments_of

CHUNK_PAGES = 256
DONE = ".done"
PAGES = "pages"
"""Stands where a reason would, before the number of pages of a chunk."""
_PR_SET_PDEATHSIG = 1  # the kernel kills this process when the one that started it ends


@dataclass(frozen=True, slots=True)
class Job:
    """A part to work on, and the pages of it that killed a process before."""

    number: int
    part: Part
    config: SegmentConfig
    folder: Path
    given_up: dict[int, str] = field(default_factory=dict)
    """Page number to reason."""
    unread: int | None = None
    """Where reading itself did not come to an end; the part ends there."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a worker is about to do, or has done."""

    kind: str
    """`reading` and `working` (on page `page`), `chunk` (written) or `done`."""
    page: int = 0
    tally: Counter[str] = field(default_factory=Counter)
    """Outcomes of a chunk by reason; segments have none, `PAGES` counts pages."""


def chunks_of(folder: Path, number: int) -> list[Path]:
    """Return the finished chunks of a part in order."""
    return sorted(folder.glob(f"{number:06d}-*.jsonl.zst"))


def is_done(folder: Path, number: int) -> bool:
    """Tell whether a part is finished."""
    return (folder / f"{number:06d}{DONE}").exists()


def read_chunk(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the reason and the row, as JSON, of every outcome in a chunk; first its `PAGES`."""
    with pa.input_stream(path, compression="zstd") as stream:
        for line in stream.read().splitlines():
            reason, _, row = line.decode().partition("\t")
            yield reason, row


def serve(jobs: Connection, news: Connection) -> None:
    """Work on jobs until there are no more, or until the process that sends them dies."""
    waiting: SimpleQueue[Job] = SimpleQueue()
    threading.Thread(target=_receive, args=(jobs, waiting), daemon=True).start()
    while True:
        _work(waiting.get(), news)


def _receive(jobs: Connection, waiting: SimpleQueue[Job]) -> None:
    try:
        while True:
            waiting.put(jobs.recv())
    except EOFError:  # the other side is gone, and nobody wants what is being made
        os._exit(0)


def _work(job: Job, news: Connection) -> None:
    limit = job.config.page_memory_mb << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    num_chunks = len(chunks_of(job.folder, job.number))
    lines: list[bytes] = []
    tally: Counter[str] = Counter()
    pages = read(job.part, job.config.read, job.config.extract.max_bytes)
    number = -1
    while True:
        number += 1
        news.send(Step("reading", number))
        page = None
        if number != job.unread:
            page = next(pages, None)
        else:
            tally[PAGES] += 1
            _note([_line(refused(Page("", job.part.files[0][1]), "time_cap"))], lines, tally)
        if page is None:
            break
        if number >= num_chunks * CHUNK_PAGES:
            news.send(Step("working", number))
            tally[PAGES] += 1
            _note(_lines(page, job, number), lines, tally)
        if (number + 1) % CHUNK_PAGES == 0 and tally:
            num_chunks = _flush(job, num_chunks, lines, tally[PAGES])
            news.send(Step("chunk", number, tally))
            tally = Counter()
            lines = []
    if tally:
        _flush(job, num_chunks, lines, tally[PAGES])
    (job.folder / f"{job.number:06d}{DONE}").touch()
    news.send(Step("done", number, tally))


def _lines(page: Page, job: Job, number: int) -> list[tuple[str, bytes]]:
    """Return the reason and the line of each outcome of a page."""
    if number in job.given_up:
        return [_line(refused(page, job.given_up[number]))]
    try:
        return [_line(outcome) for outcome in segments_of(page, job.config)]
    except MemoryError:
        return [_line(refused(page, "memory_cap"))]
    except Exception:  # noqa: BLE001 (the edge of a process: no page may stop a crawl)
        print(f"{page.origin}:\n{traceback.format_exc()}", file=sys.stderr)  # noqa: T201
        return [_line(refused(page, "error"))]


def _line(outcome: Outcome) -> tuple[str, bytes]:
    return outcome.reason, f"{outcome.reason}\t{outcome.row.model_dump_json()}".encode()


def _note(found: list[tuple[str, bytes]], lines: list[bytes], tally: Counter[str]) -> None:
    for reason, line in found:
        tally[reason] += 1
        lines.append(line)


def _flush(job: Job, num_chunks: int, lines: list[bytes], num_pages: int) -> int:
    path = job.folder / f"{job.number:06d}-{num_chunks:06d}.jsonl.zst"
    aside = path.with_suffix(f".{os.getpid()}")
    with pa.output_stream(aside, compression="zstd") as stream:
        stream.write(b"\n".join([f"{PAGES}\t{num_pages}".encode(), *lines]))
    aside.replace(path)
    return num_chunks + 1


def main() -> None:
    """Serve on the standard streams."""
    if sys.platform == "linux":  # a page may hold the interpreter's lock for long
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    jobs, news = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # what a library prints is no step
    serve(jobs, news)
