"""Cut a page's main text under its headings.

Source: Humpback (arXiv:2308.06259, version 3, appendix E): a segment is the text under a heading
with its lower headings, of 600 to 3,000 characters.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field, model_validator

from spyhop.corpus.scan import Block
from spyhop.schema import Config

ITEM_INDENT = "  "


class CutConfig(Config):
    """Length of segments."""

    min_chars: int = Field(600, ge=1)
    """Least characters of a segment."""
    max_chars: int = Field(3000, ge=1)
    """Most characters of a segment."""

    @model_validator(mode="after")
    def _ordered(self) -> "CutConfig":
        if self.min_chars > self.max_chars:
            raise ValueError(f"min_chars {self.min_chars} is above max_chars {self.max_chars}")
        return self


@dataclass(frozen=True, slots=True)
class Section:
    """The text under one heading, and where it stands in the page's text."""

    headings: tuple[str, ...]
    text: str
    start: int
    end: int
    prose: str
    """The text without code and tables."""
    reason: str = ""
    """Why it cannot be a segment: `too_short` or `too_long`; empty where it can."""


def cut(title: str, blocks: Sequence[Block], config: CutConfig) -> Iterator[Section]:
    """Yield the sections of a page in order, each as large as the cap allows.

    A section that is too long is cut at its highest headings, into the text before the first of
    them and one section for each; without headings it is `too_long`. Sections never overlap, and
    `text` is the page's text from `start` to `end`.
    """
    text, places = render(blocks)
    waiting: list[tuple[int, int, tuple[str, ...]]] = [(0, len(blocks), (title,) if title else ())]
    while waiting:
        low, high, headings = waiting.pop()
        if low == high:
            continue
        start, end = places[low][0], places[high - 1][1]
        levels = [block.level for block in blocks[low:high] if block.kind == "heading"]
        is_headed = blocks[low].kind == "heading" and levels.count(min(levels)) == 1
        if levels and (end - start > config.max_chars or is_headed):
            waiting += reversed(_parts(blocks, low, high, headings, min(levels)))
            continue
        if len(levels) == high - low:  # headings of nothing
            continue
        prose = "\n".join(b.text for b in blocks[low:high] if b.kind in ("text", "item"))
        short, long = end - start < config.min_chars, end - start > config.max_chars
        reason = "too_short" if short else "too_long" if long else ""
        yield Section(headings, text[start:end], start, end, prose, reason)


def _parts(
    blocks: Sequence[Block], low: int, high: int, headings: tuple[str, ...], level: int
) -> list[tuple[int, int, tuple[str, ...]]]:
    """Cut a range at its headings of one level; each part stands without its own heading."""
    cuts = [
        at for at in range(low, high) if blocks[at].kind == "heading" and blocks[at].level == level
    ]
    parts = [(low, cuts[0], headings)]
    for at, stop in zip(cuts, [*cuts[1:], high], strict=True):
        name = blocks[at].text
        path = headings if headings and headings[-1] == name else (*headings, name)
        parts.append((at + 1, stop, path))
    return parts


def render(blocks: Sequence[Block]) -> tuple[str, list[tuple[int, int]]]:
    """Return the blocks as one Markdown text, and where each stands in it."""
    pieces: list[str] = []
    places: list[tuple[int, int]] = []
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
