"""The normal form of text that overlap and answer extraction share."""

import unicodedata

_INVISIBLE = dict.fromkeys(
    [0xAD, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065), 0xFEFF]
)
_FULL_WIDTH = {
    code: unicodedata.normalize("NFKC", chr(code)) for code in (0x3000, *range(0xFF01, 0xFFE7))
}
_FOLDED = {**_FULL_WIDTH, **_INVISIBLE}


def normal(text: str) -> str:
    """Return a text in NFC with full-width forms as plain ones, without invisible characters.

    Superscripts and other compatibility forms stay, since `x²` is not `x2`. Idempotent.
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", text.translate(_FOLDED))
