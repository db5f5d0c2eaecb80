"""The form of a response, apart from its content: length, layout, step markers, hedging, phrases.

Every feature of `form_of` is on a scale on which 1 is a clear difference: a doubling of
a count, or a quarter of the phrases.
"""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from math import log2

from spyhop.text.tables import pattern

FEATURES = ("length", "layout", "steps", "hedging", "overlap")
"""Names of the features, in the order of `form_of`."""
STYLE = ("length", "headers", "lists", "bold")
"""Names of the features of `style_of`."""
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_HEADER = re.compile(r"^ {0,3}#{1,6}\s", re.MULTILINE)
_ITEM = re.compile(r"^\s*(?:\d{1,4}\.|[-*+])\s", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
_WORD = re.compile(r"[^\W_]+")
_STEPS = pattern("form_steps")
_HEDGES = pattern("form_hedges")
_PHRASES_PER_UNIT = 0.25


def style_of(text: str) -> tuple[int, int, int, int]:
    """Return the words of a text, and its headers, list items and bold spans outside code.

    The features are arena-hard's; length is in words instead of a tokenizer's pieces.
    """
    plain = _CODE.sub("", text)
    headers, items, bold = (len(each.findall(plain)) for each in (_HEADER, _ITEM, _BOLD))
    return len(text.split()), headers, items, bold


def phrases_of(texts: Iterable[str]) -> frozenset[tuple[str, str]]:
    """Return the word pairs that at least two of the texts share; figures count as one word."""
    counts = Counter(pair for text in texts for pair in set(pairwise(_words(text))))
    return frozenset(pair for pair, num in counts.items() if num > 1)


def form_of(text: str, phrases: frozenset[tuple[str, str]]) -> tuple[float, ...]:
    """Return the features of a text, in the order of `FEATURES`.

    `phrases` are those of the writer that `overlap` compares with; see `phrases_of`.
    """
    words = _words(text)
    pairs = list(pairwise(words))
    shared = sum(pair in phrases for pair in pairs) / max(1, len(pairs))
    marks = (len(rule.findall(text)) for rule in (_STEPS, _HEDGES))
    counts = (len(words), sum(style_of(text)[1:]), *marks)
    return (*(log2(1 + num) for num in counts), shared / _PHRASES_PER_UNIT)


def _words(text: str) -> list[str]:
    return ["0" if word.isdecimal() else word for word in _WORD.findall(text.lower())]
