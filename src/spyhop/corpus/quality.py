"""Rules of quality from published pretraining sets.

Source: Gopher (arXiv:2112.11446), appendix A.1.1 and table A1.
"""

from collections import Counter
from collections.abc import Sequence

from spyhop.text.overlap import words

MAX_REPEATED = 0.3
"""Share of lines, or of paragraphs, that repeat an earlier one."""
MAX_REPEATED_CHARS = 0.2
"""Share of characters in such lines or paragraphs."""
MAX_TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
"""Share of characters in the most frequent n-gram."""
MAX_REPEATED_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Share of characters in n-grams that occur more than once."""
MAX_ITEMS = 0.9
MAX_ELLIPSES = 0.3
_MARKS = ("- ", "* ", "\u2022", "\u2023", "\u25cf", "\u25e6", "\u2043")
_ELLIPSES = ("...", "\u2026")


def is_repetitive(text: str) -> bool:
    """Return whether lines, paragraphs or n-grams repeat each other beyond Gopher's bounds."""
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for parts in (paragraphs, lines):
        if parts and _repeats(parts):
            return True
    split = words(text)
    num_chars = max(1, sum(map(len, split)))
    for num, bound in MAX_TOP_NGRAM.items():
        grams = Counter(_grams(split, num))
        top = max(
            grams.items(), key=lambda pair: (pair[1], sum(map(len, pair[0]))), default=((), 0)
        )
        if top[1] > 1 and top[1] * sum(map(len, top[0])) > bound * num_chars:
            return True
    return any(
        _repeated_chars(split, num) > bound * num_chars
        for num, bound in MAX_REPEATED_NGRAMS.items()
    )


def _repeats(parts: Sequence[str]) -> bool:
    repeated = list((Counter(parts) - Counter(set(parts))).elements())
    num_chars = sum(map(len, parts))
    is_frequent = len(repeated) > MAX_REPEATED * len(parts)
    return is_frequent or sum(map(len, repeated)) > MAX_REPEATED_CHARS * num_chars


def _grams(split: Sequence[str], num: int) -> list[tuple[str, ...]]:
    return [tuple(split[at : at + num]) for at in range(len(split) - num + 1)]


def _repeated_chars(split: Sequence[str], num: int) -> int:
    """Count the characters of words in n-grams that occurred before, each word once."""
    seen: set[tuple[str, ...]] = set()
    is_repeated = [False] * len(split)
    for at, gram in enumerate(_grams(split, num)):
        if gram in seen:
            is_repeated[at : at + num] = [True] * num
        seen.add(gram)
    return sum(len(word) for word, marked in zip(split, is_repeated, strict=True) if marked)


def is_list(text: str) -> bool:
    """Return whether nearly all lines are list items, or many end in an ellipsis."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    num_items = sum(line.startswith(_MARKS) for line in lines)
    num_ellipses = sum(line.endswith(_ELLIPSES) for line in lines)
    return num_items > MAX_ITEMS * len(lines) or num_ellipses > MAX_ELLIPSES * len(lines)
