"""What is done with one page: extract, cut, redact, filter. The same function everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import Field

from spyhop.corpus.archive import Page
from spyhop.corpus.extract import (
    ExtractConfig,
    Extracted,
    Refused,
    decode,
    extract,
    text_blocks,
)
from spyhop.corpus.filters import (
    MAX_LANGUAGE_RANK,
    Candidate,
    FilterConfig,
    is_toxic,
    reason_against,
)
from spyhop.corpus.personal import redact
from spyhop.corpus.read import ReadConfig
from spyhop.corpus.segment import CutConfig, Section, cut
from spyhop.lazy import Lazy
from spyhop.schema import Config, Row, Segment
from spyhop.store import row_id

if TYPE_CHECKING:
    import resiliparse.parse.lang as lang
else:
    lang = Lazy("resiliparse.parse.lang")

PAGE = "page/"
"""What the reasons of whole pages begin with."""


class SegmentConfig(Config):
    """Reading, extraction, cutting and filtering of pages."""

    read: ReadConfig = ReadConfig()
    extract: ExtractConfig = ExtractConfig()
    cut: CutConfig = CutConfig()
    filters: FilterConfig = FilterConfig()
    redact: bool = True
    """Replace personal data; else it stays, and the filter still sees how much there is."""
    page_s: float = Field(20.0, gt=0)
    """Seconds for one page; the process that takes longer is killed."""
    page_memory_mb: int = Field(4096, ge=1024)
    """Address space of a process; a page that needs more is given up."""


class RefusedPage(Row):
    """A page that gave nothing, for the dropped rows."""

    url: str
    origin: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a page or of a piece of it: a segment, or a row that is left out."""

    row: Row
    reason: str = ""


def segments_of(page: Page, config: SegmentConfig) -> Iterator[Outcome]:
    """Yield the segments of a page and what was left out, in order."""
    if page.reason:
        yield refused(page, page.reason)
        return
    try:
        found = _extracted(page, config)
    except Refused as error:
        yield refused(page, str(error))
        return
    digest = hashlib.sha256(page.data).hexdigest()[:16]
    num_sections = 0
    for section in cut(found.title, found.blocks, config.cut):
        num_sections += 1
        yield _outcome(page, digest, section, config)
    if num_sections == 0:
        yield refused(page, "no_text")


def refused(page: Page, reason: str) -> Outcome:
    """Return the outcome of a page that is given up whole."""
    return Outcome(
        RefusedPage(id=row_id(page.url, page.origin), url=page.url, origin=page.origin),
        PAGE + reason,
    )


def _extracted(page: Page, config: SegmentConfig) -> Extracted:
    if page.is_html:
        return extract(page.data, page.charset, config.extract)
    if len(page.data) > config.extract.max_bytes:
        raise Refused("too_many_bytes")
    return Extracted("", text_blocks(decode(page.data, page.charset)))


def _outcome(page: Page, digest: str, section: Section, config: SegmentConfig) -> Outcome:
    text, found = redact(section.text)
    named = [redact(heading) for heading in section.headings]
    shown, num_redacted = section, 0
    if config.redact:
        shown = replace(section, headings=tuple(heading for heading, _ in named), text=text)
        num_redacted = found.total() + sum(each.total() for _, each in named)
    if section.reason:
        return _row(page, digest, shown, "", num_redacted, section.reason)
    language, _ = lang.detect_fast(section.prose, cutoff=MAX_LANGUAGE_RANK)
    candidate = Candidate(section, language, found.total())
    reason = reason_against(candidate, config.filters)
    return _row(page, digest, shown, language, num_redacted, reason)


def _row(
    page: Page, digest: str, section: Section, language: str, num_redacted: int, reason: str
) -> Outcome:
    row = Segment(
        id=row_id(page.url, page.origin, str(section.start), section.text),
        url=page.url or page.origin,
        headings=list(section.headings),
        text=section.text,
        start=section.start,
        end=section.end,
        language=language,
        num_redacted=num_redacted,
        is_toxic=not reason and is_toxic(section.text),
        page_digest=digest,
        origin=page.origin,
    )
    return Outcome(row, reason)
