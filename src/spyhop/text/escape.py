"""Texts of unknown origin in pages and cards: nothing of them is hidden, nothing is markup."""

_HIDDEN = {
    *map(ord, "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2060"),
    0x3164, 0xFEFF,
    *range(0x202A, 0x202F), *range(0x2066, 0x206A),
    *range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000),
} - {ord("\n"), ord("\t")}  # fmt: skip
"""Marks that reorder or hide text, control characters and halves of characters; joiners of scripts
and emoji are not among them."""
_SHOWN = {code: f"[U+{code:04X}]" for code in _HIDDEN}
_MARKUP = str.maketrans(
    {char: f"\\{char}" for char in "\\`*_[]|~#!$"} | {"<": "&lt;", "&": "&amp;"}
)


def visible(text: str) -> str:
    """Return the text with control and bidirectional characters shown as `[U+202E]`."""
    return text if text.isascii() and text.isprintable() else text.translate(_SHOWN)


def markdown(text: str) -> str:
    """Return the text as one line of Markdown without any markup of its own."""
    return visible(" ".join(text.split())).translate(_MARKUP)
