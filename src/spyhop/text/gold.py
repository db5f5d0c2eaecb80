"""Grade a response against a gold answer. This is the one grader: of teachers, students, votes.

The gold answer says how a response is read: as a choice if it is the label of an option, as a
number if it is one, else as free text. Thoughts are removed first.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import takewhile
from string import ascii_uppercase
from typing import NamedTuple

from spyhop.text.choices import choice
from spyhop.text.extract import (
    final_answer,
    finished,
    marks,
    matches,
    normalise,
    readings,
    sentences,
)
from spyhop.text.numbers import final_number, number_of, same_number
from spyhop.text.symbolic import is_equal
from spyhop.text.thought import without_thought

_OPTION = re.compile(r"\(([A-Z])\)|(?:^|\s)([A-Z])(?:\)|[.:](?=\s))", re.MULTILINE)
_LABEL = re.compile(r"\s*\(?([A-Z]{1,2})(?:\)|[.:](?=\s|$)|\s*$)[.:]?\s*(?P<text>.*)", re.DOTALL)
NUMBER_WORDS = 4
"""A free answer of at most this many words with one number is this number, for votes."""
_SENTENCE = (
    r"^(?:(?:the|a|an) )?{text} (?:is|are|was|were)(?! not|n't)\b"
    r"|\b(?:is|are|was|were)(?: likely| probably)?(?: the| a| an)? {text}$"
)
_TARGET_MARK = "####"
"""What precedes the gold answer in a gold text with its derivation, as in GSM8K."""


class Reading(NamedTuple):
    """What a response states."""

    answer: str | None
    """The answer in its normal form; None where no answer can be read."""
    is_right: bool


def options(question: str) -> list[str]:
    """Return the labels `A`, `B`, ... that a question offers, if these are two or more."""
    found = {bracketed or bare for bracketed, bare in _OPTION.findall(question)}
    labels = list(takewhile(found.__contains__, ascii_uppercase))
    return labels if len(labels) > 1 else []


def label_of(gold: str, labels: Sequence[str], question: str = "") -> str | None:
    """Return the label of a gold answer: "B", "(B)", "B." or, as in the question, "B. bank"."""
    found = _LABEL.fullmatch(gold)
    if found is None or found[1] not in labels:
        return None
    text = " ".join(found["text"].split()).casefold()
    return found[1] if text in " ".join(question.split()).casefold() else None


def gold_answer(target: str) -> str:
    """Return the gold answer of a gold text, which may have a derivation and `####` before it."""
    return target.rpartition(_TARGET_MARK)[2].strip()


def read(
    response: str,
    question: str,
    target: str,
    *,
    labels: Sequence[str] | None = None,
    is_whole: bool = True,
) -> Reading:
    """Return the answer of a response, and whether it is the gold one.

    Args:
        response: What a model wrote; thoughts are removed here.
        question: The prompt; options are read from its text, unless their `labels` are known.
        target: The gold answer: a label, a number, or text, perhaps behind a derivation and `####`.
        labels: The options' labels where they are known; a response is then read as a choice.
        is_whole: Whether the model ended the response; of others only a marked answer is read.
    """
    text, gold = without_thought(response), gold_answer(target)
    text = text if is_whole else finished(text)
    known = options(question) if labels is None else labels
    label = label_of(gold, known, question)
    if labels or label is not None:
        chosen = choice(text, known) or _by_text(text, known, question)
        return Reading(chosen, chosen is not None and chosen == (label or gold))
    found = _read_free(text, gold, is_whole=is_whole)
    texts = {} if found.is_right else _option_texts(question, known)
    if any(matches(option, gold) for option in texts.values()):  # a reply may name its label
        option = texts.get(choice(text, known) or "")
        return found if option is None else Reading(normalise(option), matches(option, gold))
    return found


def _read_free(text: str, gold: str, *, is_whole: bool) -> Reading:
    """Return the answer of a response as a number if the gold answer is one, else as text."""
    if (number := number_of(gold)) is not None:
        found = final_number(text, is_whole=is_whole)
        if found is None:
            formula = "".join(readings(text)[:1]).strip()  # such as a root or a power
            is_same = bool(re.search(r"[\\^!]|sqrt", formula)) and is_equal(formula, gold)
            return Reading(formula if is_same else None, is_same)
        return Reading(written(found), same_number(found, number))
    if not gold:
        return Reading(None, is_right=False)
    answers = readings(text) if is_whole or marks(text) else []
    whole = [text, text.rstrip().rpartition("\n")[2]] if is_whole else []
    right = next((answer for answer in [*answers, *whole] if matches(answer, gold)), None)
    if right is None and answers and is_equal(answers[0].strip(), gold):
        right = answers[0]
    best = right or next(iter(answers), "")
    return Reading(normalise(best) or None, right is not None)


def stated(response: str, question: str, target: str = "") -> str | None:
    """Return the answer that a response states, in its normal form, or None if it cannot be read.

    Without a gold answer it is the named option, else the free answer or its one number.
    """
    if target:
        return read(response, question, target).answer
    text, labels = without_thought(response), options(question)
    if chosen := choice(text, labels):
        return chosen
    answer, number = final_answer(text), final_number(text)
    is_short = answer is None or len(answer.split()) <= NUMBER_WORDS
    return written(number) if number is not None and is_short else answer


def is_right(response: str, question: str, target: str) -> bool | None:
    """Return whether a response states the gold answer; None where no answer can be read."""
    found = read(response, question, target)
    return None if found.answer is None else found.is_right


def _by_text(text: str, labels: Sequence[str], question: str) -> str | None:
    """Return the label of the one option that is the stated answer, or is in the first sentence."""
    answers = {normalise(answer) for answer in readings(text)}
    first = normalise(sentences(text.strip().partition("\n")[0])[0])
    found = [
        label
        for label, option in _option_texts(question, labels).items()
        if (plain := normalise(option))
        and (plain in answers or re.search(_SENTENCE.format(text=re.escape(plain)), first))
    ]
    return found[0] if len(found) == 1 else None


def _option_texts(question: str, labels: Sequence[str]) -> dict[str, str]:
    """Return the texts of the options by label, as far as the question lists them in order."""
    found = [each for each in _OPTION.finditer(question) if (each[1] or each[2]) in labels]
    ends = [*(each.start() for each in found[1:]), len(question)]
    return {
        each[1] or each[2]: question[each.end() : end].strip().partition("\n")[0]
        for each, end in zip(found, ends, strict=False)
    }


def written(number: Fraction) -> str:
    """Return a number as text: whole, decimal where that is exact, else a fraction."""
    parts = number.denominator
    is_exact = parts > 1 and pow(10, parts.bit_length(), parts) == 0  # it divides a power of ten
    return f"{Decimal(number.numerator) / parts:f}" if is_exact else str(number)
