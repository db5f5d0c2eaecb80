"""WARC archives, record by record.

A damaged record or file becomes a page with a reason; nothing raises.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spyhop.lazy import Lazy

if TYPE_CHECKING:
    import fastwarc.warc as fastwarc
else:
    fastwarc = Lazy("fastwarc.warc")

BROKEN = (OSError, EOFError, ValueError, RuntimeError, zlib.error)
"""What libraries raise on damaged files."""
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


def _refused(kind: str) -> str:
    """Tell by the content type why a payload is no page; where none is given, it is read."""
    plain = kind.partition(";")[0].strip().lower()
    known = ("", "text/html", "application/xhtml+xml", "text/plain", "text/markdown")
    return "" if plain in known else "not_text"


def _page(url: str, origin: str, data: bytes, kind: str) -> Page:
    named = _HTTP_CHARSET.search(kind)
    is_html = not kind.lower().startswith(("text/plain", "text/markdown"))
    return Page(url, origin, data, named.group(1) if named else "", is_html)
