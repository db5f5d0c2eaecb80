"""The style of a response, apart from what it says: length, headers, lists and bold."""

import re

_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_HEADER = re.compile(r"^ {0,3}#{1,6}\s", re.MULTILINE)
_ITEM = re.compile(r"^\s*(?:\d{1,4}\.|[-*+])\s", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
FEATURES = ("length", "headers", "lists", "bold")


def style_of(text: str) -> tuple[int, int, int, int]:
    """Return the words of a text, and its headers, list items and bold spans outside code.

    The features are arena-hard's; length is in words instead of a tokenizer's pieces.
    """
    plain = _CODE.sub("", text)
    headers, items, bold = (len(each.findall(plain)) for each in (_HEADER, _ITEM, _BOLD))
    return len(text.split()), headers, items, bold
