"""Read the verdict line that a judge's response ends with: strict, and never guessed."""

import re
from collections.abc import Sequence
from functools import cache

_NUMBER = re.compile(
    r"\[?(?P<score>\d{1,4}(?:\.\d{1,3})?)\]?[*_]{0,2}"
    r"(?: ?/ ?(?P<over>\d{1,3})| out of (?P<of>\d{1,3}))?[ *_\"'`.!]{0,8}",
    re.IGNORECASE,
)
"""A number, perhaps with "/5" or "out of 5" behind it, and nothing else on the line."""
_WORD = re.compile(r"(\w+)[^\w\n]{0,8}")


def verdict_word(text: str, words: Sequence[str], *, label: str = "verdict") -> str | None:
    """Return which of some lower-case words the last verdict line (`VERDICT: WORD`) states.

    The last line that begins with the label decides. If it states anything else ("VERDICT: NOT
    SATISFIED"), there is no verdict; an earlier line is not taken in its place.
    """
    found = _WORD.fullmatch(_last(text, label).lower())
    return found[1] if found and found[1] in words else None


def verdict_score(
    text: str, *, label: str = "score", low: float = 1, high: float = 5
) -> float | None:
    """Return the score of the last verdict line (`Score: 4`), or None.

    If the line holds no number from `low` to `high`, or more than a number ("Score: 4 or 5",
    "Score: 7", "Score: 4/10"), there is no score. Halves and other fractions are scores. Linear in
    the text.
    """
    number = _NUMBER.fullmatch(_last(text, label))
    if number is None:
        return None
    score, scale = float(number["score"]), number["over"] or number["of"]
    is_meant = low <= score <= high and (scale is None or int(scale) == high)
    return score if is_meant else None


def without_verdict(text: str, *, label: str = "score") -> str:
    """Return the reason alone: the text before the first verdict line, or else after it."""
    found = _line(label).search(text)
    before = (text[: found.start()] if found else text).strip()
    return before or _line(label).sub("", text).strip()


def _last(text: str, label: str) -> str:
    lines = [found["said"] for found in _line(label).finditer(text)]
    return lines[-1].strip() if lines else ""


@cache
def _line(label: str) -> re.Pattern[str]:
    return re.compile(
        rf"^[ \t*_#>\"'`-]{{0,8}}{label}[*_]{{0,2}} ?[:=][ \t*_\"'`]{{0,8}}(?P<said>[^\n]*)$",
        re.IGNORECASE | re.MULTILINE,
    )
