"""WARC archives, record by record; a damaged record or file becomes a page with a reason."""

import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spyhop.lazy import fastwarc, stream_io

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


def warc_pages(path: Path, name: str, max_bytes: int) -> Iterator[ArchivePage]:
    """Yield the pages of a WARC, WARC.gz or WET file, each up to the byte after `max_bytes`."""
    num_records = 0
    kinds = fastwarc.WarcRecordType
    wanted = kinds.response | kinds.resource | kinds.conversion
    try:
        with path.open("rb") as stream:
            for record in fastwarc.ArchiveIterator(stream, parse_http=False, quirks_mode=True):
                num_records += 1
                origin = f"{name}:{record.stream_pos}"
                if record.record_type & wanted:
                    yield _record_page(record, origin, max_bytes)
                elif record.record_type & kinds.revisit:
                    yield ArchivePage(_url(record), origin, reason="revisit")
    except BROKEN:
        yield ArchivePage("", f"{name}:after record {num_records}", reason="broken_archive")
        return
    if num_records == 0:
        yield ArchivePage("", name, reason="broken_archive")


def _url(record: "fastwarc.WarcRecord") -> str:
    return (record.headers.get("WARC-Target-URI") or "").strip("<> ")


def _record_page(record: "fastwarc.WarcRecord", origin: str, max_bytes: int) -> ArchivePage:
    url = _url(record)
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
    if name == "chunked":
        return _dechunked(data)
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


def _dechunked(data: bytes) -> bytes:
    """Join the chunks of a payload, up to where they end or are cut off."""
    pieces, at = [], 0
    while size := _CHUNK.match(data, at):
        num = int(size.group(1), 16)
        pieces.append(data[size.end() : size.end() + num])
        at = size.end() + num
        if num == 0:
            return b"".join(pieces)
        at += 2 if data[at : at + 2] == b"\r\n" else int(data[at : at + 1] == b"\n")
    if not pieces or at < len(data):
        raise ValueError("no chunks")
    return b"".join(pieces)


def is_markup(data: bytes) -> bool:
    """Return whether bytes begin as a page or another text with tags does."""
    start = data[:2048].lstrip(b"\xef\xbb\xbf \t\r\n\x00")
    return re.match(rb"<[!?a-zA-Z]", start) is not None and b">" in start
