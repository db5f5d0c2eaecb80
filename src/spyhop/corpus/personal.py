"""Personal data in a text: e-mail addresses, telephone numbers, bank and identity numbers."""

import re
from collections import Counter
from collections.abc import Callable

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]|\.\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,4})?\b")
_CARD = re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-]|\.\d)")
_SSN = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
_PHONE = re.compile(
    r"(?:(?<![\w.,/+-])|(?<=\b[FMPTfmpt]/))"
    r"(?:(?:\+|00)\d{1,3}[ ./-]?(?:\(0?\d{1,4}\)[ ./-]?)?(?:\d{1,5}(?: / |[ ./-])?){2,5}\d{2,5}"
    r"|(?:1[ .-])?\(\d{3}\) ?\d{3}[ .-]\d{4}"
    r"|(?:1[.-])?\d{3}([.-])\d{3}\1\d{4}"
    r"|(?<!\d )(?:1 )?[2-9]\d\d [2-9]\d\d \d{4}(?! \d)"
    r"|(?<!\d )(?!(?:\d[ -]?){12})0[1-9]\d{1,3}[ -]\d{3,4}[ -]?\d{3,4}(?! \d))"
    r"(?![\w/]|[.,-]\d)"
)
_CALLED = re.compile(
    r"\b(?:tel(?:ephone)?|(?:tele)?phone|mobile|cell|fax|call|ring|text)\b[^\d\n]{0,15}?"
    r"(?<![\d.,])(?P<number>"
    r"(?!\d\d?[ ./-]\d\d?[ ./-]\d{4})0(?:[ ./-]{0,3}\d){9,10}"
    r"|1?[2-9]\d\d[2-9]\d{6})"
    r"(?![\w/:]|[.,-]\d)",
    re.IGNORECASE,
)
"""A number that only the word before it tells for one of telephones."""
_LONG_DIGITS = range(8, 16)


def _is_iban(text: str) -> bool:
    plain = text.replace(" ", "")
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(char, 36)) for char in moved)) % 97 == 1


def _is_card(text: str) -> bool:
    digits = [int(char) for char in text if char.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    is_book = "".join(map(str, digits[:3])) in ("978", "979") and len(digits) == 13
    return not is_book and len(set(digits)) > 1 and (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def _is_phone(text: str) -> bool:
    return sum(char.isdigit() for char in text) in _LONG_DIGITS


def _is_address(text: str) -> bool:
    """Return whether an address is public: netmasks, versions and private ranges are skipped."""
    parts = [int(part) for part in text.split(".")]
    is_local = parts[0] in (0, 10, 127, 255) or parts[:2] in ([192, 168], [169, 254])
    return max(parts) < 256 and parts[0] > 9 and not is_local


_KINDS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("email", _EMAIL, lambda text: True),
    ("iban", _IBAN, _is_iban),
    ("card", _CARD, _is_card),
    ("ssn", _SSN, lambda text: True),
    ("phone", _PHONE, _is_phone),
    ("phone", _CALLED, _is_phone),
    ("ip", _IPV4, _is_address),
)


def redact(text: str) -> tuple[str, Counter[str]]:
    """Replace personal data by names of its kind in brackets, and count it by kind.

    Numbers must obey their rules (check digits, ranges, lengths). The cost is linear.
    """
    found: Counter[str] = Counter()
    for kind, pattern, is_one in _KINDS:
        if kind == "email" and "@" not in text:
            continue
        pieces, at = [], 0
        for match in pattern.finditer(text):
            start, end = match.span("number" if "number" in pattern.groupindex else 0)
            if is_one(text[start:end]):
                pieces += [text[at:start], f"[{kind}]"]
                at = end
                found[kind] += 1
        text = "".join([*pieces, text[at:]])
    return text, found
