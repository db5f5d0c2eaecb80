"""Inputs to pages: archives, HTML and text files, JSON lines and Parquet tables of either.

Inputs are cut into parts, which are worked on apart; the same inputs give the same parts, and a
part gives the same pages in the same order.
"""

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from spyhop.corpus.archive import BROKEN, Page, warc_pages
from spyhop.schema import Config

Kind = Literal["warc", "arc", "wacz", "mhtml", "files", "lines", "table", "unknown"]

_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("warc", re.compile(r"\.(?:warc|wet)(?:\.|$)")),
    ("arc", re.compile(r"\.arc(?:\.|$)")),
    ("wacz", re.compile(r"\.wacz$")),
    ("mhtml", re.compile(r"\.mht(?:ml)?$")),
    ("files", re.compile(r"\.(?:html?|xhtml|txt|md)(?:\.gz)?$")),
    ("lines", re.compile(r"\.(?:jsonl|ndjson)(?:\.gz)?$")),
    ("table", re.compile(r"\.parquet$")),
)
PART_FILES = 128
PART_BYTES = 32 << 20
"""A part is cut where it grows beyond either; an archive is always one part."""


MAX_ROW_BYTES = 20_000_000
"""A longer line of JSON is passed over."""


class ReadConfig(Config):
    """Names of the fields of rows."""

    html_fields: tuple[str, ...] = ("html", "raw_html", "content")
    """Names of the field that contains the page, in the order in which they are tried."""
    text_fields: tuple[str, ...] = ("text", "markdown", "raw_content", "body")
    """The first field that a row has is read; HTML before text."""
    url_fields: tuple[str, ...] = ("url", "uri", "link", "warc-target-uri")
    """Names of the field that contains the address, in the order in which they are tried."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some files of one kind, or a range of one file."""

    kind: Kind
    files: tuple[tuple[str, str], ...]
    """Path, and the name that provenance tells."""
    begin: int = 0
    end: int = 0
    """Bytes of JSON lines, or row groups of a table."""
    num_bytes: int = 0


def parts_of(roots: Sequence[Path]) -> list[Part]:
    """Cut files and folders into parts, in order of their names. Hidden files are no inputs.

    Names are relative to their folder; that of the folder stands before them where there are more.
    """
    parts: list[Part] = []
    for root, label in zip(roots, _labels(roots), strict=True):
        found = [root] if root.is_file() else sorted(path for path in root.rglob("*"))
        grouped: list[tuple[Path, str]] = []
        for path in found:
            inside = path.relative_to(root)
            if not path.is_file() or any(part[0] == "." for part in inside.parts):
                continue
            name = (label / inside).as_posix() if len(roots) > 1 or path == root else str(inside)
            kind = next((kind for kind, form in _KINDS if form.search(path.name.lower())), None)
            if kind == "files":
                grouped.append((path, name))
            else:
                parts += _file_parts(kind or "unknown", path, name)
        parts += _groups(grouped)
    return parts


def _labels(roots: Sequence[Path]) -> list[PurePosixPath]:
    """Name each input; one whose name another has already bears a number."""
    labels: list[PurePosixPath] = []
    for root in roots:
        name = root.resolve().name
        shown = chain([name], (f"{name}~{number}" for number in count(2)))
        labels.append(next(each for each in map(PurePosixPath, shown) if each not in labels))
    return labels


def _file_parts(kind: Kind, path: Path, name: str) -> list[Part]:
    files, size = ((str(path), name),), path.stat().st_size
    if kind == "lines" and not path.name.lower().endswith(".gz"):
        cuts = range(0, max(size, 1), PART_BYTES)
        return [
            Part(kind, files, at, min(at + PART_BYTES, size), min(PART_BYTES, size - at))
            for at in cuts
        ]
    if kind == "table":
        try:
            with pq.ParquetFile(path) as table:
                sizes = [
                    table.metadata.row_group(n).total_byte_size for n in range(table.num_row_groups)
                ]
        except (OSError, pa.ArrowException):
            return [Part(kind, files, 0, -1, size)]
        parts, at = [], 0
        for group in range(len(sizes)):
            if sum(sizes[at : group + 1]) >= PART_BYTES or group == len(sizes) - 1:
                parts.append(Part(kind, files, at, group + 1, sum(sizes[at : group + 1])))
                at = group + 1
        return parts
    return [Part(kind, files, 0, 0, size)]


def _groups(files: Sequence[tuple[Path, str]]) -> Iterator[Part]:
    held: list[tuple[str, str]] = []
    num_bytes = 0
    for place, (path, name) in enumerate(files):
        held.append((str(path), name))
        num_bytes += path.stat().st_size
        if len(held) == PART_FILES or num_bytes >= PART_BYTES or place == len(files) - 1:
            yield Part("files", tuple(held), num_bytes=num_bytes)
            held, num_bytes = [], 0


def read(part: Part, config: ReadConfig, max_bytes: int) -> Iterator[Page]:
    """Yield the pages of a part; what cannot be read is a page with a reason."""
    path, name = Path(part.files[0][0]), part.files[0][1]
    if part.kind == "warc":
        yield from warc_pages(path, name, max_bytes)
    elif part.kind == "files":
        yield from (_file_page(Path(path), name, max_bytes) for path, name in part.files)
    elif part.kind == "lines":
        yield from _line_pages(path, name, part, config)
    elif part.kind == "table":
        yield from _table_pages(path, name, part, config)
    elif part.kind == "unknown":
        yield Page("", name, reason="unknown_file")
    else:
        yield Page("", name, reason=f"{part.kind}_archive")


def _file_page(path: Path, name: str, max_bytes: int) -> Page:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except BROKEN:
        return Page(name, name, reason="broken_file")
    is_html = "htm" in "".join(path.suffixes[-2:]).lower()
    return Page(name, name, data, is_html=is_html)


def _line_pages(path: Path, name: str, part: Part, config: ReadConfig) -> Iterator[Page]:
    is_packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if is_packed else path.open("rb") as stream:
            if part.begin:  # the line that runs over the cut belongs to the part before
                stream.seek(part.begin - 1)
                while (piece := stream.readline(1 << 20)) and not piece.endswith(b"\n"):
                    pass
            while is_packed or stream.tell() < part.end:
                origin = f"{name}:{stream.tell()}"
                line = stream.readline(MAX_ROW_BYTES)
                if not line:
                    return
                is_whole = line.endswith(b"\n") or len(line) < MAX_ROW_BYTES
                while not line.endswith(b"\n") and not is_whole:
                    if not (rest := stream.readline(1 << 20)) or rest.endswith(b"\n"):
                        break
                if not is_whole:
                    yield Page("", origin, reason="too_many_bytes")
                elif line.strip():
                    yield _json_page(line, origin, config)
    except BROKEN:
        yield Page("", name, reason="broken_file")


def _json_page(line: bytes, origin: str, config: ReadConfig) -> Page:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return Page("", origin, reason="broken_row")
    return (
        _row_page(row, origin, config)
        if isinstance(row, dict)
        else Page("", origin, reason="broken_row")
    )


def _table_pages(path: Path, name: str, part: Part, config: ReadConfig) -> Iterator[Page]:
    wanted = {*config.html_fields, *config.text_fields, *config.url_fields}
    try:
        with pq.ParquetFile(path) as table:
            columns = [column for column in table.schema_arrow.names if column.lower() in wanted]
            groups = list(range(part.begin, part.end if part.end >= 0 else table.num_row_groups))
            number = sum(table.metadata.row_group(group).num_rows for group in range(part.begin))
            for batch in table.iter_batches(256, row_groups=groups, columns=columns):
                for row in batch.to_pylist():
                    yield _row_page(row, f"{name}:{number}", config)
                    number += 1
    except (*BROKEN, pa.ArrowException):
        yield Page("", name, reason="broken_file")


def _row_page(row: dict[str, Any], origin: str, config: ReadConfig) -> Page:
    named = {key.lower(): value for key, value in row.items()}
    url = next((str(named[key]) for key in config.url_fields if named.get(key)), "")
    for is_html, fields in ((True, config.html_fields), (False, config.text_fields)):
        for field in fields:
            value = named.get(field)
            if isinstance(value, str | bytes) and value:
                data = value if isinstance(value, bytes) else value.encode("utf-8", "replace")
                return Page(url, origin, data, "utf-8", is_html)
    return Page(url, origin, reason="broken_row")
