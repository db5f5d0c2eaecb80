r"""Marks of a final answer: "the answer is", "Answer:", `####`, `\boxed{}`; and where it ends."""

import re
from collections import deque
from collections.abc import Iterator
from typing import Literal, NamedTuple, cast

from spyhop.text.tables import word_set

# Every repetition below is bounded, so that no response, however ugly, costs more than linear time.
_ASKED = r"(?: (?:to|for|of|in|that|which|as)\b[^\n.:=?!\"]{1,80}?|,? ?\([^()\n]{1,40}\))?"
_SAID = (
    r"\b(?:answers are|answer(?: (?:choice|option|letter|value))?"
    rf"{_ASKED}\s{{0,3}}(?:\b(?:is|was|equals|would be|should be|must be|will be)\b|=))"
)
_CHINESE = r"(?:\u7b54\u6848|\u7b54\u3048)[^\n\u3002:]{0,4}?[\u662f\u4e3a\u70ba\u306f:]"
_LABEL = r"\b(?:answer|ans|final result)[*_ ]{0,4}:|\bfinal answer[*_ ]{0,4}(?=[$0-9])"
_LINE = r"^[\s>*#_-]{0,8}(?:(?:the )?(?:result|solution)|A)[*_ ]{0,4}:"
_CUE = re.compile(
    rf"(?:(?P<said>{_SAID}|{_CHINESE})|(?P<label>{_LABEL})|(?P<line>{_LINE})|(?P<hash>####))[*_]{{0,3}}(?:\s{{0,3}}:)?",
    re.IGNORECASE | re.MULTILINE,
)
_BRACE = re.compile(r"(?P<box>\\(?:boxed|fbox) ?\{)|\\.|(?P<open>\{)|(?P<close>\})")
_LINE_CHARS = 4000
MAX_MARKS = 50
"""Marks that are read, from the last one back."""
_HYPOTHETICAL = re.compile(
    r"(?:\b(?:if|whether|unless|suppos\w{1,4}|assum\w{1,4}|doubt)|(?:not|n't) (?:think|believe))"
    r"(?: that)?(?: (?:the|my|your|our|final|correct|right|best|option|choice)){0,3}[ (]{0,2}$"
    r"|\b(?:wrong|incorrect|false|possible|other|another|initial|previous) $",
    re.IGNORECASE,
)
_HYPOTHETICAL_CHARS = 60
_REST = re.compile(rf"[\s*]{{0,8}}([^\n]{{0,{_LINE_CHARS}}})")
_END = re.compile(r"(?<=\S)[.!?](?=[)\]}\"'*$]{0,4}(?:\s|$))|\u3002")
_ABBREVIATED = re.compile(
    r"(?:\b(?:Dr|Mr|Mrs|Ms|St|Prof|Sr|Jr|vs|etc|e\.g|i\.e|No|approx|Mt|Gen|Col)|(?:^|[\s.])[A-Z])$"
)

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
