"""A page as blocks: headings, paragraphs, list items, tables and code, each in its container.

The parser (resiliparse) repairs the page and writes it out again, well-formed; one regular
expression cuts that into tags and text, and one loop walks them with a stack of its own. There is
no recursion, so depth costs nothing, and every step is linear. Asking the parsed tree node by node
takes five times as long, for each answer is a new Python object.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from html import unescape
from typing import Literal

Kind = Literal["heading", "text", "item", "table", "code"]

_UNREAD = re.findall(
    r"\w+",
    "script style iframe noembed noframes xmp noscript plaintext svg math template select textarea "
    "object audio video canvas nav footer dialog button",
)
"""Elements that hold no text, or none of the page's own; most tags of a page stand in them."""
_TAG = re.compile(
    r"<(?:!--[^-]*(?:-(?!->)[^-]*)*--|"
    + "|".join(rf"{name}(?=[ >])[^<]*+(?:<(?!/{name}>)[^<]*+)*+</{name}" for name in _UNREAD)
    + r'|(/?[a-z][^>"]*+(?:"[^"]*+"[^>"]*+)*+)|[^>]*+)>'
)
"""A tag is caught; comments and unread elements are matched whole, and not caught."""
_ASIDE = frozenset(("aside", "menu", "figcaption"))
"""Elements whose text is beside the page's own."""
_ARTICLE = frozenset(("article", "main"))
IN_ITEM, IN_NOTE = 1, 2
"""What a container is or stands in: a list item; a figure or a header."""
_PLACES = {"li": IN_ITEM, "figure": IN_NOTE, "header": IN_NOTE}
_ASIDE_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        comment comments disqus respond reply replies share sharing sharedaddy social related
        recommend recommended recommendations promo newsletter sidebar breadcrumb breadcrumbs
        cookie cookies popup modal advert advertisement advertising ad ads sponsor sponsored
        outbrain taboola byline caption credit tags taglist subscribe subscription signup pagination
        pager menu navbar nav navigation footer masthead toolbar banner hidden noprint rating
        ratings author bio copyright trending popular login paywall
        """,
    )
)
"""Words in the class, id or role of such elements, on any site."""
_LABEL = re.compile(r'\b(?:class|id|role)="([^"]*)"')
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_HIDDEN = re.compile(
    r'(?:^|\s)hidden(?:=""|$|\s)|aria-hidden="true"|display:\s?none|visibility:\s?hidden'
)
_BREAK = "\x1e"  # stands for <br> until a block ends
MAX_CELL_CHARS = 300
"""A table with a longer cell lays out a page; its cells are paragraphs."""


@dataclass(slots=True)
class Block:
    """A run of text that stands by itself."""

    kind: Kind
    text: str
    level: int
    """Of a heading 1 to 6, of a list item its depth, else 0."""
    num_linked: int
    """Characters inside links."""
    container: int
    """Its innermost container."""


@dataclass(slots=True)
class Scan:
    """The blocks of a page in order, and the tree of their containers."""

    blocks: list[Block] = field(default_factory=list)
    parents: list[int] = field(default_factory=lambda: [0])
    """The container around each container; they are numbered as they begin, the root is 0."""
    places: list[int] = field(default_factory=lambda: [0])
    """What each container is or stands in: `IN_ITEM`, `IN_NOTE`, or both."""
    asides: list[int] = field(default_factory=list)
    """The containers that say, by tag or class, that they are beside the text, in order."""
    articles: list[int] = field(default_factory=list)
    """The containers that are an `article` or `main`, in order."""


class TooManyNodes(Exception):
    """More tags than the cap allows."""


class TooDeep(Exception):
    """More elements inside each other than the cap allows."""


def scan(html: str, *, max_nodes: int, max_depth: int) -> Scan:
    """Walk well-formed HTML, as the parser wrote it.

    Raises:
        TooManyNodes: Before anything is walked.
        TooDeep: When the walk comes there.
    """
    if html.count("<") > 2 * max_nodes:  # a beginning and an end
        raise TooManyNodes(f"more than {max_nodes} elements")
    parts = _TAG.split(html)
    walk = _Walk(max_depth)
    held, step_of = walk.held, _STEPS.get
    for tag, text in zip(parts[1::2], parts[2::2], strict=True):
        if tag:
            if step := step_of(tag):  # half of the tags are an end, or have no attributes
                step(walk, tag, "")
            else:
                name, _, attributes = tag.partition(" ")
                if attributes and (step := step_of(name)):
                    step(walk, name, attributes)
        if text and (held or not text.isspace()):
            held.append(text)
            if walk.num_links_open:
                walk.num_linked += len(text)
    walk.flush()
    return walk.found


@dataclass(slots=True)
class _Table:
    begin: int
    """Place of its first block."""
    rows: list[list[tuple[int, int]]] = field(default_factory=list)
    """For each cell, the blocks from and up to which it reaches."""


class _Walk:
    """What is open at one place of a page."""

    def __init__(self, max_depth: int) -> None:
        self.found = Scan()
        self.held: list[str] = []
        """Text of the block that is being read."""
        self.num_linked = 0
        self.num_links_open = 0
        self._max_depth = max_depth
        self._open = [0]
        self._is_code = False
        self._heading = 0
        self._marker = ""
        self._counters: list[int] = []  # of open lists: the last number, -1 where there are none
        self._tables: list[_Table] = []
        self._spans: list[bool] = []  # of open spans: whether they stand beside the text

    def enter(self, name: str, attributes: str) -> None:
        if self.held and not self._is_code:
            self.flush()
        found, opened = self.found, self._open
        parents, parent = found.parents, opened[-1]
        number = len(parents)
        parents.append(parent)
        found.places.append(found.places[parent] | _PLACES.get(name, 0))
        opened.append(number)
        if name in _ASIDE or (attributes and name != "body" and _is_aside(attributes)):
            found.asides.append(number)
        if name in _ARTICLE:
            found.articles.append(number)
        if len(opened) > self._max_depth:
            raise TooDeep(f"more than {self._max_depth} elements inside each other")

    def leave(self, name: str, attributes: str) -> None:
        if self.held and not self._is_code:
            self.flush()
        if len(self._open) > 1:
            self._open.pop()

    def open_span(self, name: str, attributes: str) -> None:
        if is_aside := attributes != "" and _is_aside(attributes):
            self.enter(name, attributes)
        self._spans.append(is_aside)

    def close_span(self, name: str, attributes: str) -> None:
        if self._spans and self._spans.pop():
            self.leave(name, attributes)

    def open_link(self, name: str, attributes: str) -> None:
        self.num_links_open += 1

    def close_link(self, name: str, attributes: str) -> None:
        self.num_links_open = max(0, self.num_links_open - 1)

    def inline_code(self, name: str, attributes: str) -> None:
        if not self._is_code:
            self.held.append("`")

    def line_break(self, name: str, attributes: str) -> None:
        if self.held:
            self.held.append(_BREAK)

    def part(self, name: str, attributes: str) -> None:
        self.flush()

    def open_heading(self, name: str, attributes: str) -> None:
        self.flush()
        self._heading = int(name[1])

    def close_heading(self, name: str, attributes: str) -> None:
        self.flush()
        self._heading = 0

    def open_code(self, name: str, attributes: str) -> None:
        self.flush()
        self._is_code = True

    def close_code(self, name: str, attributes: str) -> None:
        self.flush()
        self._is_code = False

    def open_list(self, name: str, attributes: str) -> None:
        self.enter(name, attributes)
        self._counters.append(0 if name == "ol" else -1)

    def close_list(self, name: str, attributes: str) -> None:
        self.leave(name, attributes)
        if self._counters:
            self._counters.pop()

    def open_item(self, name: str, attributes: str) -> None:
        self.enter(name, attributes)
        if self._counters and self._counters[-1] >= 0:
            self._counters[-1] += 1
            self._marker = f"{self._counters[-1]}. "
        else:
            self._marker = "- "

    def close_item(self, name: str, attributes: str) -> None:
        self.leave(name, attributes)
        self._marker = ""

    def open_table(self, name: str, attributes: str) -> None:
        self.enter(name, attributes)
        self._tables.append(_Table(len(self.found.blocks)))

    def open_row(self, name: str, attributes: str) -> None:
        self.enter(name, attributes)
        if self._tables:
            self._tables[-1].rows.append([])

    def open_cell(self, name: str, attributes: str) -> None:
        self.enter(name, attributes)
        if self._tables and self._tables[-1].rows:
            begin = len(self.found.blocks)
            self._tables[-1].rows[-1].append((begin, begin))

    def close_cell(self, name: str, attributes: str) -> None:
        self.leave(name, attributes)
        if self._tables and self._tables[-1].rows and (row := self._tables[-1].rows[-1]):
            row[-1] = (row[-1][0], len(self.found.blocks))

    def close_table(self, name: str, attributes: str) -> None:
        """Write a table of data as Markdown; one that lays out a page stays as it is."""
        self.flush()
        table, blocks = self._tables.pop() if self._tables else None, self.found.blocks
        if table and _is_data(table, blocks[table.begin :]):
            inside = blocks[table.begin :]
            text = _markdown([[_cell(blocks[a:b]) for a, b in row] for row in table.rows if row])
            del blocks[table.begin :]
            num_linked = sum(block.num_linked for block in inside)
            blocks.append(Block("table", text, 0, num_linked, self._open[-1]))
        self.leave(name, attributes)

    def flush(self) -> None:
        """End the block that is being read, if there is any."""
        if not self.held:
            return
        held, num_linked, self.num_linked = self.held, self.num_linked, 0
        raw = "".join(held)
        held.clear()
        if "&" in raw:
            raw = unescape(raw)
        kind: Kind = "text"
        level = 0
        if self._is_code:
            kind, text = "code", raw.replace(_BREAK, "\n").strip("\n")
        elif _BREAK in raw:
            text = _lines(raw)
        else:
            text = " ".join(raw.split())
        if self._heading and kind == "text":
            kind, level = "heading", self._heading
            text = text.rstrip(" \u00b6#").replace("\n", " ")  # without the link to itself
        if not text.strip(" `\n\u00b6"):
            return
        if self._marker and kind == "text":
            kind, level = "item", max(1, len(self._counters))
            text, self._marker = self._marker + text, ""
        num_linked = min(num_linked, len(text))
        self.found.blocks.append(Block(kind, text, level, num_linked, self._open[-1]))


_Step = Callable[[_Walk, str, str], None]
_STEPS: dict[str, _Step] = {"br": _Walk.line_break, "hr": _Walk.part}
for _names, _begin, _end in (
    (
        "body main article section div center form fieldset tbody thead tfoot dl dt dd blockquote "
        "figure header details summary p address caption aside figcaption",
        _Walk.enter,
        _Walk.leave,
    ),
    ("span", _Walk.open_span, _Walk.close_span),
    ("a", _Walk.open_link, _Walk.close_link),
    ("code kbd samp tt", _Walk.inline_code, _Walk.inline_code),
    ("h1 h2 h3 h4 h5 h6", _Walk.open_heading, _Walk.close_heading),
    ("pre", _Walk.open_code, _Walk.close_code),
    ("ul ol menu", _Walk.open_list, _Walk.close_list),
    ("li", _Walk.open_item, _Walk.close_item),
    ("table", _Walk.open_table, _Walk.close_table),
    ("tr", _Walk.open_row, _Walk.leave),
    ("td th", _Walk.open_cell, _Walk.close_cell),
):
    for _name in _names.split():
        _STEPS[_name], _STEPS["/" + _name] = _begin, _end


def _is_data(table: _Table, inside: list[Block]) -> bool:
    return (
        len(table.rows) > 1
        and max(map(len, table.rows)) > 1
        and all(stop - start < 2 for row in table.rows for start, stop in row)
        and all(b.kind in ("text", "heading") and len(b.text) <= MAX_CELL_CHARS for b in inside)
        and bool(inside)
    )


def _cell(blocks: list[Block]) -> str:
    return " ".join(block.text for block in blocks).replace("\n", " ").replace("|", "\\|")


def _markdown(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _lines(text: str) -> str:
    """Collapse white space, but for line breaks that the page asked for."""
    lines = (" ".join(line.split()) for line in text.split(_BREAK))
    return "\n".join(line for line in lines if line)


@lru_cache(maxsize=1 << 15)
def _is_aside(attributes: str) -> bool:
    if any(map(_names_aside, _LABEL.findall(attributes))):
        return True
    may_hide = "hidden" in attributes or "display" in attributes
    return may_hide and _HIDDEN.search(attributes) is not None


@lru_cache(maxsize=1 << 15)
def _names_aside(label: str) -> bool:
    return not _ASIDE_WORDS.isdisjoint(map(str.lower, _WORD.findall(label)))
