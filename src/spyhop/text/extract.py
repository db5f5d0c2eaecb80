r"""Read the free answer that a response states, and compare it with a gold answer.

It is behind a mark ("the answer is", "Answer:", `####`, `\boxed{}`) or the whole of a short
response. Linear in the length of the text. A response without a readable answer gives None, which
is counted apart from a wrong answer. Letters of options are read by `spyhop.text.choices`, numbers
by `spyhop.text.numbers`.
"""

import re
import string
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, cast

from spyhop.text.normal import normal
from spyhop.text.tables import pattern, source, word_set

BARE_ANSWER_CHARS = 60
"""A response of one line without a mark is read as a bare answer up to this length."""

_TYPOGRAPHY = str.maketrans("\u2212\u2018\u2019\u201c\u201d", "-''\"\"")
_SPACES = re.compile(r"[^\S\n]+")
_OUTER_START = " \"'`*_$#,;:\u20ac\u00a3"
_OUTER_END = " \"'`*_$#,;:.!?"
_OPEN, _CLOSE = "([{", ")]}"
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WRAPPERS = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf|left|right)\b|\\[()\[\],!;]")
_NUMBER = re.compile(r"([-+]?)(0|[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]*)(?:\.([0-9]+))?")
_TRUTH_WORD = re.compile(
    r"(true|false|yes|no|valid|invalid)(?=[,;:.)]| ?[-\u2013\u2014] | (?:because|since|as)\b)"
)
_CUE = re.compile(
    rf"(?:(?P<said>{source('marks_said')})|(?P<label>{source('marks_label')})"
    rf"|(?P<line>{source('marks_line')})|(?P<hash>####))[*_]{{0,3}}(?:\s{{0,3}}:)?",
    re.IGNORECASE | re.MULTILINE,
)
_BRACE = re.compile(r"(?P<box>\\(?:boxed|fbox) ?\{)|\\.|(?P<open>\{)|(?P<close>\})")
_LINE_CHARS = 4000
MAX_MARKS = 50
"""Marks that are read, from the last one back."""
_HYPOTHETICAL = pattern("marks_hypothetical")
_HYPOTHETICAL_CHARS = 60
_REST = re.compile(rf"[\s*]{{0,8}}([^\n]{{0,{_LINE_CHARS}}})")
_END = re.compile(r"(?<=\S)[.!?](?=[)\]}\"'*$]{0,4}(?:\s|$))|\u3002")
_ABBREVIATED = pattern("marks_abbreviated")
_STARTERS = word_set("starters")

Kind = Literal["said", "label", "line", "hash", "box"]


class Mark(NamedTuple):
    """A place where a response states its answer."""

    kind: Kind
    """`said`: "the answer is"; `label`: "Answer:"; `line`: "A:", "Solution:"; or `hash`, `box`."""
    start: int
    end: int
    """Where the stated text begins, in case of a box where it ends."""
    text: str
    """The stated text: the rest of its line, or the content of the box."""


def marks(text: str) -> list[Mark]:
    """Return the last marks of a final answer in order, without hypothetical ones."""
    found = [
        Mark(cast(Kind, cue.lastgroup), *cue.span(), next(_REST.finditer(text, cue.end()))[1])
        for cue in deque(_CUE.finditer(text), maxlen=MAX_MARKS)
        if not is_hypothetical(text, cue.start())
    ]
    return sorted([*found, *deque(_boxes(text), maxlen=MAX_MARKS)], key=lambda mark: mark.start)


def _boxes(text: str) -> Iterator[Mark]:
    """Yield the boxes whose braces are balanced, in the order in which they end."""
    opened: list[re.Match[str]] = []
    for brace in _BRACE.finditer(text):
        if brace["close"] and opened:
            box = opened.pop()
            if box["box"]:
                yield Mark("box", box.start(), brace.end(), text[box.end() : brace.start()])
        elif brace["box"] or brace["open"]:
            opened.append(brace)


def is_hypothetical(text: str, start: int) -> bool:
    """Return whether what begins at `start` is under a condition or a doubt."""
    return bool(_HYPOTHETICAL.search(text[max(0, start - _HYPOTHETICAL_CHARS) : start]))


def finished(text: str) -> str:
    """Return a text that was cut off up to the end of its last whole sentence or line."""
    ends = [end.end() for end in _END.finditer(text) if end.end() < len(text.rstrip())]
    return text[: max([text.rfind("\n") + 1, *ends[-1:]])]


def sentences(line: str) -> list[str]:
    """Split a line into sentences; initials and common abbreviations do not end one."""
    found, start = [], 0
    for end in _END.finditer(line):
        before = line[max(start, end.start() - 8) : end.start()]
        after = line[end.end() :].lstrip()
        is_name = after[:1].isupper() and re.split(r"\W", after, maxsplit=1)[0] not in _STARTERS
        if not (end[0] == "." and is_name and _ABBREVIATED.search(before)):
            found.append(line[start : end.start()])
            start = end.end()
    return [*found, line[start:]]


def final_answer(text: str) -> str | None:
    r"""Return the free answer that a response states, normalised, or None; the first `readings`."""
    found = readings(text)
    return (normalise(found[0]) or None) if found else None


def readings(text: str) -> list[str]:
    r"""Return what a response states as its free answer: the likeliest reading, then longer ones.

    It is what follows the last "answer is", "Answer:" or "####" up to the end of the sentence, or
    of the line; or the content of a later `\boxed{...}`. Without a mark it is the whole response
    if that is one line of at most `BARE_ANSWER_CHARS` characters. Of "Yes, since ..." only the
    word is kept, also where a longer response opens with it.
    """
    clean = _SPACES.sub(" ", normal(text)).strip()
    found = marks(clean)
    stated = [mark for mark in found if mark.kind != "line"]
    if not stated:
        bare = clean[found[-1].end :].strip() if found else clean
        if word := _TRUTH_WORD.match(normalise(bare.partition("\n")[0])):
            return [word[1]]
        is_bare = len(bare) <= BARE_ANSWER_CHARS and "\n" not in bare
        return [bare] if bare and is_bare else []
    if stated[-1].kind == "box":
        return [stated[-1].text]
    first = sentences(stated[-1].text)[0]
    if word := _TRUTH_WORD.match(normalise(first)):
        first = word[1]
    return [first, stated[-1].text] if first.strip() else []


def normalise(answer: str, *, keep_brackets: bool = False) -> str:
    """Return `answer` in the form in which free answers are compared. Idempotent.

    Case, outer punctuation and quotes, brackets around the whole or unmatched at its ends (unless
    `keep_brackets`), markup, runs of white space, thousands separators, a currency sign and the
    zeros of "24.0" go; inner punctuation, signs and units stay. An answer of punctuation only
    (`] ] >`) is left as it is.
    """
    plain = _WRAPPERS.sub(" ", normal(answer).translate(_TYPOGRAPHY)).lower()
    text = " ".join(plain.split())
    partner = {} if keep_brackets else _partners(text)
    start, end = 0, len(text)
    while start < end:
        if text[start] in _OUTER_START or partner.get(start) == -1:
            start += 1
        elif text[end - 1] in _OUTER_END or partner.get(end - 1) == -1:
            end -= 1
        elif partner.get(start) == end - 1:
            start, end = start + 1, end - 1
        else:
            break
    bare = text[start:end]
    if not any(char.isalnum() for char in bare):
        bare = text.strip(_OUTER_END) or text
    if number := _NUMBER.fullmatch(bare):
        sign, whole, fraction = number.groups("")
        digits = f"{whole.replace(',', '')}.{fraction.rstrip('0')}".removesuffix(".")
        return f"-{digits}" if sign == "-" and digits.strip("0.") else digits
    return bare


def _partners(text: str) -> dict[int, int]:
    """Return the position of each bracket's partner, whatever its shape; -1 if it is unmatched."""
    partner: dict[int, int] = {}
    opened: list[int] = []
    for place, char in enumerate(text):
        if char in _OPEN:
            opened.append(place)
        elif char in _CLOSE:
            partner[place] = opened.pop() if opened else -1
            if partner[place] >= 0:
                partner[partner[place]] = place
    return partner | dict.fromkeys(opened, -1)


def matches(extracted: str | None, target: str) -> bool:
    """Return whether an extracted answer equals the gold text once both are normalised.

    Brackets at the ends count where the gold answer has some, as an interval has. "5 apples" is not
    "5".
    """
    if extracted is None:
        return False
    bare = normalise(target, keep_brackets=True)
    is_bracketed = len(bare) > 1 and (bare[0] in _OPEN or bare[-1] in _CLOSE)
    keep = is_bracketed and not re.fullmatch(r"[(\[{]\w+[)\]}]", bare)
    return normalise(extracted, keep_brackets=keep) == normalise(target, keep_brackets=keep)


def plain_words(text: str) -> list[str]:
    """Return the words that SQuAD and NQ-open compare: small, no articles, no punctuation."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """Return 1 if the words of an answer are those of a gold one, else 0."""
    return float(any(plain_words(answer) == plain_words(gold) for gold in golds))


def token_f1(answer: str, golds: Sequence[str]) -> float:
    """Return the F1 of the words of an answer against the gold answer that is closest to it.

    Source: Rajpurkar et al. (arXiv:1606.05250), section 6.1.
    """
    best, own = 0.0, plain_words(answer)
    for words in map(plain_words, golds):
        num_shared = (Counter(own) & Counter(words)).total()
        both_empty = not own and not words
        best = max(best, float(both_empty) or 2 * num_shared / (len(own) + len(words)))
    return best
