r"""Marks of a final answer: "the answer is", "Answer:", `####`, `\boxed{}`; and where it ends."""

import re
from collections import deque
from collections.abc import Iterator
from typing import Literal, NamedTuple, cast

from spyhop.text.tables import pattern, source, word_set

_CUE = re.compile(
    rf"(?:(?P<said>{source('marks_said')})|(?P<label>{source('marks_label')})"
    rf"|(?P<line>{source('marks_line')})|(?P<hash>####))[*_]{{0,3}}(?:\s{{0,3}}:)?",
    re.IGNORECASE | re.MULTILINE,
)
_BRACE = re.compile(r"(?P<box>\\(?:boxed|fbox) ?\{)|\\.|(?P<open>\{)|(?P<close>\})")
_LINE_CHARS = 4000
MAX_MARKS = 50
"""Marks that are read, from the last one back."""
_HYPOTHETICAL = pattern("marks_hypothetical")
_HYPOTHETICAL_CHARS = 60
_REST = re.compile(rf"[\s*]{{0,8}}([^\n]{{0,{_LINE_CHARS}}})")
_END = re.compile(r"(?<=\S)[.!?](?=[)\]}\"'*$]{0,4}(?:\s|$))|\u3002")
_ABBREVIATED = pattern("marks_abbreviated")
_STARTERS = word_set("starters")

Kind = Literal["said", "label", "line", "hash", "box"]


class Mark(NamedTuple):
    """A place where a response states its answer."""

    kind: Kind
    """`said`: "the answer is"; `label`: "Answer:"; `line`: "A:", "Solution:"; or `hash`, `box`."""
    start: int
    end: int
    """Where the stated text begins, in case of a box where it ends."""
    text: str
    """The stated text: the rest of its line, or the content of the box."""


def marks(text: str) -> list[Mark]:
    """Return the last marks of a final answer in order, without hypothetical ones."""
    found = [
        Mark(
            cast(Kind, cue.lastgroup),
            cue.start(),
            cue.end(),
            next(_REST.finditer(text, cue.end()))[1],
        )
        for cue in deque(_CUE.finditer(text), maxlen=MAX_MARKS)
        if not is_hypothetical(text, cue.start())
    ]
    return sorted([*found, *deque(_boxes(text), maxlen=MAX_MARKS)], key=lambda mark: mark.start)


def _boxes(text: str) -> Iterator[Mark]:
    """Yield the boxes whose braces are balanced, in the order in which they end."""
    opened: list[re.Match[str]] = []
    for brace in _BRACE.finditer(text):
        if brace["close"] and opened:
            box = opened.pop()
            if box["box"]:
                yield Mark("box", box.start(), brace.end(), text[box.end() : brace.start()])
        elif brace["box"] or brace["open"]:
            opened.append(brace)


def is_hypothetical(text: str, start: int) -> bool:
    """Return whether what begins at `start` is under a condition or a doubt."""
    return bool(_HYPOTHETICAL.search(text[max(0, start - _HYPOTHETICAL_CHARS) : start]))


def finished(text: str) -> str:
    """Return a text that was cut off up to the end of its last whole sentence or line."""
    ends = [end.end() for end in _END.finditer(text) if end.end() < len(text.rstrip())]
    return text[: max([text.rfind("\n") + 1, *ends[-1:]])]


def sentences(line: str) -> list[str]:
    """Split a line into sentences; initials and common abbreviations do not end one."""
    found, start = [], 0
    for end in _END.finditer(line):
        before = line[max(start, end.start() - 8) : end.start()]
        after = line[end.end() :].lstrip()
        is_name = after[:1].isupper() and re.split(r"\W", after, maxsplit=1)[0] not in _STARTERS
        if not (end[0] == "." and is_name and _ABBREVIATED.search(before)):
            found.append(line[start : end.start()])
            start = end.end()
    return [*found, line[start:]]
