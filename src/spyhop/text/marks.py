r"""Marks of a final answer: "the answer is", "Answer:", `####`, `\boxed{}`; and where it ends."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

# Every repetition below is bounded, so that no response, however ugly, costs more than linear time.
_ASKED = r"(?: (?:to|for|of|in|that|which|as)\b[^\n.:=?!]{1,80}?|,? ?\([^()\n]{1,40}\))?"
_SAID = (
    r"\banswers?(?: (?:choice|option|letter|value))?"
    rf"{_ASKED}\s{{0,3}}(?:\b(?:is|was|are|equals|would be|should be|must be|will be)\b|=)"
)
_LABEL = r"\b(?:answer|ans|final result)[*_ ]{0,4}:"
_LINE = r"^[\s>*#_-]{0,8}(?:(?:the )?(?:result|solution)|A)[*_ ]{0,4}:"
_CUE = re.compile(
    rf"(?:(?P<said>{_SAID})|(?P<label>{_LABEL})|(?P<line>{_LINE})|(?P<hash>####))[*_]{{0,3}}(?:\s{{0,3}}:)?",
    re.IGNORECASE | re.MULTILINE,
)
_BOX = re.compile(r"\\(?:boxed|fbox) ?\{")
_MAX_BOX = 2000
_HYPOTHETICAL = re.compile(
    r"(?:\b(?:if|whether|unless|suppos\w{1,4}|assum\w{1,4}|doubt)|(?:not|n't) (?:think|believe))"
    r"(?: that)?(?: (?:the|my|your|our|final|correct|right|best|option|choice)){0,3}[ (]{0,2}$"
    r"|\b(?:wrong|incorrect|false|possible|other|another|initial|previous) $",
    re.IGNORECASE,
)
_HYPOTHETICAL_CHARS = 60
_REST = re.compile(r"[\s*]{0,8}([^\n]*)")
_END = re.compile(r"(?<=\S)[.!?](?=[)\]}\"'*$]{0,4}(?:\s|$))")
_ABBREVIATED = re.compile(
    r"(?:\b(?:Dr|Mr|Mrs|Ms|St|Prof|Sr|Jr|vs|etc|e\.g|i\.e|No|approx|Mt|Gen|Col)|(?:^|[\s.])[A-Z])$"
)


Kind = Literal["said", "label", "line", "hash", "box"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A place where a response states its answer."""

    kind: Kind
    """`said`, "the answer is"; `label`, "Answer:"; `line`, "A:" or "Solution:"; or `hash`, `box`."""
    start: int
    end: int
    """Where the stated text begins, in case of a box where it ends."""
    text: str
    """The stated text: the rest of its line, or the content of the box."""


def marks(text: str) -> list[Mark]:
    """Return all marks of a final answer in order, those under a condition or a doubt excepted."""
    found = [
        Mark(cast(Kind, cue.lastgroup), cue.start(), cue.end(), _rest(text, cue.end()))
        for cue in _CUE.finditer(text)
        if not is_hypothetical(text, cue.start())
    ]
    return sorted([*found, *_boxes(text)], key=lambda mark: mark.start)


def _rest(text: str, start: int) -> str:
    line = _REST.match(text, start)
    return line[1] if line else ""


def _boxes(text: str) -> Iterator[Mark]:
    """Yield the boxes whose braces are balanced, nested ones within their content."""
    end = 0
    for box in _BOX.finditer(text):
        if box.start() < end:
            continue
        depth = 1
        for place in range(box.end(), min(len(text), box.end() + _MAX_BOX)):
            depth += {"{": 1, "}": -1}.get(text[place], 0) if text[place - 1] != "\\" else 0
            if not depth:
                end = place + 1
                yield Mark("box", box.start(), end, text[box.end() : place])
                break


def is_hypothetical(text: str, start: int) -> bool:
    """Return whether what begins at `start` is under a condition or a doubt."""
    return bool(_HYPOTHETICAL.search(text[max(0, start - _HYPOTHETICAL_CHARS) : start]))


def sentences(line: str) -> list[str]:
    """Split a line into sentences; initials and common abbreviations do not end one."""
    found, start = [], 0
    for end in _END.finditer(line):
        before = line[max(start, end.start() - 8) : end.start()]
        after = line[end.end() :].lstrip()
        if end[0] == "." and _ABBREVIATED.search(before) and after[:1].isupper():
            continue
        found.append(line[start : end.start()])
        start = end.end()
    return [*found, line[start:]]
