"""Free answers compared as SQuAD and NQ-open do, and whether a response declines to answer."""

import re
import string
from collections import Counter
from collections.abc import Sequence

from spyhop.text.normal import normal

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_DECLINES = re.compile(
    r"\b(?:(?:i|we) (?:do not|don't|cannot|can't|could not|couldn't)|(?:i am|i'm|we are|we're) "
    r"(?:unable|not able) to) (?:really |actually |reliably )?(?:know|say|tell|answer|determine|"
    r"find|provide|recall|be (?:sure|certain))\b|\b(?:i am|i'm|we are|we're) (?:not (?:sure|"
    r"certain|aware)|unsure|uncertain|unaware)\b|\b(?:there is|there's) (?:no|not enough|"
    r"insufficient) (?:information|evidence|data|way to know)\b|"
    r"\b(?:it is|it's) (?:unknown|unclear|not known|impossible to "
    r"(?:say|know|tell|determine|answer))\b|"
    r"\A\W*(?:unknown|n/a|no answer|not known|unanswerable|i have no (?:idea|comment))\W*\Z",
    re.IGNORECASE,
)
OPENING_CHARS = 300
"""Where a response that declines says so."""


def plain_words(text: str) -> list[str]:
    """Return the words that are compared: lower case, without articles and punctuation."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """Return 1 if the words of an answer are those of a gold one, else 0."""
    return float(any(plain_words(answer) == plain_words(gold) for gold in golds))


def token_f1(answer: str, golds: Sequence[str]) -> float:
    """Return the F1 of the words of an answer against the gold answer that is closest to it.

    Source: Rajpurkar et al. (arXiv:1606.05250), section 6.1.
    """
    return max((_f1(plain_words(answer), plain_words(gold)) for gold in golds), default=0.0)


def declines(response: str) -> bool:
    """Return whether a response says near its beginning that it does not know. English only."""
    opening = normal(response[:OPENING_CHARS]).replace("\u2019", "'")
    return _DECLINES.search(" ".join(opening.split())) is not None


def _f1(answer: list[str], gold: list[str]) -> float:
    if not answer or not gold:
        return float(answer == gold)
    num_shared = (Counter(answer) & Counter(gold)).total()
    return 2 * num_shared / (len(answer) + len(gold))
