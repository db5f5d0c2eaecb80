"""Read the verdict of a judge's response: strict, and never guessed.

A rating takes the last verdict line (`verdict_score`, `verdict_word`). A judgement must be
unanimous (`read_winner`, `read_grade`, `read_grades`): a response that states two verdicts, or
"both", has none.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

from spyhop.text.tables import pattern, source
from spyhop.text.thought import without_thought

_NUMBER = re.compile(
    r"\[?(?P<score>\d{1,4}(?:\.\d{1,3})?)\]?[*_]{0,2}"
    r"(?: ?/ ?(?P<over>\d{1,3})| out of (?P<of>\d{1,3}))?[ *_\"'`.!]{0,8}",
    re.IGNORECASE,
)
"""A number, perhaps with "/5" or "out of 5" behind it, and nothing else on the line."""
_WORD = re.compile(r"(\w+)[^\w\n]{0,8}")
_BRACKETS = re.compile(r"\[\[([^\[\]\n]{1,40})\]\]")
_VERDICT, _GRADE = source("verdict"), source("grade")
_SIDE, _TIE, _GRADE_OF = map(pattern, ("verdict_side", "verdict_tie", "verdict_grade"))
_COMPARED = re.compile(r"(?P<first>[ab]) ?(?P<sign>[<>=]{1,2}|\u2248) ?(?P<second>[ab])\.?")
_TWO_NUMBERS = re.compile(
    r"\D{0,24}?(?P<first>\d{1,2}(?:\.\d{1,2})?)(?: ?/ ?10)?(?: ?[,;|&] ?| and |[ \t]+)"
    r"(?P<second>\d{1,2}(?:\.\d{1,2})?)(?: ?/ ?10)?[)\] *_\"'`.]{0,8}"
)
_TUPLE = re.compile(
    r"(?:output|tuple|scores?)\b[^()\n]{0,60}"
    r"\((?P<first>\d{1,2}(?:\.\d)?), ?(?P<second>\d{1,2}(?:\.\d)?)\)"
)
Winner = Literal["a", "b", "tie"]


class Reading(NamedTuple):
    """The winner of a judgement, or the grades; `missing` says why there is neither."""

    winner: Winner | None = None
    grades: tuple[float, ...] = ()
    missing: str = ""
    """`no_verdict` or `two_verdicts`."""


NO_VERDICT, TWO_VERDICTS = Reading(missing="no_verdict"), Reading(missing="two_verdicts")


def read_winner(text: str) -> Reading:
    """Return which of two responses a judge prefers.

    A verdict is a line such as `Verdict: A`, a mark such as `[[A]]`, `[[C]]` (a tie) or `[[A>>B]]`,
    or a response that is nothing else.
    """
    text = without_thought(text)
    found = [_winner(said) for said in _said(text, _VERDICT)]
    found += [winner for mark in _BRACKETS.findall(text) if (winner := _winner(mark))]
    found = found or [_winner(text)]
    if None in found:
        return NO_VERDICT
    return TWO_VERDICTS if len(set(found)) > 1 else Reading(winner=found[0])


def read_grade(text: str, *, low: float = 1, high: float = 10) -> Reading:
    """Return a judge's grade of one response: a line such as `Score: 7`, or a mark `[[7]]`."""
    text = without_thought(text)
    marks = [mark for mark in _BRACKETS.findall(text) if mark.strip()[:1].isdigit()]
    stated = [*_said(text, _GRADE), *marks] or [text.strip()]
    found = [_grade(said.strip("[]* "), low, high) for said in stated]
    if None in found:
        return NO_VERDICT
    return TWO_VERDICTS if len(set(found)) > 1 else Reading(grades=(found[0] or 0.0,))


def read_grades(text: str, *, low: float = 0, high: float = 10) -> Reading:
    """Return a judge's grades of two responses, in the order in which it read them.

    They are the two numbers on the first line, as Vicuna's and Orca's judges are asked to write; if
    it holds anything else, the last ones stated for Assistant 1 and 2, or as `Output: (10, 4)`.
    """
    text = without_thought(text).strip()
    first = text.partition("\n")[0].strip()
    if plain := _TWO_NUMBERS.fullmatch(first):
        return _in_range([(float(plain["first"]), float(plain["second"]))], low, high)
    lower = text.lower()
    by_side = {found["side"]: float(found["score"]) for found in _GRADE_OF.finditer(lower)}
    stated = [(by_side["1"], by_side["2"])] if len(by_side) == 2 else []
    pairs = [(float(each["first"]), float(each["second"])) for each in _TUPLE.finditer(lower)]
    return _in_range([*stated, *pairs[-1:]], low, high)


def _in_range(pairs: list[tuple[float, float]], low: float, high: float) -> Reading:
    if len(set(pairs)) > 1:
        return TWO_VERDICTS
    if not pairs or not all(low <= grade <= high for grade in pairs[0]):
        return NO_VERDICT
    first, second = pairs[0]
    return Reading("tie" if first == second else "a" if first > second else "b", pairs[0])


def _winner(said: str) -> Winner | None:
    said = said.strip(" \t\n*_\"'`([])").lower()
    if found := _SIDE.fullmatch(said):
        return "a" if found["letter"] == "a" or found["number"] == "1" else "b"
    if found := _COMPARED.fullmatch(said):
        if found["first"] == found["second"] or "<>" in found["sign"]:
            return None
        if ">" not in found["sign"] and "<" not in found["sign"]:
            return "tie"
        return "a" if found["first" if ">" in found["sign"] else "second"] == "a" else "b"
    return "tie" if _TIE.fullmatch(said) else None


def _grade(said: str, low: float, high: float) -> float | None:
    number = _NUMBER.fullmatch(said)
    if number is None:
        return None
    score, scale = float(number["score"]), number["over"] or number["of"]
    return score if low <= score <= high and (scale is None or int(scale) == high) else None


def verdict_word(text: str, words: Sequence[str]) -> str | None:
    """Return which of some lower-case words the last verdict line (`VERDICT: WORD`) states.

    If that line states anything else ("VERDICT: NOT SATISFIED"), there is no verdict.
    """
    found = _WORD.fullmatch("".join(_said(text, "verdict")[-1:]).lower())
    return found[1] if found and found[1] in words else None


def verdict_score(text: str) -> float | None:
    """Return the score from 1 to 5 of the last verdict line (`Score: 4`), or None.

    If the line holds more than a number ("Score: 4 or 5", "Score: 4/10"), there is no score.
    """
    return _grade("".join(_said(text, "score")[-1:]), 1, 5)


def without_verdict(text: str, *, label: str = "score") -> str:
    """Return the reason alone: the text before the first verdict line, or else after it."""
    before = _line(label).split(text, maxsplit=1)[0].strip()
    return before or _line(label).sub("", text).strip()


def _said(text: str, label: str) -> list[str]:
    """Return what the verdict lines state, in order."""
    return [found["said"].strip() for found in _line(label).finditer(text)]


@cache
def _line(label: str) -> re.Pattern[str]:
    return re.compile(
        rf"^[ \t*_#>\"'`-]{{0,8}}{label}[*_]{{0,2}} ?[:=][ \t*_\"'`]{{0,8}}(?P<said>[^\n]*)$",
        re.IGNORECASE | re.MULTILINE,
    )
