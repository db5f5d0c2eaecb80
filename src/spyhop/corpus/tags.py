"""Tags of a page: where they begin and end, and the marks that their attributes give."""

import re
from functools import lru_cache, reduce
from operator import or_

from spyhop.text.tables import table

RAW = ("script", "style", "iframe", "noembed", "noframes", "xmp", "title", "textarea")
"""Elements that end at their first end, or with the page."""
UNREAD = (
    "noscript", "svg", "template", "select", "object", "audio", "video", "canvas", "nav", "footer",
    "dialog", "button",
)  # fmt: skip
"""Other elements without main text; most tags are in them.

Nested or unclosed ones are walked like others, so that no page takes more than linear time."""
_REST = r"""[^<>=]*+(?:=\s*+(?:"[^"]*+"|'[^']*+')?+[^<>=]*+)*+"""
TAG = re.compile(
    r"<(?:!--(?!-?>)[^-]*+(?:-(?!->)[^-]*+)*+(?:-->|\Z)|"
    + "".join(
        rf"{each}(?=[\s>])[^<]*+(?:<(?!/{each}\b)[^<]*+)*+(?:</{each}{_REST}>|\Z)|" for each in RAW
    )
    + "".join(
        rf"{each}(?=[\s>])[^<]*+(?:<(?!/?{each}\b)[^<]*+)*+</{each}{_REST}>|" for each in UNREAD
    )
    + r"[aA]>|(a(?=\s[^<>]{0,999}?\bhref\b)"
    + rf"|(?:img|input|meta|link|label|strong|em|b|i)(?=\s)|/?[A-Za-z]{_REST}){_REST}>"
    + r"|[!?/][^<>]*+>)"
)
"""A tag is caught, of links and the like the name only; comments and unread elements are not."""
CAPITAL_TAG = re.compile(r"</?[A-Za-z]*[A-Z]\w*")
_WORDS: dict[str, str] = table("corpus/marks.toml")
_ELEMENTS = (
    "li header figure figcaption td aside nav footer article main form blockquote dl p section "
    "details table"
)
MARKS = {name: 1 << place for place, name in enumerate([*_WORDS, *_ELEMENTS.split()])}
"""Bits for the name of an element and for words in its class, id and role."""
_SAME = {"th": "td", "dt": "dl", "dd": "dl", "menu": "nav"}
_BESIDE = ("comment", "related", "share", "asks", "promo", "menu", "hidden", "meta")
BESIDE = sum(MARKS[name] for name in _BESIDE)
_WORD_MARKS = {word: MARKS[name] for name, words in _WORDS.items() for word in words.split()}
_MODIFIERS = frozenset((
    "has", "no", "not", "with", "without", "enabled", "disabled", "open", "closed", "off", "free",
    "label",
))  # fmt: skip
"""A class with one of these words describes a state, not the content."""
_LABEL = re.compile(r"""\s(?:class|id|role)=["']?((?<=")[^"]*|(?<=')[^']*|[^\s"'>]+)""")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_HIDDEN = re.compile(
    r'(?:^|\s)hidden(?:=|$|\s)|aria-hidden="true"|display:\s?none|visibility:\s?hidden'
)


def marks_of(name: str, tag: str) -> int:
    """Return the marks of an element."""
    marks = MARKS.get(_SAME.get(name, name), 0)
    if name == tag:
        return marks
    for labels in _LABEL.findall(tag):
        for label in labels.split():
            marks |= _label_marks(label)
    if ("hidden" in tag or "display" in tag) and _HIDDEN.search(tag):
        marks |= MARKS["hidden"]
    return marks


@lru_cache(1 << 16)
def _label_marks(label: str) -> int:
    if label.islower():
        words = label.replace("_", "-").split("-")
    else:
        words = [word.lower() for word in _WORD.findall(label)]
    found = [_WORD_MARKS.get(word, 0) for word in words] if _MODIFIERS.isdisjoint(words) else []
    return reduce(or_, found, 0)
