"""Work on one page: extract, cut, redact, filter. The same function runs on every machine."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

from pydantic import Field

from spyhop.corpus.charset import decode
from spyhop.corpus.extract import ExtractConfig, Extracted, Refused, converted, extract, text_blocks
from spyhop.corpus.filters import (
    MAX_LANGUAGE_RANK,
    Candidate,
    FilterConfig,
    is_toxic,
    reason_against,
    url_reason,
)
from spyhop.corpus.personal import redact
from spyhop.corpus.read import ArchivePage, ReadConfig
from spyhop.corpus.segment import CutConfig, Section, cut
from spyhop.lazy import lang
from spyhop.schema import Config, Row, Segment
from spyhop.store import row_id

_SCRIPTS = {
    "ja": re.compile("[\u3041-\u3096\u30a1-\u30fa]"),
    "ko": re.compile("[\uac00-\ud7a3]"),
    "zh": re.compile("[\u4e00-\u9fff]"),
}
"""Scripts of one language each, in this order: Japanese has Han characters, too."""
NEAR_RANK = 1.02
"""Distance from a language's profile, of the least, that counts as equal."""
MIN_SCRIPT_FRAC = 0.15
"""Share of the characters that decides for a script's language."""
PAGE = "page/"
"""Prefix of reasons that concern whole pages."""


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


class Outcome(NamedTuple):
    """Result of a page or a section: a segment, or a dropped row and its reason."""

    row: Row
    reason: str = ""


def segments_of(page: ArchivePage, config: SegmentConfig) -> Iterator[Outcome]:
    """Yield the segments and the dropped rows of a page, in order."""
    if reason := page.reason or url_reason(page.url, config.filters):
        yield refused(page, reason)
        return
    try:
        if page.is_html:
            found = extract(page.data, page.charset, config.extract)
        elif len(page.data) > config.extract.max_bytes:
            raise Refused("too_many_bytes")
        else:
            text = decode(page.data, page.charset)
            found = converted(text) if page.is_converted else Extracted("", text_blocks(text))
    except Refused as error:
        yield refused(page, str(error))
        return
    digest = hashlib.sha256(page.data).hexdigest()[:16]
    section = None
    for section in cut(found.title, found.blocks, config.cut):
        yield _outcome(page, digest, section, config)
    if section is None:
        yield refused(page, "no_text")


def refused(page: ArchivePage, reason: str) -> Outcome:
    """Return the outcome of a page that is given up whole."""
    row = RefusedPage(id=row_id(page.url, page.origin), url=page.url, origin=page.origin)
    return Outcome(row, PAGE + reason)


def _outcome(page: ArchivePage, digest: str, section: Section, config: SegmentConfig) -> Outcome:
    text, found = redact(section.text)
    named = [redact(heading) for heading in section.headings]
    language, reason = "", section.reason
    if not reason:
        language = language_of(section.prose, config.filters.languages)
        is_plain = not page.is_html and "</" not in text  # else it is markup of another kind
        candidate = Candidate(section, language, found.total(), is_plain=is_plain)
        reason = reason_against(candidate, config.filters)
    headings, num_redacted = list(section.headings), 0
    if config.redact:
        headings = [heading for heading, _ in named]
        num_redacted = found.total() + sum(each.total() for _, each in named)
    else:
        text = section.text
    row = Segment(
        id=row_id(page.url, page.origin, str(section.start), text),
        url=page.url or page.origin,
        headings=headings,
        text=text,
        start=section.start,
        end=section.end,
        language=language,
        num_redacted=num_redacted,
        is_toxic=not reason and is_toxic(text),
        page_digest=digest,
        origin=page.origin,
    )
    return Outcome(row, reason)


def language_of(text: str, wanted: Sequence[str] = ()) -> str:
    """Return a text's language: by its script, else a wanted near profile, else the nearest one."""
    for code, script in _SCRIPTS.items():
        if len(script.findall(text)) > MIN_SCRIPT_FRAC * len(text):
            return code
    found = lang.detect_fast(text, cutoff=MAX_LANGUAGE_RANK, n_results=3)
    ranked = cast(list[tuple[str, int]], found)
    near = [code for code, rank in ranked if rank <= NEAR_RANK * ranked[0][1]]
    return str(next((code for code in near if code in wanted), near[0] if near else "unknown"))
