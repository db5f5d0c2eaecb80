"""Bytes of a page to text, by byte order mark, declared encoding and evidence."""

import re
from contextlib import suppress

from spyhop.lazy import encoding

CHARSET_BYTES = 4096
"""Bytes searched for a declared encoding."""
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip
_DECLARED = re.compile(
    rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w:.-]{2,30})"
    rb"|^\s*<\?xml[^>]{0,100}encoding\s*=\s*[\"']([\w:.-]{2,30})",
    re.IGNORECASE,
)
_SHIFTS = re.compile(rb"\x1b(?:\$[@AB]|\$\([DQ]|\([IJ])")
"""Escapes of ISO-2022-JP to Japanese characters; its bytes are all ASCII."""
_SAMPLE = 1 << 16


def decode(data: bytes, charset: str) -> str:
    """Return the text of a page.

    A byte order mark decides; then bytes that only UTF-16 or ISO-2022-JP explain; then valid UTF-8;
    then the declared encoding (HTTP header before page), unless it is UTF-8 and most of the bytes
    beyond ASCII contradict it; then detection. Bytes that cannot be read become U+FFFD.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data.decode(name, "replace")
    if b"\x00" not in data and b"\x1b" not in data:
        with suppress(UnicodeDecodeError):
            return data.decode("utf-8")
    own = _DECLARED.search(data, 0, CHARSET_BYTES)
    words = [charset, (own[1] or own[2]).decode("ascii") if own else ""]  # the header's first
    found = (encoding.map_encoding_to_html5(word, False) for word in words if word)
    declared = [name.replace("_", "-") for name in found if name]
    if wide := _utf_16(data, declared):
        return data.decode(wide, "replace")
    if b"\x1b" in data and _SHIFTS.search(data):
        return data.decode("iso2022_jp_ext", "replace")
    with suppress(UnicodeDecodeError):
        return data.decode("utf-8")
    mostly = data.decode("utf-8", "replace")
    num_strange = sum(char > "\x7f" for char in mostly)
    if "utf-8" in declared and 2 * mostly.count("\ufffd") <= num_strange:
        return mostly
    named = next((name for name in declared if name not in ("utf-8", "utf-16le", "utf-16be")), None)
    return encoding.bytes_to_str(data, named or _detected(data), "replace")


def is_utf_16(data: bytes) -> bool:
    """Return whether bytes without a mark are UTF-16: every other one of their ASCII is zero."""
    sample = data[:1024]
    num_control = sum(0 < byte < 9 for byte in sample)
    return bool(_utf_16(data, [])) and num_control < 0.05 * len(sample)


def _utf_16(data: bytes, declared: list[str]) -> str:
    """Return the byte order of text in UTF-16 without a mark: where the zeros of its ASCII are."""
    sample = data[:1024]
    zeros = [sample[offset::2].count(0) for offset in (0, 1)]
    least = 0.02 if any(name.startswith("utf-16") for name in declared) else 0.3
    if max(zeros) <= least * len(sample) / 2 or max(zeros) < 8 * min(zeros):
        return ""
    return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"


def _detected(data: bytes) -> str:
    """Return the likeliest encoding of bytes that are not valid UTF-8."""
    found = encoding.detect_encoding(data[:_SAMPLE])
    if found and found != "utf-8":
        return str(found)
    with suppress(UnicodeDecodeError):  # the one common encoding that is not detected
        data.decode("cp949")
        return "cp949"
    return "windows-1252"
