"""Reasons to drop a section. Each filter has a name, and its name is the reason.

Source of the filters `gopher_...`: Gopher (arXiv:2112.11446), appendix A.1.1 and table A1.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal
from urllib.parse import urlsplit

from spyhop.corpus.segment import Section
from spyhop.schema import Config
from spyhop.text.overlap import words
from spyhop.text.tables import pattern

_NAVIGATION = pattern("filters_navigation")
_NOTICE = pattern("filters_notice")
_CUT_OFF = re.compile(
    r"(?i)(?:\.\.\.|\u2026|\[\u2026\]|\[\.\.\.\]|read more|continue reading)[\s\u00bb>]{0,4}$"
)
_SENTENCE = re.compile(r"(?<=[.!?\u3002])\s+|\n")
_URL_WORD = re.compile(r"[\W_]+")
_ABUSE = pattern("filters_abuse")
_ITEM_MARKS = ("- ", "* ", "\u2022", "\u2023", "\u25cf", "\u25e6", "\u2043")
_ELLIPSES = ("...", "\u2026")

MAX_LANGUAGE_RANK = 1200
"""Distance from the language's profile; a text of no language is above it."""
MAX_CAPITALS_FRAC = 0.8
"""Of the letters of a heading; one short word (an acronym) may be all capitals."""
MIN_LETTERS_FRAC = 0.5
"""Of the characters that are not white space: tables of figures and bare code have fewer."""
MIN_PROSE_FRAC = 0.3
"""Share of the text outside code and tables."""
NGRAM_WORDS = 3
"""Words of an n-gram for the repetition filter."""
MAX_JACCARD = 0.8
"""Two sentences of a segment with more of their n-grams of words in common repeat each other;
the paper gives neither figure."""
MIN_SENTENCE_WORDS = 6
"""Shorter sentences may recur."""
MAX_PERSONAL = 5
"""A text with more e-mail addresses, telephone numbers or identifiers is a list of contacts."""
MAX_REPEATED, MAX_REPEATED_CHARS = 0.3, 0.2
"""Share of lines, or of paragraphs, that repeat an earlier one; and of the characters in them."""
MAX_TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
"""Share of characters in the most frequent n-gram."""
MAX_REPEATED_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Share of characters in n-grams that occur more than once."""
MAX_ITEMS, MAX_ELLIPSES = 0.9, 0.3
"""Share of lines that are list items, or end in an ellipsis."""


class FilterConfig(Config):
    """Filters for sections."""

    languages: tuple[str, ...] = ("en",)
    """Codes of languages to keep, as resiliparse gives them; an empty list keeps all languages."""
    quality: tuple[Literal["gopher_repetition", "gopher_lists"], ...] = ()
    """Further filters, by name: `gopher_repetition` (repeated lines, paragraphs and n-grams) and
    `gopher_lists` (nine lines in ten are list items, or three in ten end in an ellipsis). Both drop
    some texts about code."""
    blocked_domains: tuple[str, ...] = ()
    """Domains whose pages are dropped, subdomains included."""
    blocked_url_words: tuple[str, ...] = ()
    """Words in an address, between signs, that drop its page."""


def _has_little_prose(section: Section) -> bool:
    num_letters = sum(map(str.isalpha, section.text))
    num_marks = sum(not char.isspace() for char in section.text)
    few = num_letters < MIN_LETTERS_FRAC * num_marks
    return few or len(section.prose) < MIN_PROSE_FRAC * len(section.text)


def _repeats_sentences(prose: str) -> bool:
    """Compare all pairs of sentences; a segment has some tens of them."""
    split = map(words, _SENTENCE.split(prose))
    grams = [set(_grams(each, NGRAM_WORDS)) for each in split if len(each) >= MIN_SENTENCE_WORDS]
    return any(
        len(first & second) > MAX_JACCARD * len(first | second)
        for place, first in enumerate(grams)
        for second in grams[:place]
    )


def _grams(split: list[str], num: int) -> list[tuple[str, ...]]:
    return [tuple(split[at : at + num]) for at in range(len(split) - num + 1)]


def _is_repetitive(text: str) -> bool:
    """Return whether lines, paragraphs or n-grams repeat each other beyond Gopher's bounds."""
    for pieces in (text.split("\n\n"), text.splitlines()):
        parts = [part.strip() for part in pieces if part.strip()]
        repeated = list((Counter(parts) - Counter(set(parts))).elements())
        is_frequent = len(repeated) > MAX_REPEATED * len(parts)
        if is_frequent or _num_chars(repeated) > MAX_REPEATED_CHARS * _num_chars(parts):
            return True
    split = words(text)
    num_chars = max(1, _num_chars(split))
    for num, bound in MAX_TOP_NGRAM.items():
        grams = Counter(_grams(split, num))
        often, chars = max(((n, _num_chars(gram)) for gram, n in grams.items()), default=(0, 0))
        if often > 1 and often * chars > bound * num_chars:
            return True
    for num, bound in MAX_REPEATED_NGRAMS.items():
        seen: set[tuple[str, ...]] = set()
        places: set[int] = set()  # of words in n-grams that occurred before
        for at, gram in enumerate(_grams(split, num)):
            if gram in seen:
                places.update(range(at, at + num))
            seen.add(gram)
        if sum(len(split[place]) for place in places) > bound * num_chars:
            return True
    return False


def _num_chars(parts: Iterable[str]) -> int:
    return sum(map(len, parts))


def _is_list(text: str) -> bool:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    num_items = sum(line.startswith(_ITEM_MARKS) for line in lines)
    num_ellipses = sum(line.endswith(_ELLIPSES) for line in lines)
    return num_items > MAX_ITEMS * len(lines) or num_ellipses > MAX_ELLIPSES * len(lines)


FILTERS: dict[str, Callable[[Section, FilterConfig], bool]] = {
    "no_heading": lambda one, config: not (one.is_plain or any(map(str.isalnum, one.heading))),
    "capital_heading": lambda one, config: (
        len(letters := [char for char in one.heading if char.isalpha()]) > 5
        and sum(map(str.isupper, letters)) > MAX_CAPITALS_FRAC * len(letters)
    ),
    "navigation": lambda one, config: (
        len("".join(_NAVIGATION.findall(one.heading)[:1])) > len(one.heading) / 2
    ),
    "language": lambda one, config: one.language not in (config.languages or (one.language,)),
    "little_prose": lambda one, config: _has_little_prose(one),
    "notice": lambda one, config: _NOTICE.search(one.prose) is not None,
    "cut_off": lambda one, config: _CUT_OFF.search(one.text[-40:]) is not None,
    "personal": lambda one, config: one.num_redacted > MAX_PERSONAL,
    "repeated_sentences": lambda one, config: _repeats_sentences(one.prose),
    "gopher_repetition": lambda one, config: (
        "gopher_repetition" in config.quality and _is_repetitive(one.text)
    ),
    "gopher_lists": lambda one, config: "gopher_lists" in config.quality and _is_list(one.text),
}
"""In this order; the first that speaks against a section names the reason."""


def reason_against(one: Section, config: FilterConfig) -> str:
    """Return the name of the first filter that refuses the section, or nothing."""
    return next((name for name, refuses in FILTERS.items() if refuses(one, config)), "")


def is_toxic(text: str) -> bool:
    """Return whether the text holds words of abuse: a word list, without context."""
    return _ABUSE.search(text) is not None


def url_reason(url: str, config: FilterConfig) -> str:
    """Return why a page is dropped by its address, or nothing."""
    if not (config.blocked_domains or config.blocked_url_words):
        return ""
    try:
        host = (urlsplit(url.lower()).hostname or "").rstrip(".")
    except ValueError:
        return ""
    names = [name.lower().strip(".") for name in config.blocked_domains]
    if any(host == name or host.endswith("." + name) for name in names):
        return "blocked_domain"
    words_found = set(_URL_WORD.split(url.lower()))
    return "blocked_url" if words_found & set(map(str.lower, config.blocked_url_words)) else ""
