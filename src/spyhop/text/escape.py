"""Texts of unknown origin in pages and cards: nothing of them is hidden, nothing is markup."""

import unicodedata

_KEPT = {"\n", "\t"}
_HIDDEN = {
    *"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2060\u3164\ufeff",
    *map(chr, range(0x202A, 0x202F)),
    *map(chr, range(0x2066, 0x206A)),
}
"""Marks that reorder or hide text; joiners of scripts and emoji are not among them."""
_MARKUP = str.maketrans(
    {char: f"\\{char}" for char in "\\`*_[]|~#!$"} | {"<": "&lt;", "&": "&amp;"}
)


def visible(text: str) -> str:
    """Return the text with control and bidirectional characters shown as `[U+202E]`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"[U+{ord(char):04X}]" if _is_hidden(char) else char for char in text)


def markdown(text: str) -> str:
    """Return the text as one line of Markdown without any markup of its own."""
    return visible(" ".join(text.split())).translate(_MARKUP)


def _is_hidden(char: str) -> bool:
    if char in _KEPT:
        return False
    return char in _HIDDEN or unicodedata.category(char) in ("Cc", "Cs")
