"""Read the score that a judge's response ends with: strict, ranged, and never guessed."""

import re

_LINE = re.compile(
    r"^[ \t*_#>\"'`-]{0,8}score[*_]{0,2} ?[:=][ \t*_\"'`]{0,8}(?P<said>[^\n]*)$",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBER = re.compile(
    r"\[?(?P<score>\d{1,4}(?:\.\d{1,3})?)\]?[*_]{0,2}"
    r"(?: ?/ ?(?P<over>\d{1,3})| out of (?P<of>\d{1,3}))?[ *_\"'`.!]{0,8}",
    re.IGNORECASE,
)
"""A number, perhaps with "/5" or "out of 5" behind it, and nothing else on the line."""


def score_line(text: str, *, low: int = 1, high: int = 5) -> float | None:
    """Return the score of the last verdict line (`Score: 4`), or None.

    The last line that begins with "Score:" decides. If it holds no number from `low` to `high`, or
    more than a number ("Score: 4 or 5", "Score: 7", "Score: 4/10"), there is no score; an earlier
    line is not taken in its place. Halves and other fractions are scores. Linear in the text.
    """
    lines = [found["said"] for found in _LINE.finditer(text)]
    number = _NUMBER.fullmatch(lines[-1].strip()) if lines else None
    if number is None:
        return None
    score, scale = float(number["score"]), number["over"] or number["of"]
    is_meant = low <= score <= high and (scale is None or int(scale) == high)
    return score if is_meant else None


def without_verdict(text: str) -> str:
    """Return the reason alone: what stands before the first verdict line."""
    found = _LINE.search(text)
    return (text[: found.start()] if found else text).strip()
