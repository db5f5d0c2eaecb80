"""The text of one block: its lines, and how much of it a reader sees."""

from html import unescape

BREAK = "\x1e"
"""Stands for a line break until a block ends."""


def num_shown(text: str) -> int:
    """Count the characters that a reader sees."""
    return len(" ".join((unescape(text) if "&" in text else text).split()))


def code_of(text: str) -> str:
    """Return the lines of code, as the page has them."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace(BREAK, "\n").strip("\n")


def is_gutter(text: str) -> bool:
    """Return whether text is the numbers of some lines."""
    lines = text.split() if text[:1].isdecimal() and "\n" in text else []
    if not all(line.isdecimal() and len(line) < 7 for line in lines):
        return False
    numbers = list(map(int, lines))
    return len(numbers) > 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def lines_of(text: str) -> str:
    """Collapse white space, but for line breaks that the page asked for."""
    lines = (" ".join(line.split()) for line in text.split(BREAK))
    return "\n".join(line for line in lines if line)
