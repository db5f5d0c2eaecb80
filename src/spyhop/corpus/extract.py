"""The main text of a page, without menus, asides and crumbs."""

from __future__ import annotations

import re
from html import unescape
from typing import Literal, NamedTuple

from pydantic import Field

from spyhop.corpus.blocks import main_blocks
from spyhop.corpus.charset import decode
from spyhop.corpus.formulas import with_formulas
from spyhop.corpus.scan import Block, Refused, scan
from spyhop.lazy import library
from spyhop.schema import Config

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FENCE = re.compile(r"^(```|~~~)")
_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*$")
_TITLE = re.compile(r"<title\b[^<>]*+>([^<]*+(?:<(?!/title)[^<]*+)*+)", re.IGNORECASE)

_ENDS = tuple('.!?\u2026\u3002\uff01\uff1f\u0964"\u201d\u00bb')
MIN_LINE_CHARS = 30
"""Shortest line that counts as prose in plain text extracted by a crawler (WET)."""


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
        if mark := _FENCE.match(line):
            if fence and line.startswith(fence):
                end("code")
                fence = ""
                continue
            if not fence:
                end("text")
                fence = mark.group(1)
                continue
        if fence or (line.strip() and not _HEADING.match(line)):
            held.append(line.rstrip())
            continue
        end("text")
        if heading := _HEADING.match(line):
            blocks.append(Block("heading", heading.group(2), len(heading.group(1)), 0, 0))
    end("code" if fence else "text")
    return blocks


def converted(text: str) -> Extracted:
    """Return the title and the sentences of a page that a crawler wrote out, one line a block."""
    first, _, rest = _CONTROL.sub("", text).strip().partition("\n")
    lines = (" ".join(line.split()) for line in rest.splitlines())
    kept = [line for line in lines if len(line) >= MIN_LINE_CHARS and line.endswith(_ENDS)]
    return Extracted(" ".join(first.split()), [Block("text", line, 0, 0, 0) for line in kept])
