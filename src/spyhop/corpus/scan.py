"""A page as blocks: headings, paragraphs, list items, tables and code, each in its container.

The page is walked as it was sent, without a tree: what is never read is cut out, one regular
expression cuts the rest into tags and text, and one loop walks them with a stack of its own, which
closes what the page left open as the HTML standard says. There is no recursion, so depth costs
nothing. Parsing a page and writing it out again takes as long as all of this.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from html import unescape
from typing import Literal

from spyhop.corpus.formulas import written_script
from spyhop.corpus.tags import BESIDE, CAPITAL_TAG, MARKS, RAW, TAG, UNREAD, marks_of

Kind = Literal["heading", "text", "item", "table", "code"]

BREAK = "\x1e"
"""Stands for a line break until a block ends."""
NO_LINK = 1 << 60
MAX_BLANK_PIECES = 16
"""Pieces of text searched for the beginning of a line of code."""
MAX_CELL_CHARS = 300
"""A table with a longer cell lays out a page; its cells are paragraphs."""


@dataclass(slots=True)
class Block:
    """A heading, paragraph, list item, table or piece of code."""

    kind: Kind
    text: str
    level: int
    """Of a heading 1 to 6, of a list item its depth, else 0."""
    num_linked: int
    """Characters inside links."""
    container: int
    """Its innermost container."""
    marks: int = 0
    """`Mark` bits of its container, of those around it, and of a heading's own tag."""


@dataclass(slots=True)
class Scan:
    """The blocks of a page in order, and the tree of their containers."""

    blocks: list[Block] = field(default_factory=list)
    parents: list[int] = field(default_factory=lambda: [0])
    """The container around each container; they are numbered as they begin, the root is 0."""
    marks: list[int] = field(default_factory=lambda: [0])
    """Bits of each container and of those around it."""
    own: list[int] = field(default_factory=lambda: [0])
    names: list[str] = field(default_factory=lambda: [""])


class Refused(Exception):
    """A page that cannot be used; the message is the name of the reason."""


class _CapitalTags(Exception):
    """An element that is not read is written in capitals; the page must be respelled."""


def scan(html: str, *, max_nodes: int, max_depth: int) -> Scan:
    """Walk HTML as it was sent; above a cap it is `Refused`: `too_many_nodes` or `too_deep`."""
    try:
        return _scan(html, max_nodes, max_depth)
    except _CapitalTags:
        return _scan(CAPITAL_TAG.sub(lambda tag: tag[0].lower(), html), max_nodes, max_depth)


def _scan(html: str, max_nodes: int, max_depth: int) -> Scan:
    if html.count("<") > 8 * max_nodes:  # most may be in scripts
        raise Refused("too_many_nodes")
    parts = TAG.split(html)
    if len(parts) > 4 * max_nodes:  # a text before and after each of two tags
        raise Refused("too_many_nodes")
    walk = _Walk(max_depth)
    held, known, rest, blocks = walk.held, _KNOWN, iter(parts), walk.found.blocks
    held.append(next(rest))
    is_linked = False
    for tag, text in zip(rest, rest, strict=True):
        if tag == "a" or tag == "/a":
            if len(blocks) - walk.link > 1:  # before `<a>`: the last one was not closed
                walk.close_link()
            is_linked = tag == "a"
            walk.link = len(blocks) if is_linked else NO_LINK
        elif tag:
            step, name, marks = known.get(tag) or _learn(tag)
            if step:
                step(walk, name, marks)
        if text and (held or not text.isspace()):
            held.append(text)
            if is_linked:
                walk.num_linked += len(" ".join((unescape(text) if "&" in text else text).split()))
    walk.end()
    return walk.found


@dataclass(slots=True)
class _HtmlTable:
    container: int
    begin: int
    """Place of its first block."""
    rows: list[list[tuple[int, int]]] = field(default_factory=list)
    """For each cell, the blocks from and up to which it reaches."""


class _Walk:
    """The open elements and the text of the current block."""

    def __init__(self, max_depth: int) -> None:
        self.found = Scan()
        self._parents, self._marks = self.found.parents, self.found.marks
        self._own, self._elements = self.found.own, self.found.names
        self.held: list[str] = []
        """Text of the block that is being read."""
        self.num_linked = 0
        self._max_depth = max_depth
        self._open = [0]
        self._names = [""]
        """Names of the open containers, for end tags that are missing."""
        self._is_code, self._heading, self._heading_marks = False, 0, 0
        self._floor = 0
        """Containers that were open where code or a heading began: it ends with the last."""
        self._marker = ""
        self._counters: list[int] = []
        """Last numbers of the open lists, -1 for lists without numbers."""
        self._tables: list[_HtmlTable] = []
        self._wide: list[tuple[int, int]] = []
        self.link = NO_LINK
        """Number of blocks at the beginning of the current link."""
        self._skip, self._skip_name, self._script = -1, "", 0
        self._spans: list[int] = []  # of open spans beside the text: the spans open inside

    def enter(self, name: str, marks: int) -> None:
        if self._is_code:
            self._end_code_line()
        elif self.held:
            self.flush()
        opened, names, parents, inherited = self._open, self._names, self._parents, self._marks
        if names[-1] == "p":
            self._pop()
        parent, number = opened[-1], len(parents)
        parents.append(parent)
        inherited.append(inherited[parent] | marks)
        self._own.append(marks)
        self._elements.append(name)
        opened.append(number)
        names.append(name)
        if len(opened) > self._max_depth:
            raise Refused("too_deep")

    def leave(self, name: str, marks: int = 0) -> None:
        """End the innermost container of that name and all inside it, within a table cell."""
        if self._is_code:
            self._end_code_line()
        elif self.held:
            self.flush()
        names = self._names
        if names[-1] == name:
            if self._floor or name in _ENDS:
                self._pop()
            else:
                names.pop()
                self._open.pop()
            return
        walls = _TABLE_WALLS if name in _OF_TABLES else _WALLS
        for place in range(len(names) - 1, 0, -1):
            if names[place] == name:
                while len(names) > place:
                    self._pop()
                return
            if names[place] in walls:
                return

    def _end_code_line(self) -> None:
        """Begin a new line of code, where something is on this one."""
        for piece in self.held[: -MAX_BLANK_PIECES - 1 : -1]:
            line = piece.rpartition("\n")[2]
            if line.strip(" \t" + BREAK):
                self.held.append("\n")
                return
            if "\n" in piece or BREAK in piece:
                return

    def _pop(self) -> None:
        name = self._names.pop()
        self._open.pop()
        if end := _ENDS.get(name):
            end(self)
        if len(self._open) < self._floor:
            self.flush()
            self._is_code, self._heading, self._floor = False, 0, 0

    def _pop_to(self, names: frozenset[str]) -> bool:
        """End elements that cannot contain a part of a table; return whether a table is open."""
        self.flush()
        if self._tables:
            while self._names[-1] not in names:
                self._pop()
        return bool(self._tables)

    def end(self) -> None:
        """End the block that is being read and all that is open."""
        self.flush()
        while len(self._names) > 1:
            self._pop()
        self.close_link()
        blocks = self.found.blocks
        half = sum(len(block.text) for block in blocks) / 2
        for begin, end in self._wide:
            if sum(len(block.text) for block in blocks[begin:end]) > half:
                for block in blocks[begin:end]:
                    block.num_linked = 0

    def open_span(self, name: str, marks: int) -> None:
        if marks & MARKS["gutter"]:
            self.open_skip(name, marks)
        elif marks & BESIDE:
            self.enter(name, marks)
            self._spans.append(0)
        elif self._spans:
            self._spans[-1] += 1

    def close_span(self, name: str, marks: int) -> None:
        if self._skip >= 0 and self._skip_name == name:
            self.close_skip(name, marks)
        elif self._spans:
            if self._spans[-1]:
                self._spans[-1] -= 1
            else:
                self.leave(name)

    def close_link(self) -> None:
        """End a link; one around several blocks is noted."""
        num = len(self.found.blocks)
        if num - self.link > 1:
            self._wide.append((self.link, num))

    def open_script(self, name: str, marks: int) -> None:
        self._script = len(self.held)

    def close_script(self, name: str, marks: int) -> None:
        """Mark a superscript or subscript if its meaning depends on it: 10^6, x_i."""
        if 0 < self._script < len(self.held):
            base, script = self.held[self._script - 1], "".join(self.held[self._script :])
            self.held[self._script :] = [written_script(base, script, is_raised=name == "sup")]
        self._script = 0

    def open_skip(self, name: str, marks: int) -> None:
        """Leave out text up to the end of an element inside a line: readings, line numbers."""
        self.close_skip(name, marks)
        self._skip, self._skip_name = len(self.held), name

    def close_skip(self, name: str, marks: int) -> None:
        if self._skip >= 0:
            del self.held[self._skip :]
        self._skip = -1

    def inline_code(self, name: str, marks: int) -> None:
        if not self._is_code:
            self.held.append("`")

    def line_break(self, name: str, marks: int) -> None:
        if self.held:
            self.held.append(BREAK)

    def part(self, name: str, marks: int) -> None:
        self.flush()

    def open_special(self, name: str, marks: int) -> None:
        """Begin a heading or code, which end with their container; end the open paragraph."""
        self.flush()
        if self._names[-1] == "p":
            self._pop()
        self._floor = len(self._open)
        if name == "pre":
            self._is_code = True
        else:
            self._heading, self._heading_marks = int(name[1]), marks

    def close_special(self, name: str, marks: int) -> None:
        self.flush()
        if name == "pre":
            self._is_code = False
        else:
            self._heading = 0

    def open_list(self, name: str, marks: int) -> None:
        self.enter(name, marks)
        self._counters.append(0 if name == "ol" else -1)

    def open_term(self, name: str, marks: int) -> None:
        """Begin an item, or a term or its description, and end the one before."""
        if self._names[-1] == "p":
            self.leave("p")
        if self._names[-1] in (("li",) if name == "li" else ("dt", "dd")):
            self.leave(self._names[-1])
        self.enter(name, marks)

    def open_item(self, name: str, marks: int) -> None:
        self.open_term(name, marks)
        if self._counters and self._counters[-1] >= 0:
            self._counters[-1] += 1
            self._marker = f"{self._counters[-1]}. "
        else:
            self._marker = "- "

    def open_table(self, name: str, marks: int) -> None:
        self.enter(name, marks)
        self._tables.append(_HtmlTable(self._open[-1], len(self.found.blocks)))

    def open_rows(self, name: str, marks: int) -> None:
        if self._pop_to(_TABLE_WALLS):
            self.enter(name, marks)

    def open_row(self, name: str, marks: int) -> None:
        if self._pop_to(_HOLD_ROWS):
            self.enter(name, marks)
            self._tables[-1].rows.append([])

    def open_cell(self, name: str, marks: int) -> None:
        if not self._pop_to(_HOLD_CELLS):
            return
        if self._names[-1] != "tr":
            self.open_row("tr", marks=0)
        self.enter(name, marks)
        begin = len(self.found.blocks)
        self._tables[-1].rows[-1].append((begin, begin))

    def end_list(self) -> None:
        if self._counters:
            self._counters.pop()

    def end_item(self) -> None:
        self._marker = ""

    def end_span(self) -> None:
        if self._spans:
            self._spans.pop()

    def end_cell(self) -> None:
        if self._tables and self._tables[-1].rows and (row := self._tables[-1].rows[-1]):
            row[-1] = (row[-1][0], len(self.found.blocks))

    def end_table(self) -> None:
        """Write a table of data as Markdown; one that lays out a page stays as it is."""
        table, blocks = self._tables.pop(), self.found.blocks
        inside = blocks[table.begin :]
        is_grid = len(table.rows) > 1 and max(map(len, table.rows)) > 1 and bool(inside)
        is_grid = is_grid and all(stop - start < 2 for row in table.rows for start, stop in row)
        is_grid = is_grid and all(
            b.kind in ("text", "heading") and len(b.text) <= MAX_CELL_CHARS for b in inside
        )
        if is_grid:
            texts = ([blocks[a].text if a < b else "" for a, b in row] for row in table.rows if row)
            cells = [[text.replace("\n", " ").replace("|", "\\|") for text in row] for row in texts]
            lines = [f"| {' | '.join(row)} |" for row in cells]
            text = "\n".join([lines[0], "|" + " --- |" * len(cells[0]), *lines[1:]])
            del blocks[table.begin :]
            num_linked = sum(block.num_linked for block in inside)
            place = table.container
            blocks.append(Block("table", text, 0, num_linked, place, self._marks[place]))

    def flush(self) -> None:
        """End the block that is being read, if there is any."""
        if not self.held:
            return
        held, num_linked, self.num_linked = self.held, self.num_linked, 0
        if self._skip >= 0:
            self.close_skip("", 0)
        self._script = 0
        raw = "".join(held)
        held.clear()
        if "&" in raw:
            raw = unescape(raw)
        raw = raw.replace("\u00ad", "")
        kind: Kind = "text"
        level = 0
        if self._is_code:
            raw = raw.replace("\r\n", "\n").replace("\r", "\n").replace(BREAK, "\n")
            kind, text = "code", raw.strip("\n")
            if _is_gutter(text):
                return
        elif BREAK in raw:
            text = "\n".join(filter(None, (" ".join(line.split()) for line in raw.split(BREAK))))
        else:
            text = " ".join(raw.split())
        if self._heading and kind == "text":
            kind, level = "heading", self._heading
            text = text.rstrip(" \u00b6#").replace("\n", " ")  # without the link to itself
        if not text.strip(" `\n\u00b6"):
            return
        if self._marker and kind == "text":
            kind, level = "item", max(1, len(self._counters))
            if num_linked >= len(text):  # its mark is part of the link
                num_linked += len(self._marker)
            text, self._marker = self._marker + text, ""
        num_linked = min(num_linked, len(text))
        place = self._open[-1]
        marks = self._marks[place] | (self._heading_marks if kind == "heading" else 0)
        self.found.blocks.append(Block(kind, text, level, num_linked, place, marks))


_WALLS = frozenset(("td", "th", "caption", "table"))  # containers that no end inside them may end
_TABLE_WALLS = frozenset(("table",))
_HOLD_ROWS = frozenset(("table", "thead", "tbody", "tfoot"))
_HOLD_CELLS = frozenset((*_HOLD_ROWS, "tr"))
_OF_TABLES = frozenset((*_HOLD_CELLS, "td", "th", "caption"))
_ENDS: dict[str, Callable[[_Walk], None]] = {
    "ul": _Walk.end_list, "ol": _Walk.end_list, "menu": _Walk.end_list, "li": _Walk.end_item,
    "td": _Walk.end_cell, "th": _Walk.end_cell, "table": _Walk.end_table, "span": _Walk.end_span,
}  # fmt: skip
_Step = Callable[[_Walk, str, int], None]
_STEPS: dict[str, _Step] = {"br": _Walk.line_break, "/br": _Walk.line_break, "hr": _Walk.part}
for _names, _begin, _end in (
    (
        "section div center form fieldset dl blockquote details summary p address aside nav footer "
        "figcaption main article figure header",
        _Walk.enter,
        _Walk.leave,
    ),
    ("sup sub", _Walk.open_script, _Walk.close_script),
    ("rt rp", _Walk.open_skip, _Walk.close_skip),
    ("ruby", _Walk.close_skip, _Walk.close_skip),
    ("span", _Walk.open_span, _Walk.close_span),
    ("code kbd samp tt", _Walk.inline_code, _Walk.inline_code),
    ("h1 h2 h3 h4 h5 h6 pre", _Walk.open_special, _Walk.close_special),
    ("ul ol menu", _Walk.open_list, _Walk.leave),
    ("li", _Walk.open_item, _Walk.leave),
    ("dt dd", _Walk.open_term, _Walk.leave),
    ("table", _Walk.open_table, _Walk.leave),
    ("tbody thead tfoot caption", _Walk.open_rows, _Walk.leave),
    ("tr", _Walk.open_row, _Walk.leave),
    ("td th", _Walk.open_cell, _Walk.leave),
    ("body", _Walk.part, _Walk.part),
):
    for _name in _names.split():
        _STEPS[_name], _STEPS["/" + _name] = _begin, _end

_KNOWN: dict[str, tuple[_Step | None, str, int]] = {}
"""Tags as they are in pages: what to do, the name, the marks."""
MAX_KNOWN = 1 << 15


def _learn(tag: str) -> tuple[_Step | None, str, int]:
    name = tag.split(None, 1)[0].rstrip("/")
    if not name.islower():
        name = name.lower()
        if name in UNREAD or name in RAW or name == "a":
            raise _CapitalTags
    step = _STEPS.get(name)
    marks = marks_of(name, tag) if step and name[0] != "/" else 0
    if len(_KNOWN) >= MAX_KNOWN:
        _KNOWN.clear()
    found = _KNOWN[tag] = step, name.lstrip("/"), marks
    return found


def _is_gutter(text: str) -> bool:
    """Return whether text is the numbers of some lines."""
    lines = text.split() if text[:1].isdecimal() and "\n" in text else []
    if not all(line.isdecimal() and len(line) < 7 for line in lines):
        return False
    numbers = list(map(int, lines))
    return len(numbers) > 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
