"""Free answers compared as SQuAD and NQ-open do."""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


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
    best, own = 0.0, plain_words(answer)
    for words in map(plain_words, golds):
        num_shared = (Counter(own) & Counter(words)).total()
        both_empty = not own and not words
        best = max(best, float(both_empty) or 2 * num_shared / (len(own) + len(words)))
    return best
