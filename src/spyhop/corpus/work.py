"""Work on one page: extract its main text, without menus, asides and crumbs; cut, redact, filter.

The same function runs on every machine.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import unescape
from typing import Literal, NamedTuple, cast

from pydantic import Field

from spyhop.corpus.blocks import main_blocks
from spyhop.corpus.charset import decode
from spyhop.corpus.filters import (
    MAX_LANGUAGE_RANK,
    FilterConfig,
    is_toxic,
    reason_against,
    url_reason,
)
from spyhop.corpus.formulas import with_formulas
from spyhop.corpus.personal import redact
from spyhop.corpus.read import ArchivePage, ReadConfig
from spyhop.corpus.scan import Block, Refused, scan
from spyhop.corpus.segment import CutConfig, Section, cut
from spyhop.lazy import lang, library
from spyhop.schema import Config, Row, Segment
from spyhop.store import row_id

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FENCE = re.compile(r"^(```|~~~)")
_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*$")
_TITLE = re.compile(r"<title\b[^<>]*+>([^<]*+(?:<(?!/title)[^<]*+)*+)", re.IGNORECASE)
_ENDS = tuple('.!?\u2026\u3002\uff01\uff1f\u0964"\u201d\u00bb')
MIN_LINE_CHARS = 30
"""Shortest line that counts as prose in plain text extracted by a crawler (WET)."""
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


class ExtractConfig(Config):
    """Limits of pages, and extraction of their main text."""

    extractor: Literal["blocks", "trafilatura"] = "blocks"
    """How text is extracted. `trafilatura` needs the extra of that name; it is slower and flattens
    some lists."""
    max_bytes: int = Field(5_000_000, gt=0)
    """Largest page in bytes; larger ones are dropped."""
    max_nodes: int = Field(100_000, gt=0)
    """Most elements of a page; pages with more are dropped."""
    max_depth: int = Field(1_000, gt=0)
    """Deepest nesting of containers; pages with deeper ones are dropped."""


class Extracted(NamedTuple):
    """The title and the main text of a page."""

    title: str
    blocks: list[Block]


def extract(data: bytes, charset: str, config: ExtractConfig) -> Extracted:
    """Return the main text of an HTML page. Nothing of it is executed or fetched.

    A page above a cap or without HTML is `Refused`.
    """
    if len(data) > config.max_bytes:
        raise Refused("too_many_bytes")
    html = decode(data, charset).replace("\x00", "")
    if "<" not in html:
        raise Refused("not_html")
    named = _TITLE.search(html)
    title = " ".join(unescape(named.group(1)).split()) if named else ""
    found = scan(with_formulas(html), max_nodes=config.max_nodes, max_depth=config.max_depth)
    if config.extractor == "trafilatura":
        peer = library("trafilatura", "extractor = 'trafilatura'")
        text = peer.extract(html, output_format="markdown", include_comments=False)
        return Extracted(title, text_blocks(text or ""))
    headings = (each.text for each in found.blocks if each.kind == "heading" and each.level == 1)
    return Extracted(next(headings, title), main_blocks(found))


def text_blocks(text: str) -> list[Block]:
    """Return the blocks of plain or Markdown text: paragraphs between empty lines, `#` headings."""
    blocks: list[Block] = []
    held: list[str] = []
    fence = ""

    def end(kind: Literal["text", "code"]) -> None:
        if paragraph := "\n".join(held).strip("\n"):
            blocks.append(Block(kind, paragraph, 0, 0, 0))
        held.clear()

    for line in _CONTROL.sub("", text).splitlines():
        mark, heading = _FENCE.match(line), _HEADING.match(line)
        if mark and (not fence or line.startswith(fence)):
            end("code" if fence else "text")
            fence = "" if fence else mark[1]
        elif fence or (line.strip() and not heading):
            held.append(line.rstrip())
        else:
            end("text")
            if heading:
                blocks.append(Block("heading", heading[2], len(heading[1]), 0, 0))
    end("code" if fence else "text")
    return blocks


def converted(text: str) -> Extracted:
    """Return the title and the sentences of a page that a crawler wrote out, one line a block."""
    first, _, rest = _CONTROL.sub("", text).strip().partition("\n")
    lines = (" ".join(line.split()) for line in rest.splitlines())
    kept = [line for line in lines if len(line) >= MIN_LINE_CHARS and line.endswith(_ENDS)]
    return Extracted(" ".join(first.split()), [Block("text", line, 0, 0, 0) for line in kept])


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
    redacted = [redact(text) for text in (section.text, *section.headings)]
    if not section.reason:
        plain, found = redacted[0]
        section = replace(
            section,
            language=language_of(section.prose, config.filters.languages),
            num_redacted=found.total(),
            is_plain=not page.is_html and "</" not in plain,  # else it is markup of another kind
        )
    reason = section.reason or reason_against(section, config.filters)
    text, *headings = [text for text, _ in redacted]
    if not config.redact:
        text, headings = section.text, list(section.headings)
    row = Segment(
        id=row_id(page.url, page.origin, str(section.start), text),
        url=page.url or page.origin,
        headings=headings,
        text=text,
        start=section.start,
        end=section.end,
        language=section.language,
        num_redacted=sum(found.total() for _, found in redacted) if config.redact else 0,
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
