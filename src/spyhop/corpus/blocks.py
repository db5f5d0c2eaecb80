"""Which blocks of a page are its main text: small decision trees vote, then a few rules.

The trees were fitted to public pages with known text by `benchmarks/corpus_blocks.py`, which also
measures them on sites that they were not fitted to.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from spyhop.corpus.features import PROSE_CHARS, Matrix, Vector, features
from spyhop.corpus.scan import Block, Scan
from spyhop.corpus.tags import MARKS

OWN_CHARS = 250
"""Prose outside comments and requests from which on they are not the page's own text, as in a forum
or a privacy policy."""
_BESIDE_TEXT = MARKS["comment"] | MARKS["asks"]

MIN_PROBABILITY = 0.45
"""Probability of being main text from which a block is kept."""
FOLLOWING = 0.4
"""Share of that probability that suffices for a list item, a table or code after main text."""
MAX_LINKED = 0.3
"""Share of its characters in links with which it still follows."""
_PARTS = frozenset(("item", "table", "code"))
MIN_FILLED_CHARS = 40
"""Least characters of a block that is kept for what is around it."""
MAX_HEADING_LINKED = 0.7
"""Share of its characters in links with which a heading of kept text is kept, however unlikely."""
LOWEST = 7
"""A level below all headings."""


@dataclass(frozen=True, slots=True)
class Trees:
    """Decision trees of the same number of leaves; their values add up to log-odds.

    A question that a row does not pass rules out the leaves on one side: its mask has a bit for
    each leaf that remains. The lowest bit that all masks of a tree leave is the row's leaf, so no
    tree is walked (QuickScorer, Lucchese et al. 2015).
    """

    columns: tuple[str, ...]
    """Names of the columns that they ask for."""
    places: Vector
    """Column of each question, (trees x questions)."""
    bounds: Vector
    """A row with more than this does not pass, (trees x questions)."""
    masks: Vector
    """Leaves that remain for a row that does not pass, (trees x questions)."""
    values: Vector
    """Log-odds of each leaf, (trees, leaves)."""

    def probabilities(self, rows: Matrix) -> Vector:
        """Return a probability for each row, some rows at a time."""
        log_odds = []
        for at in range(0, len(rows), BATCH_ROWS):
            some = rows[at : at + BATCH_ROWS]
            fails = some.T[self.places] > self.bounds[:, None]
            masks = np.where(fails, self.masks[:, None], ALL_LEAVES)
            masks = masks.reshape(len(self.values), -1, len(some))
            leaves = _LOWEST_BIT[np.bitwise_and.reduce(masks, axis=1)]
            log_odds.append(np.take_along_axis(self.values, leaves, axis=1).sum(0))
        return np.asarray(1 / (1 + np.exp(-np.concatenate(log_odds))))


BATCH_ROWS = 256
ALL_LEAVES = np.uint8(0xFF)
_LOWEST_BIT = np.array([0] + [(n & -n).bit_length() - 1 for n in range(1, 1 << 8)])


@cache
def trees() -> Trees:
    """Return the trees of this version."""
    held = json.loads(files("spyhop.corpus").joinpath("blocks.json").read_text())
    columns = tuple(held["columns"])
    places, bounds, masks = zip(*(each for tree in held["questions"] for each in tree), strict=True)
    return Trees(
        columns,
        np.array([columns.index(name) for name in places]),
        np.array(bounds, np.float32),
        np.array(masks, np.uint8),
        np.array(held["values"], np.float32),
    )


def matrix(scan: Scan, columns: tuple[str, ...]) -> Matrix:
    """Return the columns of a page that holds a block, (blocks, columns)."""
    found = features(scan)
    return np.array([found[name] for name in columns], np.float32).T


def main_blocks(scan: Scan) -> list[Block]:
    """Return the blocks that are main text, in order."""
    if not scan.blocks:
        return []
    model = trees()
    chances = model.probabilities(matrix(scan, model.columns))
    return chosen(scan, chances.tolist())


def chosen(
    scan: Scan, chances: Sequence[float], min_probability: float = MIN_PROBABILITY
) -> list[Block]:
    """Return the likely blocks, what follows them as their part, and what lies between them."""
    kept: list[bool] = []
    last: Block | None = None
    for block, chance in zip(scan.blocks, chances, strict=True):
        is_part = block.kind in _PARTS or (last and last.marks & block.marks & MARKS["li"])
        is_part = is_part and block.num_linked <= MAX_LINKED * len(block.text)
        kept.append(chance >= min_probability * (FOLLOWING if last and is_part else 1))
        if block.kind != "heading":
            last = block if kept[-1] else last if block.num_linked == len(block.text) else None
    return without_crumbs(scan.blocks, _filled(scan, kept))


def _filled(scan: Scan, kept: Sequence[bool]) -> list[bool]:
    """Keep prose that has kept blocks before and after it in the same container."""
    outer = [scan.parents[block.container] for block in scan.blocks]
    spans: dict[int, tuple[int, int]] = {}
    for at, (block, place) in enumerate(zip(scan.blocks, outer, strict=True)):
        if kept[at] and block.kind != "heading":
            spans[place] = (spans.get(place, (at, at))[0], at)
    filled = list(kept)
    for at, (block, place) in enumerate(zip(scan.blocks, outer, strict=True)):
        first, last = spans.get(place, (at, at))
        is_prose = block.kind != "heading" and len(block.text) >= MIN_FILLED_CHARS
        if first < at < last and is_prose and block.num_linked <= MAX_LINKED * len(block.text):
            filled[at] = True
    return filled


def without_crumbs(blocks: Sequence[Block], kept: Sequence[bool]) -> list[Block]:
    """Drop comments and requests (for consent, an address) beside a text; headings of nothing."""
    own = sum(
        len(block.text) - 2 * block.num_linked
        for block, is_kept in zip(blocks, kept, strict=True)
        if is_kept and block.kind != "heading" and not block.marks & _BESIDE_TEXT
        if len(block.text) >= PROSE_CHARS
    )
    found: list[Block] = []
    is_before_text = False
    bound = 0  # going backwards: headings above this level have text below them
    for block, is_kept in zip(reversed(blocks), reversed(kept), strict=True):
        if block.kind == "heading":
            is_titled = is_before_text and block.num_linked <= MAX_HEADING_LINKED * len(block.text)
            if block.level < bound and (is_kept or is_titled):
                found.append(block)
            bound = min(bound, block.level)
        elif is_kept and not (own > OWN_CHARS and block.marks & _BESIDE_TEXT):
            found.append(block)
            bound, is_before_text = LOWEST, True
        else:
            is_before_text = False
    return found[::-1]
