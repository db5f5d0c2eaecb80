"""The work of a process on the parts of a corpus; it may be killed at any moment.

Results are written in chunks of `CHUNK_PAGES` pages, each aside and renamed, so that a kill loses
at most one unfinished chunk.
"""

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from spyhop.corpus.archive import ArchivePage
from spyhop.corpus.read import Part, read
from spyhop.corpus.work import Outcome, SegmentConfig, refused, segments_of
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

    @classmethod
    def of(cls, number: int, part: Part, config: SegmentConfig, folder: Path) -> "PartItem":
        """Return a part to work on from its start, under the config's caps."""
        memory = config.page_memory_mb << 20
        return cls(number, part, config, folder, time_s=config.page_s, memory_bytes=memory)


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
    num_chunks = len(chunks_of(item.folder, item.number))
    lines: list[bytes] = []
    tally: Counter[str] = Counter()
    pages = read(item.part, item.config.read, item.config.extract.max_bytes)
    number = -1
    while True:
        number += 1
        send(WorkItemUpdate("reading", number))
        page = None
        if number != item.unread:
            page = next(pages, None)
        else:
            tally[PAGES] += 1
            _note(
                [_line(refused(ArchivePage("", item.part.files[0][1]), "time_cap"))], lines, tally
            )
        if page is None:
            break
        if number >= num_chunks * CHUNK_PAGES:
            send(WorkItemUpdate("working", number))
            tally[PAGES] += 1
            _note(_lines(page, item, number), lines, tally)
        if (number + 1) % CHUNK_PAGES == 0 and tally:
            num_chunks = _flush(item, num_chunks, lines, tally[PAGES])
            send(WorkItemUpdate("chunk", number, tally))
            tally = Counter()
            lines = []
    if tally:
        _flush(item, num_chunks, lines, tally[PAGES])
    (item.folder / f"{item.number:06d}{DONE}").touch()
    send(WorkItemUpdate("done", number, tally))


def _lines(page: ArchivePage, item: PartItem, number: int) -> list[tuple[str, bytes]]:
    """Return the reason and the line of each outcome of a page."""
    if number in item.given_up:
        return [_line(refused(page, item.given_up[number]))]
    try:
        return [_line(outcome) for outcome in segments_of(page, item.config)]
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


def _flush(item: PartItem, num_chunks: int, lines: list[bytes], num_pages: int) -> int:
    path = item.folder / f"{item.number:06d}-{num_chunks:06d}.jsonl.zst"
    with (
        atomic_write(path) as temporary,
        pa.output_stream(temporary, compression="zstd") as stream,
    ):
        stream.write(b"\n".join([f"{PAGES}\t{num_pages}".encode(), *lines]))
    return num_chunks + 1
