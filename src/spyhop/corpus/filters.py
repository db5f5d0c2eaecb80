"""Reasons to drop a section. Each filter has a name, and its name is the reason."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from spyhop.corpus.quality import is_list, is_repetitive
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


@dataclass(frozen=True, slots=True)
class Candidate:
    """Input of the filters: a section, its language, and how much of it was redacted."""

    section: Section
    language: str
    num_redacted: int
    is_plain: bool = False
    """Whether the page is plain text, which need not have headings."""

    @property
    def heading(self) -> str:
        """The heading right above the text."""
        return self.section.headings[-1] if self.section.headings else ""


Filter = Callable[[Candidate, FilterConfig], bool]


def _no_heading(one: Candidate, config: FilterConfig) -> bool:
    return not (one.is_plain or any(char.isalnum() for char in one.heading))


def _capital_heading(one: Candidate, config: FilterConfig) -> bool:
    letters = [char for char in one.heading if char.isalpha()]
    num_capitals = sum(char.isupper() for char in letters)
    return len(letters) > 5 and num_capitals > MAX_CAPITALS_FRAC * len(letters)


def _navigation(one: Candidate, config: FilterConfig) -> bool:
    found = _NAVIGATION.search(one.heading)
    return found is not None and len(found.group()) > len(one.heading) / 2


def _language(one: Candidate, config: FilterConfig) -> bool:
    return bool(config.languages) and one.language not in config.languages


def _little_prose(one: Candidate, config: FilterConfig) -> bool:
    text = one.section.text
    num_letters = sum(char.isalpha() for char in text)
    num_marks = sum(not char.isspace() for char in text)
    few = num_letters < MIN_LETTERS_FRAC * num_marks
    return few or len(one.section.prose) < MIN_PROSE_FRAC * len(text)


def _notice(one: Candidate, config: FilterConfig) -> bool:
    return _NOTICE.search(one.section.prose) is not None


def _cut_off(one: Candidate, config: FilterConfig) -> bool:
    return _CUT_OFF.search(one.section.text[-40:]) is not None


def _personal(one: Candidate, config: FilterConfig) -> bool:
    return one.num_redacted > MAX_PERSONAL


def _repeated_sentences(one: Candidate, config: FilterConfig) -> bool:
    """Compare all pairs of sentences; a segment has some tens of them."""
    grams = []
    for sentence in _SENTENCE.split(one.section.prose):
        split = words(sentence)
        if len(split) >= MIN_SENTENCE_WORDS:
            num = NGRAM_WORDS
            grams.append({tuple(split[at : at + num]) for at in range(len(split) - num + 1)})
    return any(
        len(first & second) > MAX_JACCARD * len(first | second)
        for place, first in enumerate(grams)
        for second in grams[:place]
    )


def _gopher_repetition(one: Candidate, config: FilterConfig) -> bool:
    return "gopher_repetition" in config.quality and is_repetitive(one.section.text)


def _gopher_lists(one: Candidate, config: FilterConfig) -> bool:
    return "gopher_lists" in config.quality and is_list(one.section.text)


FILTERS: dict[str, Filter] = {
    "no_heading": _no_heading,
    "capital_heading": _capital_heading,
    "navigation": _navigation,
    "language": _language,
    "little_prose": _little_prose,
    "notice": _notice,
    "cut_off": _cut_off,
    "personal": _personal,
    "repeated_sentences": _repeated_sentences,
    "gopher_repetition": _gopher_repetition,
    "gopher_lists": _gopher_lists,
}
"""In this order; the first that speaks against a section names the reason."""


def reason_against(one: Candidate, config: FilterConfig) -> str:
    """Return the name of the first filter that refuses the section, or nothing."""
    if one.section.reason:
        return one.section.reason
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
