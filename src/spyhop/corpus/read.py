"""Read pages from archives, HTML and text files, JSON lines and Parquet tables.

Inputs are split into parts; the same inputs give the same parts, and the same pages in them. A
damaged record, row or file becomes a page with a reason.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from spyhop.corpus.charset import is_utf_16
from spyhop.lazy import fastwarc, stream_io
from spyhop.schema import Config

_PACKED = r"(?:\.gz|\.zst)?$"
_MARKUP = re.compile(
    r"\.(?:html?|xhtml|shtml|php\d?|phtml|aspx?|jspx?|cgi|do)(?:\.gz|\.zst|[?@].*)?$"
)
_TEXT = re.compile(r"\.(?:txt|md|markdown)" + _PACKED)
_KINDS = (
    ("warc", re.compile(r"\.(?:warc|wet)(?:\.|$)")),
    ("arc_archive", re.compile(r"\.arc(?:\.|$)")),
    ("wacz_archive", re.compile(r"\.wacz$")),
    ("mhtml_archive", re.compile(r"\.mht(?:ml)?" + _PACKED)),
    ("lines", re.compile(r"\.(?:jsonl|ndjson|json)" + _PACKED)),
    ("table", re.compile(r"\.parquet$")),
    ("files", _MARKUP),
    ("files", _TEXT),
)
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}(?:\.gz|\.zst)?$")
_BINARY = (
    b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"%PDF-", b"PK\x03\x04", b"\x7fELF", b"MZ", b"RIFF",
    b"OggS", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x00\x00\x01\x00", b"ID3",
    b"PAR1", b"\xd0\xcf\x11\xe0", b"SQLite format", b"wOFF", b"wOF2", b"\xca\xfe\xba\xbe",
)  # fmt: skip
"""First bytes of file formats that contain no page."""
PART_FILES = 128
PART_BYTES = 32 << 20
"""Largest part, by files or bytes; an archive is always one part."""
MAX_ROW_BYTES = 20_000_000
"""Longer lines of JSON are skipped."""
BROKEN = (OSError, EOFError, ValueError, RuntimeError, zlib.error)
"""Exceptions that libraries raise on damaged files."""
_HTTP_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]{2,30})", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[^\r\n]{0,200}\r?\n")
_PLAIN_ENCODINGS = frozenset(("", "identity", "none", "utf-8", "utf8", "binary", "8bit", "7bit"))
"""Content encodings that change nothing, some of them by servers' mistake."""
_READ = ("", "text/html", "application/xhtml+xml", "text/plain", "text/markdown")
"""Content types that are read; a payload without a type may be a page."""


@dataclass(frozen=True, slots=True)
class ArchivePage:
    """The bytes sent for one address, or why they are missing."""

    url: str
    origin: str
    """File and position in it."""
    data: bytes = b""
    charset: str = ""
    """Encoding according to the HTTP header."""
    is_html: bool = True
    reason: str = ""
    """Why it cannot be read; empty where it can."""
    is_converted: bool = False
    """Whether it is text that a crawler made of a page: one line for each block, menus included."""

    def __post_init__(self) -> None:
        """Escape what is no text in an address or a file's name."""
        for name in ("url", "origin"):
            text = getattr(self, name).encode("utf-8", "backslashreplace").decode()
            object.__setattr__(self, name, text)


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

    kind: str
    """`warc`, `files`, `lines` or `table`; else the reason why its file is not read."""
    files: tuple[tuple[str, str], ...]
    """Path, and the name shown in `origin`."""
    begin: int = 0
    end: int = 0
    """Bytes of JSON lines, or row groups of a table."""
    num_bytes: int = 0


def parts_of(roots: Sequence[Path]) -> list[Part]:
    """Split files and folders into parts, in order of their names. Hidden files are ignored.

    Names are relative to their folder; with several inputs they begin with the folder's name, a
    repeated one with a number.
    """
    parts: list[Part] = []
    labels: list[PurePosixPath] = []
    for root in roots:
        shown = chain([root.resolve().name], (f"{root.resolve().name}~{n}" for n in count(2)))
        label = next(each for each in map(PurePosixPath, shown) if each not in labels)
        labels.append(label)
        found = [root] if root.is_file() else sorted(root.rglob("*"))
        pages: list[tuple[Path, str]] = []
        for path in found:
            inside = path.relative_to(root)
            kind = _kind(path)
            if kind is None or any(part[0] == "." for part in inside.parts):
                continue
            name = (label / inside).as_posix() if len(roots) > 1 or path == root else str(inside)
            if kind == "files":
                pages.append((path, name))
            else:
                parts += _file_parts(kind, path, name)
        sizes = [path.stat().st_size for path, _ in pages]
        for begin, end in _runs(sizes, PART_FILES):
            files = tuple((str(path), name) for path, name in pages[begin:end])
            parts.append(Part("files", files, num_bytes=sum(sizes[begin:end])))
    return parts


def _kind(path: Path) -> str | None:
    """Return how a path is read; an ordinary folder is not, since its files are."""
    if path.is_dir():
        return "linked_folder" if path.is_symlink() else None
    if not path.is_file():
        return "unreadable_file"
    name = path.name.lower()
    kinds = (kind for kind, form in _KINDS if form.search(name))
    return next(kinds, "unknown_file" if _SUFFIX.search(name) else "files")


def _file_parts(kind: str, path: Path, name: str) -> list[Part]:
    files = ((str(path), name),)
    if kind in ("linked_folder", "unreadable_file"):
        return [Part(kind, files)]
    size = path.stat().st_size
    if kind == "lines" and path.name.lower().endswith((".jsonl", ".ndjson")):
        cuts = [(at, min(at + PART_BYTES, size)) for at in range(0, max(size, 1), PART_BYTES)]
        return [Part(kind, files, at, end, end - at) for at, end in cuts]
    if kind != "table":
        return [Part(kind, files, 0, 0, size)]
    try:
        with pq.ParquetFile(path) as table:
            groups = range(table.num_row_groups)
            sizes = [table.metadata.row_group(group).total_byte_size for group in groups]
    except (OSError, pa.ArrowException):
        return [Part(kind, files, 0, -1, size)]
    runs = _runs(sizes, len(sizes))
    return [Part(kind, files, begin, end, sum(sizes[begin:end])) for begin, end in runs]


def _runs(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of `PART_BYTES` or more, or of `most` members; the last may have less."""
    begin = 0
    for end in range(1, len(sizes) + 1):
        is_full = end - begin == most or sum(sizes[begin:end]) >= PART_BYTES
        if is_full or end == len(sizes):
            yield begin, end
            begin = end


def read(part: Part, config: ReadConfig, max_bytes: int) -> Iterator[ArchivePage]:
    """Yield the pages of a part; unreadable content is a page with a reason."""
    path, name = Path(part.files[0][0]), part.files[0][1]
    if part.kind == "warc":
        yield from warc_pages(path, name, max_bytes)
    elif part.kind == "files":
        yield from (_file_page(Path(path), name, max_bytes) for path, name in part.files)
    elif part.kind == "lines":
        yield from _line_pages(path, name, part, config)
    elif part.kind == "table":
        yield from _table_pages(path, name, part, config)
    else:
        yield ArchivePage("", name, reason=part.kind)


def _open(path: Path) -> IO[bytes]:
    """Open a file; gzip and Zstandard are decompressed, recognised by their first bytes."""
    with path.open("rb") as stream:
        start = stream.read(4)
    if start[:2] == b"\x1f\x8b":
        return cast(IO[bytes], gzip.open(path))
    if start == b"\x28\xb5\x2f\xfd":
        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))
    return path.open("rb")


def _file_page(path: Path, name: str, max_bytes: int) -> ArchivePage:
    try:
        with _open(path) as stream:
            data = stream.read(max_bytes + 1)
    except (*BROKEN, pa.ArrowException):
        return ArchivePage(name, name, reason="broken_file")
    start = data[:1024]
    num_control = sum(byte < 9 or 13 < byte < 27 for byte in start)
    is_wide = start.startswith((b"\xff\xfe", b"\xfe\xff")) or is_utf_16(start)
    if start.startswith(_BINARY) or (num_control > max(3, 0.1 * len(start)) and not is_wide):
        return ArchivePage(name, name, reason="binary")
    lower = path.name.lower()
    is_html = _MARKUP.search(lower) or (not _TEXT.search(lower) and is_markup(data))
    return ArchivePage(name, name, data, is_html=bool(is_html))


def _line_pages(path: Path, name: str, part: Part, config: ReadConfig) -> Iterator[ArchivePage]:
    is_whole_file = part.end == 0
    try:
        if is_whole_file:  # it may be one JSON value, unless it is too large
            with _open(path) as stream:
                data = stream.read(MAX_ROW_BYTES + 1)
            if len(data) <= MAX_ROW_BYTES and (found := _parsed(data)) is not None:
                for number, row in enumerate(found if isinstance(found, list) else [found]):
                    yield _row_page(row, f"{name}:{number}", config)
                return
        with _open(path) as stream:
            at = part.begin
            if at:  # the line that runs over the cut belongs to the part before
                stream.seek(at - 1)
                at += _skip_line(stream) - 1
            while (is_whole_file or at < part.end) and (line := stream.readline(MAX_ROW_BYTES)):
                origin = f"{name}:{at}"
                at += len(line)
                if not line.endswith(b"\n") and len(line) == MAX_ROW_BYTES:
                    at += _skip_line(stream)
                    yield ArchivePage("", origin, reason="too_many_bytes")
                elif line.strip():
                    yield _row_page(_parsed(line), origin, config)
    except (*BROKEN, pa.ArrowException):
        yield ArchivePage("", name, reason="broken_file")


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _skip_line(stream: IO[bytes]) -> int:
    """Skip to the end of a line; return the number of bytes read."""
    num = 0
    while piece := stream.readline(1 << 20):
        num += len(piece)
        if piece.endswith(b"\n"):
            break
    return num


def _table_pages(path: Path, name: str, part: Part, config: ReadConfig) -> Iterator[ArchivePage]:
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
        yield ArchivePage("", name, reason="broken_file")


def _row_page(row: object, origin: str, config: ReadConfig) -> ArchivePage:
    named = {key.lower(): row[key] for key in row} if isinstance(row, dict) else {}
    url = next((str(named[key]) for key in config.url_fields if named.get(key)), "")
    for field in (*config.html_fields, *config.text_fields):
        value = named.get(field)
        if isinstance(value, str | bytes) and value:
            data = value if isinstance(value, bytes) else value.encode("utf-8", "replace")
            return ArchivePage(url, origin, data, "utf-8", field in config.html_fields)
    return ArchivePage(url, origin, reason="broken_row")


def warc_pages(path: Path, name: str, max_bytes: int) -> Iterator[ArchivePage]:
    """Yield the pages of a WARC, WARC.gz or WET file, each up to the byte after `max_bytes`."""
    num_records = 0
    kinds = fastwarc.WarcRecordType
    wanted = kinds.response | kinds.resource | kinds.conversion | kinds.revisit
    try:
        with path.open("rb") as stream:
            for record in fastwarc.ArchiveIterator(stream, parse_http=False, quirks_mode=True):
                num_records += 1
                if record.record_type & wanted:
                    yield _record_page(record, f"{name}:{record.stream_pos}", max_bytes)
    except BROKEN:
        yield ArchivePage("", f"{name}:after record {num_records}", reason="broken_archive")
        return
    if num_records == 0:
        yield ArchivePage("", name, reason="broken_archive")


def _record_page(record: "fastwarc.WarcRecord", origin: str, max_bytes: int) -> ArchivePage:
    url = (record.headers.get("WARC-Target-URI") or "").strip("<> ")
    if record.record_type & fastwarc.WarcRecordType.revisit:
        return ArchivePage(url, origin, reason="revisit")
    kind = record.headers.get("Content-Type") or ""
    is_converted = bool(record.record_type & fastwarc.WarcRecordType.conversion)
    encodings: list[str] = []
    try:
        if record.is_http:
            record.parse_http(auto_decode="none", quirks_mode=True)
            if record.http_headers is None:
                return ArchivePage(url, origin, reason="broken_record")
            if (status := record.http_headers.status_code) != 200:
                return ArchivePage(url, origin, reason="no_page" if status else "broken_record")
            headers = record.http_headers
            kind = headers.get("Content-Type") or ""
            for key in ("Content-Encoding", "Transfer-Encoding"):
                encodings += [each.strip().lower() for each in (headers.get(key) or "").split(",")]
        if kind.partition(";")[0].strip().lower() not in _READ:
            return ArchivePage(url, origin, reason="not_text")
        data = record.reader.read(max_bytes + 1) if record.reader else b""
        data = decoded(data, encodings, max_bytes + 1)
    except BROKEN:
        return ArchivePage(url, origin, reason="broken_record")
    named = _HTTP_CHARSET.search(kind)
    is_html = not kind.lower().startswith(("text/plain", "text/markdown"))
    charset = named.group(1) if named else ""
    return ArchivePage(url, origin, data, charset, is_html, is_converted=is_converted)


def decoded(data: bytes, encodings: list[str], max_bytes: int) -> bytes:
    """Undo the encodings of a payload, the last applied first.

    An encoding that a crawler or a proxy has undone already is passed over; a payload that is no
    page either way is a `ValueError`.
    """
    for name in reversed(encodings):
        try:
            data = _undone(data, name, max_bytes)
        except BROKEN:
            if not is_markup(data):
                raise ValueError(f"not encoded as {name!r}") from None
    return data[:max_bytes]


def _undone(data: bytes, name: str, max_bytes: int) -> bytes:
    if name in _PLAIN_ENCODINGS:
        return data
    if name == "chunked":  # joined up to where the chunks end or are cut off
        pieces, at = [], 0
        while size := _CHUNK.match(data, at):
            num = int(size[1], 16)
            pieces.append(data[size.end() : size.end() + num])
            at = size.end() + num
            if num == 0:
                return b"".join(pieces)
            at += 2 if data[at : at + 2] == b"\r\n" else int(data[at : at + 1] == b"\n")
        if pieces and at >= len(data):
            return b"".join(pieces)
        raise ValueError("no chunks")
    if name in ("gzip", "x-gzip"):
        return zlib.decompressobj(wbits=31).decompress(data, max_bytes)
    if name == "deflate":  # with or without zlib's header
        wbits = 15 if data[:1] in (b"\x78", b"\x58", b"\x48", b"\x38") else -15
        return zlib.decompressobj(wbits).decompress(data, max_bytes)
    if name in ("br", "zstd"):
        reader = stream_io.BrotliReader if name == "br" else stream_io.ZstdReader
        with io.BytesIO(data) as packed:
            return bytes(reader(packed).read(max_bytes))
    raise ValueError(f"unknown encoding {name!r}")


def is_markup(data: bytes) -> bool:
    """Return whether bytes begin as a page or another text with tags does."""
    start = data[:2048].lstrip(b"\xef\xbb\xbf \t\r\n\x00")
    return re.match(rb"<[!?a-zA-Z]", start) is not None and b">" in start
