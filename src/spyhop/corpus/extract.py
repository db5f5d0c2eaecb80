"""The main text of a page: its blocks without what stands around and between them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from spyhop.corpus.scan import IN_ITEM, IN_NOTE, Block, Scan, TooDeep, TooManyNodes, scan
from spyhop.lazy import Lazy
from spyhop.schema import Config, InputError

if TYPE_CHECKING:
    import resiliparse.parse.encoding as encoding
else:
    encoding = Lazy("resiliparse.parse.encoding")

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FENCE = re.compile(r"^(```|~~~)")
_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*$")
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([\w-]{2,30})", re.IGNORECASE)
_TITLE = re.compile(r"<title\b[^<>]*+>([^<]*+(?:<(?!/title)[^<]*+)*+)", re.IGNORECASE)
CHARSET_BYTES = 4096
"""How far into a page its own word on its encoding is looked for."""


BLOCK_COST = 30
"""Characters that a block must have before it speaks for its container."""
LINK_WEIGHT = 1.5
"""Characters that one character in a link takes away again."""
LIST_WEIGHT = 0.5
"""What a block in a list counts: teasers of other pages stand in lists."""
ARTICLE_FRAC = 0.25
"""An `article` or `main` with this share of the best container's value is taken instead."""
ASIDE_FRAC = 0.5
"""What calls itself an aside is believed, unless it holds this share of the page's text."""
MAX_LINK_FRAC = 0.6
"""A block with more of its characters in links is not main text."""


class Refused(Exception):
    """A page that is not read; the message is the name of the reason."""


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
    """Containers inside each other."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """The title and the main text of a page."""

    title: str
    blocks: list[Block]


def extract(data: bytes, charset: str, config: ExtractConfig) -> Extracted:
    """Return the main text of an HTML page. Nothing of it is executed or fetched.

    Args:
        data: The page as it was sent.
        charset: What its HTTP header calls its encoding; empty where it does not.
        config: Caps and weights.

    Raises:
        Refused: If the page is above a cap (`too_many_bytes`, `too_many_nodes`, `too_deep`), or
            holds no HTML (`not_html`).
    """
    if len(data) > config.max_bytes:
        raise Refused("too_many_bytes")
    html = decode(data, charset)
    if "<" not in html:
        raise Refused("not_html")
    named = _TITLE.search(html)
    title = " ".join(unescape(named.group(1)).split()) if named else ""
    try:
        found = scan(html, max_nodes=config.max_nodes, max_depth=config.max_depth)
    except TooManyNodes:
        raise Refused("too_many_nodes") from None
    except TooDeep:
        raise Refused("too_deep") from None
    if config.extractor == "trafilatura":
        return Extracted(title, _trafilatura(html))
    headings = (
        block.text for block in found.blocks if block.kind == "heading" and block.level == 1
    )
    return Extracted(next(headings, title), main_blocks(found))


def decode(data: bytes, charset: str) -> str:
    """Return the text of a page: the byte order mark decides, then valid UTF-8, then its own word.

    A page of mixed encodings keeps what can be read; the rest becomes U+FFFD.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            own = _CHARSET.search(data, 0, CHARSET_BYTES)
            named = charset or (own.group(1).decode("ascii") if own else "")
            known = encoding.map_encoding_to_html5(named, False) if named else None
            known = known or encoding.detect_encoding(data) or "windows-1252"
            text = encoding.bytes_to_str(data, known, "replace")
    return text


def main_blocks(found: Scan) -> list[Block]:
    """Return the blocks of the container whose text outweighs its links and crumbs the most.

    Each block is worth its characters, less those in links, less a fixed cost; so a paragraph
    speaks for all containers around it and a menu against them. Asides count for nothing. Of the
    containers the one with the highest sum wins, the innermost of several.
    """
    parents, places = found.parents, found.places
    values, total = [0.0] * len(parents), [0.0] * len(parents)
    for block in found.blocks:
        if block.kind == "heading":
            continue
        place = block.container
        value = len(block.text) - LINK_WEIGHT * block.num_linked - BLOCK_COST
        if value > 0:
            if places[place] & IN_ITEM:
                value *= LIST_WEIGHT
            total[place] += value
        values[place] += max(value, -BLOCK_COST)
    is_out = _believed(found, total) if found.asides else [False] * len(parents)
    values = [0.0 if out else value for value, out in zip(values, is_out, strict=True)]
    _add_up(parents, values)
    best = len(values) - 1 - values[::-1].index(max(values))
    articles = [
        place
        for place in found.articles
        if place > best and not is_out[place] and values[place] > ARTICLE_FRAC * values[best]
    ]
    best = max(articles, key=lambda place: (values[place], place), default=best)
    is_in = [False] * len(parents)
    is_in[best] = True
    for place in range(best + 1, len(parents)):
        if parents[place] < best:
            break  # containers are numbered as they begin: no more of them stand in this one
        is_in[place] = is_in[parents[place]] and not is_out[place]
    return [
        block
        for block in found.blocks
        if is_in[block.container]
        and (block.kind == "heading" or block.num_linked <= MAX_LINK_FRAC * len(block.text))
        and not (places[block.container] & IN_NOTE and block.kind in ("text", "item"))
    ]


def _believed(found: Scan, total: list[float]) -> list[bool]:
    """Tell for each container whether it is, or stands in, an aside that is taken for one."""
    parents = found.parents
    _add_up(parents, total)
    is_out = [False] * len(parents)
    for place in found.asides:
        is_out[place] = total[place] < ASIDE_FRAC * total[0]
    for place in range(found.asides[0], len(parents)):
        if is_out[parents[place]]:
            is_out[place] = True
    return is_out


def _add_up(parents: list[int], sums: list[float]) -> None:
    """Add to each container what those inside it hold."""
    for place in range(len(sums) - 1, 0, -1):
        sums[parents[place]] += sums[place]


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


def _trafilatura(html: str) -> list[Block]:
    try:
        import trafilatura
    except ImportError:
        raise InputError(
            "extractor = 'trafilatura' needs it: pip install 'spyhop[trafilatura]'"
        ) from None
    return text_blocks(
        trafilatura.extract(html, output_format="markdown", include_comments=False) or ""
    )
