"""Two responses side by side: the words that differ, and the answer that was found, are marked."""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import pairwise

from spyhop.text.marks import marks

MOST_WORDS = 2000
"""Longer responses are shown without a diff, whose time grows with the square of the length."""
_WORD = re.compile(r"\s+|\w+|[^\w\s]")

Span = tuple[int, int]
Piece = tuple[str, str]
"""A text and its kinds: `differs`, `answer`, both or neither."""


def side_by_side(
    first: str, second: str, answers: tuple[str | None, str | None] = (None, None)
) -> tuple[list[Piece], list[Piece]]:
    """Return both texts in pieces that together are the texts."""
    spans = [answer_span(*each) for each in zip((first, second), answers, strict=True)]
    changed = _differences(first, second)
    one, two = (list(_pieces(*each)) for each in zip((first, second), changed, spans, strict=True))
    return one, two


def answer_span(text: str, answer: str | None) -> Span | None:
    """Return where a response states the answer that was extracted, normalised, from it.

    It is the first match behind the last mark of an answer, else the last match in the text. Case,
    white space and thousands separators may differ; a label stands alone, as in `(A)`.
    """
    if not answer:
        return None
    shape = "".join(
        r"\s+" if part.isspace() else ",?".join(part) if part.isdigit() else re.escape(part)
        for part in re.findall(r"\s+|\d+|[^\d\s]+", answer.strip())
    )
    flags = 0 if len(answer) == 1 else re.IGNORECASE
    found = list(re.finditer(rf"(?<!\w){shape}(?!\w)", text, flags))
    stated = [mark.start for mark in marks(text)]
    behind = [match for match in found if stated and match.start() >= stated[-1]]
    best = behind[0] if behind else found[-1] if found else None
    return best.span() if best else None


def _differences(first: str, second: str) -> tuple[list[Span], list[Span]]:
    """Return the spans of either text that the other does not have."""
    one, two = _WORD.findall(first), _WORD.findall(second)
    if max(len(one), len(two)) > MOST_WORDS or not (one and two):
        return [], []
    found: tuple[list[Span], list[Span]] = [], []
    for kind, a, a_end, b, b_end in SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        for spans, words, start, end in ((found[0], one, a, a_end), (found[1], two, b, b_end)):
            if kind != "equal" and start < end:
                place = len("".join(words[:start]))
                spans.append((place, place + len("".join(words[start:end]))))
    return found


def _pieces(text: str, changed: list[Span], answer: Span | None) -> Iterator[Piece]:
    kinds = [("differs", span) for span in changed] + ([("answer", answer)] if answer else [])
    edges = sorted({0, len(text), *(edge for _, span in kinds for edge in span)})
    for start, end in pairwise(edges):
        inside = [kind for kind, (low, high) in kinds if low <= start < high]
        yield text[start:end], " ".join(inside)
