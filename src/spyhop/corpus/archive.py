"""Web archives, record by record: WARC through FastWARC, ARC by hand.

Whatever is wrong with a record or a file ends as a page with a reason; nothing raises.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from spyhop.lazy import Lazy

if TYPE_CHECKING:
    import fastwarc.warc as fastwarc
else:
    fastwarc = Lazy("fastwarc.warc")

BROKEN = (OSError, EOFError, ValueError, RuntimeError, zlib.error)
"""What libraries raise on damaged files."""
HEADER_BYTES = 1 << 16
_ARC_HEADER = re.compile(
    rb"^([a-z][a-z0-9+.-]{1,20}:.{0,8000}) (\S{1,64}) (\d{8,20}) (\S{1,200}) (-?\w{1,20})\r?\n",
    re.IGNORECASE,
)
_ARC_HEADER_INSIDE = re.compile(_ARC_HEADER.pattern, re.IGNORECASE | re.MULTILINE)
_STATUS = re.compile(rb"HTTP/[\d.]+ +(\d{3})")
_HTTP_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]{2,30})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Page:
    """What was sent for one address, or why it is not there."""

    url: str
    origin: str
    """File and place in it."""
    data: bytes = b""
    charset: str = ""
    """As its header names it."""
    is_html: bool = True
    reason: str = ""
    """Why it cannot be read; empty where it can."""

    def __post_init__(self) -> None:
        """Write out what is no text in an address or a file's name."""
        for name in ("url", "origin"):
            text = getattr(self, name).encode("utf-8", "backslashreplace").decode()
            object.__setattr__(self, name, text)


def warc_pages(path: Path, name: str, max_bytes: int) -> Iterator[Page]:
    """Yield the pages of a WARC, WARC.gz or WET file.

    A payload is read up to the byte after `max_bytes`, so that the cap on pages refuses it.
    """
    num_records = 0
    kinds = fastwarc.WarcRecordType
    wanted = kinds.response | kinds.resource | kinds.conversion
    try:
        with path.open("rb") as stream:
            for record in fastwarc.ArchiveIterator(stream, parse_http=False, quirks_mode=True):
                num_records += 1
                if record.record_type & wanted:
                    yield _warc_page(record, f"{name}:{record.stream_pos}", max_bytes)
    except BROKEN:
        yield Page("", f"{name}:after record {num_records}", reason="broken_archive")
        return
    if num_records == 0:
        yield Page("", name, reason="broken_archive")


def _warc_page(record: fastwarc.WarcRecord, origin: str, max_bytes: int) -> Page:
    url = (record.headers.get("WARC-Target-URI") or "").strip("<> ")
    kind = record.headers.get("Content-Type") or ""
    try:
        if record.is_http:
            record.parse_http(auto_decode="all", quirks_mode=True)
            if record.http_headers is None:
                return Page(url, origin, reason="broken_record")
            if (status := record.http_headers.status_code) != 200:
                return Page(url, origin, reason="no_page" if status else "broken_record")
            kind = record.http_headers.get("Content-Type") or ""
        if reason := _refused(kind):
            return Page(url, origin, reason=reason)
        data = record.reader.read(max_bytes + 1) if record.reader else b""
    except BROKEN:
        return Page(url, origin, reason="broken_record")
    return _page(url, origin, data, kind)


def arc_pages(path: Path, name: str, max_bytes: int) -> Iterator[Page]:
    """Yield the pages of an ARC or ARC.gz file (versions 1 and 2).

    A record that claims more bytes than it has is a `broken_record`; the one after it is found by
    its header.
    """
    is_inside_bad = False
    try:
        with path.open("rb") as raw, _plain(raw) as plain:
            stream = _Stream(plain)
            while line := stream.readline():
                if not line.strip():
                    continue
                at = stream.at - len(line)
                header = _ARC_HEADER.match(line)
                length = header.group(5) if header else b""
                if header is None or not length.isdigit():
                    if not is_inside_bad:  # one reason for all lines up to the next header
                        yield Page("", f"{name}:{at}", reason="broken_record")
                    is_inside_bad = True
                    continue
                is_inside_bad = False
                url, kind = (header.group(n).decode("utf-8", "replace") for n in (1, 4))
                body, is_whole = _arc_body(stream, int(length), max_bytes + HEADER_BYTES)
                if not is_whole:
                    yield Page(url, f"{name}:{at}", reason="broken_record")
                elif not url.startswith("filedesc:"):
                    yield _arc_page(url, f"{name}:{at}", body, kind, max_bytes)
            if stream.at == 0:
                yield Page("", name, reason="broken_archive")
    except BROKEN:
        yield Page("", name, reason="broken_archive")


class _Stream:
    """Lines and bytes of a file that is read once, some of them again."""

    def __init__(self, plain: IO[bytes]) -> None:
        self._plain = plain
        self._again = b""
        """Whole lines, or the end of the file."""
        self.at = 0

    def readline(self) -> bytes:
        if self._again:
            line, end, self._again = self._again.partition(b"\n")
            line += end
        else:
            line = self._plain.readline(HEADER_BYTES)
        self.at += len(line)
        return line

    def read(self, num: int) -> bytes:
        data, self._again = self._again[:num], self._again[num:]
        data += self._plain.read(num - len(data))
        self.at += len(data)
        return data

    def put_back(self, data: bytes) -> None:
        self._again = data + self._again
        self.at -= len(data)


def _arc_body(stream: _Stream, length: int, max_bytes: int) -> tuple[bytes, bool]:
    """Read a record, up to `max_bytes` of it; tell whether it ends where it says.

    One that is followed by no header, but holds one, reaches into the next: it ends there.
    """
    body = stream.read(min(length, max_bytes))
    left = length - len(body)
    while left > 0 and (line := stream.readline()):  # too large for a page, if it is one
        if _ARC_HEADER.match(line):
            stream.put_back(line)
            return body, False
        left -= len(line)
    after = b""
    while (line := stream.readline()) and not line.strip():
        after += line
    if left > 0 or (line and not _ARC_HEADER.match(line)):
        every = body + after + line
        if inside := _ARC_HEADER_INSIDE.search(every):
            stream.put_back(every[inside.start() :])
            return body, False
    stream.put_back(after + line)
    return body, True


def _arc_page(url: str, origin: str, body: bytes, kind: str, max_bytes: int) -> Page:
    if not url.lower().startswith("http"):
        return Page(url, origin, reason=_refused(kind) or "not_text")
    end = re.search(rb"\r?\n\r?\n", body)
    status = _STATUS.match(body)
    if end is None or status is None:
        return Page(url, origin, reason="broken_record")
    if status.group(1) != b"200":
        return Page(url, origin, reason="no_page")
    lines = body[: end.start()].decode("latin-1").splitlines()[1:]
    fields = {
        key.strip().lower(): value.strip() for key, _, value in (x.partition(":") for x in lines)
    }
    kind = fields.get("content-type", "")
    if reason := _refused(kind):
        return Page(url, origin, reason=reason)
    data = body[end.end() :][: max_bytes + 1]
    if "gzip" in fields.get("content-encoding", ""):
        try:
            data = zlib.decompressobj(wbits=47).decompress(data, max_bytes + 1)
        except zlib.error:
            return Page(url, origin, reason="broken_record")
    return _page(url, origin, data, kind)


def _plain(raw: IO[bytes]) -> IO[bytes]:
    is_packed = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    return gzip.GzipFile(fileobj=raw) if is_packed else raw  # type: ignore[return-value]


def _refused(kind: str) -> str:
    """Tell by the content type why a payload is no page; where none is given, it is read."""
    plain = kind.partition(";")[0].strip().lower()
    known = ("", "text/html", "application/xhtml+xml", "text/plain", "text/markdown")
    return "" if plain in known else "not_text"


def _page(url: str, origin: str, data: bytes, kind: str) -> Page:
    named = _HTTP_CHARSET.search(kind)
    is_html = not kind.lower().startswith(("text/plain", "text/markdown"))
    return Page(url, origin, data, named.group(1) if named else "", is_html)
