"""Read the answer of a response to a prompt whose options, if it has any, stand in its own text."""

import re
from itertools import takewhile
from string import ascii_uppercase

from spyhop.text.extract import choice, final_answer, matches, normalise

_OPTION = re.compile(r"\(([A-Z])\)|(?:^|\s)([A-Z])(?:\)|[.:](?=\s))", re.MULTILINE)
_LABEL = re.compile(r"\s*\(?([A-Z])\)?[.:]?\s*")


def options(question: str) -> list[str]:
    """Return the labels `A`, `B`, ... that a question offers; none where it offers fewer than two.

    "(A) ...", "A) ...", "A. ..." and "A: ..." offer; the letters must follow each other from A, so
    that the "A:" of a cue is no option.
    """
    found = {bracketed or bare for bracketed, bare in _OPTION.findall(question)}
    labels = list(takewhile(found.__contains__, ascii_uppercase))
    return labels if len(labels) > 1 else []


def stated(response: str, question: str, target: str = "") -> str | None:
    """Return the answer that a response states, normalised, or None where none can be read.

    With a gold answer that is one of the question's option labels, the response is read as a
    choice; with any other gold answer as a free answer. Without one, as a choice where the
    question has options and the response names one of them, else as a free answer.
    """
    labels = options(question)
    letter = _LABEL.fullmatch(target)
    is_choice = bool(labels) and (not target or (letter is not None and letter[1] in labels))
    chosen = choice(response, labels) if is_choice else None
    if chosen is not None:
        return normalise(chosen)
    return None if is_choice and target else final_answer(response)


def is_right(response: str, question: str, target: str) -> bool | None:
    """Say whether a response states the gold answer; None where no answer can be read."""
    answer = stated(response, question, target)
    return None if answer is None else matches(answer, target)
