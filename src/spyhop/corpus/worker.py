"""The work of a process on the parts of a corpus; it may be killed at any moment.

Results are written in chunks of `CHUNK_PAGES` pages, of which a kill loses at most one.
"""

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pyarrow as pa

from spyhop.corpus.archive import ArchivePage
from spyhop.corpus.read import Part, read
from spyhop.corpus.work import SegmentConfig, refused, segments_of
from spyhop.processes import WorkItem
from spyhop.store import atomic_write

CHUNK_PAGES = 256
DONE = ".done"
PAGES = "pages"
"""Stands where a reason would, before the number of pages of a chunk."""


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
            hung = refused(ArchivePage("", item.part.files[0][1]), "time_cap")
            lines.append((hung.reason, hung.row.model_dump_json()))
            break
        page = next(pages, None)
        if page is None:
            break
        if number >= num_chunks * CHUNK_PAGES:
            send(WorkItemUpdate("working", number))
            num_pages += 1
            lines += _lines(page, item, number)
        if (number + 1) % CHUNK_PAGES == 0 and num_pages:
            send(WorkItemUpdate("chunk", number, _write(item, num_chunks, lines, num_pages)))
            num_chunks, num_pages, lines = num_chunks + 1, 0, []
    tally = _write(item, num_chunks, lines, num_pages) if num_pages else Counter[str]()
    (item.folder / f"{item.number:06d}{DONE}").touch()
    send(WorkItemUpdate("done", number, tally))


def _lines(page: ArchivePage, item: PartItem, number: int) -> list[tuple[str, str]]:
    """Return the reason and the row, as JSON, of each outcome of a page."""
    reason = item.given_up.get(number)
    try:
        found = [refused(page, reason)] if reason else list(segments_of(page, item.config))
        return [(outcome.reason, outcome.row.model_dump_json()) for outcome in found]
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
