"""Which blocks of a page are its main text: small decision trees vote, then a few rules.

The trees judge each block by numbers: how it looks, where it is, and what surrounds it. They were
fitted to public pages with known text by `benchmarks/corpus_blocks.py`, which also measures them on
sites that they were not fitted to.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from spyhop.corpus.scan import Block, Scan
from spyhop.corpus.tags import BESIDE, MARKS

Vector = npt.NDArray[Any]
Matrix = npt.NDArray[np.float32]

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
BATCH_ROWS = 256
ALL_LEAVES = np.uint8(0xFF)
_LOWEST_BIT = np.array([0] + [(n & -n).bit_length() - 1 for n in range(1, 1 << 8)])


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
    """Return the likely blocks, what follows them as their part, and what lies between them.

    Prose is kept, too, between kept blocks of its container.
    """
    kept: list[bool] = []
    last: Block | None = None
    spans: dict[int, tuple[int, int]] = {}  # first and last kept block, by the outer container
    for at, (block, chance) in enumerate(zip(scan.blocks, chances, strict=True)):
        is_part = block.kind in _PARTS or (last and last.marks & block.marks & MARKS["li"])
        is_part = is_part and block.num_linked <= MAX_LINKED * len(block.text)
        kept.append(chance >= min_probability * (FOLLOWING if last and is_part else 1))
        if block.kind != "heading":
            last = block if kept[-1] else last if block.num_linked == len(block.text) else None
            if kept[-1]:
                place = scan.parents[block.container]
                spans[place] = (spans.get(place, (at, at))[0], at)
    for at, block in enumerate(scan.blocks):
        begin, end = spans.get(scan.parents[block.container], (at, at))
        is_prose = block.kind != "heading" and len(block.text) >= MIN_FILLED_CHARS
        if begin < at < end and is_prose and block.num_linked <= MAX_LINKED * len(block.text):
            kept[at] = True
    return _without_crumbs(scan.blocks, kept)


def _without_crumbs(blocks: Sequence[Block], kept: Sequence[bool]) -> list[Block]:
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


PROSE_CHARS = 80
"""A shorter block is not counted as prose."""
BLOCK_COST = 30
"""Characters that a block must have before it counts for its container."""
LINK_WEIGHT = 1.5
"""Characters that one character in a link takes away."""
ITEM_WEIGHT = 0.5
"""Weight of a block in a list: teasers of other pages are in lists."""
START_CHARS = 50
"""Beginning of a block in which digits and capitals are counted."""
FAR = 15
"""Blocks beyond which a distance is not told apart."""
STEPS = (-3, -2, -1, 1, 2, 3)
_INLINE = frozenset(("p", "span"))
_UNITS = frozenset(("p", "span", "td", "th", "tr"))


def features(scan: Scan) -> dict[str, Vector]:
    """Return the columns that a block is judged by, one value for each block."""
    shape = np.array([_shape(block, scan.names[block.container]) for block in scan.blocks])
    look: dict[str, Vector] = dict(zip(_SHAPE, shape.T, strict=True))
    chars, linked, place = look.pop("chars"), look.pop("linked"), look["place"].astype(int)
    marks = look.pop("marks").astype(int)
    look |= {"log_chars": np.log1p(chars), "linked_frac": linked / np.maximum(1, chars)}
    look |= zip(_IS, (marks & _BITS) > 0, strict=True)
    look |= _context(scan, look, chars, linked, place)
    return look | _neighbours(look)


def _context(
    scan: Scan, look: dict[str, Vector], chars: Vector, linked: Vector, place: Vector
) -> dict[str, Vector]:
    """Describe the containers around each block, its section, and the page."""
    num, order = len(chars), np.arange(len(chars))
    heading = look["heading"] > 0
    value = chars - LINK_WEIGHT * linked - BLOCK_COST
    value[look["is_li"] & (value > 0)] *= ITEM_WEIGHT
    value = np.where(heading, 0, np.maximum(value, -BLOCK_COST))
    prose = np.where(~heading & (chars > PROSE_CHARS), np.maximum(0, chars - 2 * linked), 0)
    ones = np.ones(num)
    own_value = np.bincount(place, value, len(scan.parents))
    ends = _ends(scan.parents)
    sums = (  # containers are numbered in a row, so that a difference adds up those inside
        np.concatenate([[0.0], np.cumsum(np.bincount(place, each, len(ends)))])
        for each in (chars, linked, ones, value, prose)
    )
    total, links, counts, values, proses = (each[ends] - each[:-1] for each in sums)
    best = len(values) - 1 - int(np.argmax(values[::-1]))
    around, beside, in_best, near, twins = _containers(scan, counts.tolist(), best)
    up = around[place]
    outer = around[np.array(scan.parents)[up]]
    side = beside[place]
    all_prose, top = max(1.0, proses[0]), max(1.0, values[best])
    share, density = total / max(1.0, total[0]), links / np.maximum(1, total)
    has_side = side > 0
    titles = np.flatnonzero(heading & (look["level"] == 1))
    title = titles[0] if len(titles) else num
    section = np.cumsum(heading)
    in_section = [
        np.bincount(section, each)[section]
        for each in (chars * ~heading, linked * ~heading, prose, ones)
    ]
    comment_prose = prose[look["is_comment"]].sum() / all_prose
    following, last = _distances(prose > 1.5 * PROSE_CHARS)
    return {
        "in_best": in_best[place], "up_value": values[up] / top, "outer_value": values[outer] / top,
        "own_value": own_value[place] / top, "up_share": share[up], "outer_share": share[outer],
        "up_density": density[up], "outer_density": density[outer],
        "up_mean": np.log1p(total[up] / np.maximum(1, counts[up])),
        "up_count": np.log1p(counts[up]),
        "up_prose": proses[up] / all_prose,
        "has_side": has_side, "side_share": share[side] * has_side,
        "side_density": density[side] * has_side, "side_prose": proses[side] / all_prose * has_side,
        "prose_before": (np.cumsum(prose) - prose) / all_prose, "order": order / num,
        "from_title": (order - title) / num, "is_before_title": (order < title) & (title < num),
        "comment_prose": ones * comment_prose,
        "item_prose": ones * prose[look["is_li"]].sum() / all_prose,
        "page_prose": ones * np.log1p(all_prose), "page_density": ones * density[0],
        "next_prose": following, "last_prose": last,
        "section_chars": np.log1p(in_section[0]),
        "section_density": in_section[1] / np.maximum(1, in_section[0]),
        "section_prose": in_section[2] / all_prose, "section_count": np.log1p(in_section[3]),
        "twins": np.log1p(twins[place, 0]), "twin_blocks": twins[place, 1],
        **dict(zip(_NEAR, (near[place] & _BITS[: len(_NEAR)]) > 0, strict=True)),
        "same_up": up,
    }  # fmt: skip


_BITS = np.array(list(MARKS.values()))[:, None]
_IS = [f"is_{name}" for name in MARKS]
_NEAR = [f"near_{name}" for name, bit in MARKS.items() if bit <= BESIDE]
_SHAPE = (
    "chars", "linked", "marks", "place", "heading", "text", "item", "level", "ends", "commas",
    "lines", "digits", "capitals", "rights", "in_p", "in_li", "in_div",
)  # fmt: skip


def _shape(block: Block, name: str) -> tuple[float, ...]:
    text, kind = block.text, block.kind
    num, start = len(text), text[:START_CHARS]
    return (
        num, block.num_linked, block.marks, block.container, kind == "heading", kind == "text",
        kind == "item", block.level if kind == "heading" else 0,
        text[-1:] in ".!?\u2026\u3002\u201d\"\u00bb)\uff01\uff1f",
        min(8, text.count(",") + text.count("\u3001") + text.count("\uff0c")), "\n" in text,
        sum(map(str.isdigit, start)) / len(start), sum(map(str.isupper, start)) / len(start),
        "\u00a9" in text, name == "p", name == "li", name == "div",
    )  # fmt: skip


def _ends(parents: list[int]) -> Vector:
    """Return for each container the number after the last one inside it."""
    ends = list(range(1, len(parents) + 1))
    for at in range(len(ends) - 1, 0, -1):
        if ends[at] > ends[parents[at]]:
            ends[parents[at]] = ends[at]
    return np.array(ends)


def _containers(
    scan: Scan, counts: list[float], best: int
) -> tuple[Vector, Vector, Vector, Vector, Vector]:
    """Describe each container.

    Returns the innermost one around it with several blocks; the outermost one around it that is
    beside the text; whether it is in the best one; marks of the three innermost; and how many of
    its kind are side by side, with their mean number of blocks.
    """
    parents, own, names = scan.parents, scan.own, scan.names
    num = len(parents)
    around, beside, near = [0] * num, [0] * num, [0] * num
    in_best = [at == best for at in range(num)]
    groups: dict[tuple[int, str, int], list[int]] = {}
    for at in range(1, num):
        up, name = parents[at], names[at]
        around[at] = around[up] if counts[at] < 2 or name in _INLINE else at
        beside[at] = beside[up] or (at if own[at] & BESIDE else 0)
        in_best[at] = in_best[at] or in_best[up]
        near[at] = own[at] | own[up] | own[parents[up]]
        if counts[at] and name not in _UNITS:
            groups.setdefault((up, name, own[at]), []).append(at)
    twins = [(0.0, 0.0)] * num
    for members in groups.values():
        if len(members) > 1:
            mean = sum(counts[at] for at in members) / len(members)
            for at in members:
                twins[at] = (len(members), mean)
    for at in range(1, num):
        if twins[at][0] < twins[parents[at]][0]:
            twins[at] = twins[parents[at]]
    return np.array(around), np.array(beside), np.array(in_best), np.array(near), np.array(twins)


def _distances(is_prose: Vector) -> tuple[Vector, Vector]:
    """Return how many blocks it is to the next prose, and from the last."""
    num, order = len(is_prose), np.arange(len(is_prose))
    last = np.maximum.accumulate(np.where(is_prose, order, -FAR - 1))
    following = np.minimum.accumulate(np.where(is_prose, order, num + FAR)[::-1])[::-1]
    last, following = np.roll(last, 1), np.roll(following, -1)
    last[0], following[-1] = -FAR - 1, num + FAR
    return np.minimum(FAR, following - order), np.minimum(FAR, order - last)


def _neighbours(look: dict[str, Vector]) -> dict[str, Vector]:
    """Describe the blocks before and after; -1 where the page ends."""
    names = ("log_chars", "linked_frac", "ends", "in_best")
    own = np.column_stack([look[name] for name in names])
    up = look.pop("same_up")
    del look["place"]
    num = len(up)
    found: dict[str, Vector] = {}
    for step in STEPS:
        at = np.arange(num) + step
        is_inside = (at >= 0) & (at < num)
        at = np.clip(at, 0, num - 1)
        rows = np.where(is_inside[:, None], own[at], -1)
        found |= {f"{name}{step:+d}": rows[:, column] for column, name in enumerate(names)}
        found[f"same_up{step:+d}"] = np.where(is_inside, up[at] == up, -1)
    return found
