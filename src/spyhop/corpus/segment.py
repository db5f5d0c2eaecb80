"""Cut a page's main text under its headings.

Source: Humpback (arXiv:2308.06259, version 3, appendix E): a segment is the text under a heading
with its lower headings, of 600 to 3,000 characters.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field, model_validator

from spyhop.corpus.scan import Block
from spyhop.schema import Config

ITEM_INDENT = "  "
_DENSE = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]")
"""Kana, Han and Hangul: scripts in which one character says more than a Latin letter."""
DENSE_WEIGHT = 2.5
"""Characters that one of them counts as."""
_SENTENCE_END = re.compile(
    r"(?<=[.!?\u2026][\s\"'\u201d\u00bb)])|(?<=[\u3002\uff01\uff1f\uff0e\u0964])|\n"
)
_INTRODUCES = (":", "\uff1a")  # ends of a block that belongs to the one after it
_PROSE = ("text", "item")  # kinds of blocks that are neither headings, code nor tables
Span = tuple[int, int]


class CutConfig(Config):
    """Length of a segment."""

    min_chars: int = Field(600, ge=1)
    """Shortest segment in characters; shorter sections are dropped. Chinese, Japanese and Korean
    characters count as 2.5."""
    max_chars: int = Field(3000, ge=1)
    """Longest segment in characters; a longer section is cut at headings, then at paragraphs."""

    @model_validator(mode="after")
    def _ordered(self) -> "CutConfig":
        if self.min_chars > self.max_chars:
            raise ValueError(f"min_chars {self.min_chars} is above max_chars {self.max_chars}")
        return self


@dataclass(frozen=True, slots=True)
class Section:
    """The text under one heading, its position in the page's text, and what filters ask for."""

    headings: tuple[str, ...]
    text: str
    start: int
    end: int
    prose: str
    """The text without code and tables."""
    reason: str = ""
    """Why it cannot be a segment: `too_short` or `too_long`; empty where it can."""
    language: str = ""
    num_redacted: int = 0
    is_plain: bool = False
    """Whether the page is plain text, which need not have headings."""

    @property
    def heading(self) -> str:
        """The heading right above the text."""
        return self.headings[-1] if self.headings else ""


def size_of(text: str) -> float:
    """Return the length of a text in characters of a Latin script."""
    if text.isascii():
        return len(text)
    return len(text) + (DENSE_WEIGHT - 1) * len(_DENSE.findall(text))


def cut(title: str, blocks: Sequence[Block], config: CutConfig) -> Iterator[Section]:
    """Yield the sections of a page in order, each as large as the cap allows.

    A section that is too long is cut at its highest headings. One without headings is cut between
    paragraphs into parts of like length, a paragraph above the cap between sentences; code or a
    table above it is `too_long`. Sections never overlap.
    """
    text, places = render(blocks)
    waiting: list[tuple[int, int, tuple[str, ...]]] = [(0, len(blocks), (title,) if title else ())]
    while waiting:
        low, high, headings = waiting.pop()
        if low == high:
            continue
        span = places[low][0], places[high - 1][1]
        levels = [block.level for block in blocks[low:high] if block.kind == "heading"]
        is_headed = blocks[low].kind == "heading" and levels.count(min(levels)) == 1
        is_long = size_of(text[slice(*span)]) > config.max_chars
        if levels and (is_long or is_headed):
            cuts = [
                at
                for at in range(low, high)
                if blocks[at].kind == "heading" and blocks[at].level == min(levels)
            ]
            parts = [(low, cuts[0], headings)]  # no part includes its own heading
            for at, stop in zip(cuts, [*cuts[1:], high], strict=True):
                path = (*headings, blocks[at].text)
                parts.append((at + 1, stop, headings if headings[-1:] == path[-1:] else path))
            waiting += reversed(parts)
        elif is_long:
            for pieces in _long_parts(text, blocks[low:high], places[low:high], config):
                yield _section(text, pieces, headings, config)
        elif len(levels) < high - low:  # not only headings
            kinds = (block.kind for block in blocks[low:high])
            yield _section(text, [*zip(places[low:high], kinds, strict=True)], headings, config)


Piece = tuple[Span, str]
"""A block or a sentence: its position in the text, and its kind."""


def _section(
    text: str, pieces: Sequence[Piece], headings: tuple[str, ...], config: CutConfig
) -> Section:
    span = (pieces[0][0][0], pieces[-1][0][1])
    prose = "\n".join(text[slice(*place)].strip() for place, kind in pieces if kind in _PROSE)
    size = size_of(text[slice(*span)])
    reason = "too_short" if size < config.min_chars else "too_long" * (size > config.max_chars)
    return Section(headings, text[slice(*span)], *span, prose, reason)


def _long_parts(
    text: str, blocks: Sequence[Block], places: Sequence[Span], config: CutConfig
) -> Iterator[list[Piece]]:
    """Cut a range without headings between its paragraphs, or sentences, into parts of like length.

    A paragraph that introduces the next one stays with it where both fit.
    """
    pieces: list[Piece] = []
    for block, place in zip(blocks, places, strict=True):
        is_long = block.kind in _PROSE and size_of(text[slice(*place)]) > config.max_chars
        pieces += [(span, block.kind) for span in (_sentences(text, place) if is_long else [place])]
    sizes = [size_of(text[slice(*span)]) for span, _ in pieces]
    goal = sum(sizes) / -(-sum(sizes) // config.max_chars)
    held: list[Piece] = []
    total = 0.0
    for piece, size in zip(pieces, sizes, strict=True):
        if held:
            whole = total + piece[0][0] - held[-1][0][1] + size
            if whole > config.max_chars or total + size / 2 > goal:
                stays = len(held) > 1 and text[slice(*held[-1][0])].endswith(_INTRODUCES)
                rest = [held.pop()] if stays else []
                yield held
                held, total = rest, sum(size_of(text[slice(*span)]) for span, _ in rest)
            total += piece[0][0] - held[-1][0][1] if held else 0
        held.append(piece)
        total += size
    yield held


def _sentences(text: str, place: Span) -> Iterator[Span]:
    """Yield the sentences of a paragraph without the space between them."""
    start, end = place
    for stop in [*(match.end() for match in _SENTENCE_END.finditer(text, start, end)), end]:
        piece = text[start:stop]
        if piece.strip():
            yield start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
        start = stop


def render(blocks: Sequence[Block]) -> tuple[str, list[Span]]:
    """Return the blocks as one Markdown text, and the position of each in it."""
    pieces: list[str] = []
    places: list[Span] = []
    at = 0
    for place, block in enumerate(blocks):
        both_items = place > 0 and block.kind == blocks[place - 1].kind == "item"
        gap = "" if not place else "\n" if both_items else "\n\n"
        piece = _markdown(block)
        places.append((at + len(gap), at + len(gap) + len(piece)))
        at += len(gap) + len(piece)
        pieces += [gap, piece]
    return "".join(pieces), places


def _markdown(block: Block) -> str:
    if block.kind == "heading":
        return f"{'#' * block.level} {block.text}"
    if block.kind == "code":
        fence = "````" if "```" in block.text else "```"
        return f"{fence}\n{block.text}\n{fence}"
    if block.kind == "item":
        return ITEM_INDENT * (block.level - 1) + block.text
    return block.text
