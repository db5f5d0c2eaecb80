"""Whether a text asks for something (a question, request or title) or refuses; and its language."""

import re

from spyhop.text.normal import normal
from spyhop.text.tables import pattern, table, word_set

_FENCE = re.compile(r"```.*?(?:```|\Z)|^\s*>>>.*$", re.DOTALL | re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.?!\u3002\uff1f\uff01])[\s\"'\u201d)*]+|\s*\n\s*|(?<=:)\s+")
_BULLET = re.compile(r"^(?:[-*#>\u2022]+|\(?(?:\d{1,2}|[a-zA-Z])[.)]|step \d+:?)\s*", re.IGNORECASE)
_OPENING = pattern("asking_opening")
_REQUEST = pattern("asking_request")
_WH = pattern("asking_wh")
_YES_NO = pattern("asking_yes_no")
_FINITE = pattern("asking_finite")
_ASKED = re.compile(r"^(?:what|how|why) \w", re.IGNORECASE)
_DUTY = pattern("asking_duty")
_ADVERBIAL = pattern("asking_adverbial")
_ROLE = re.compile(r"^you(?: are|'re) (?:an?|the|now an?) ", re.IGNORECASE)
_FIRST_PERSON = re.compile(r"^(?:i|my|we|our|i'm|i've|we're)(?= )", re.IGNORECASE)
_ANSWERING = re.compile(r"^(?:here|the (?:following|next|answer)|text|sure)\b", re.IGNORECASE)
FIRST_PERSON_WORDS = 120
"""A statement about oneself may be a message to an assistant, if it is not longer."""
_CUE = re.compile(
    r"(?:[:=?]|_{2,}|\.{3}|\u2026)[\s\"'*)\]\u201d]*\Z|_{3,}|<(?:blank|mask)>|\[\w+\]"
)
_IMPERATIVES = word_set("verbs") | word_set("imperatives")
LABEL_WORDS = 6
"""A colon behind at most this many words is a cue to continue; behind more, a list or code."""
TITLE_WORDS = 9
"""A title without a verb may ask for a text on its subject, if it is not longer."""
OPENING_CHARS = 300
"""Where a response refuses; a warning at the end of a full answer is no refusal."""
_REFUSES, _DECLINES = pattern("refusal_refuses"), pattern("squad_declines")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^'\n]{4,}'|\u201c[^\u201d]*\u201d|`[^`]*`")
_WORDS_OF = {
    code: frozenset(words.split()) for code, words in table("text/words.toml")["languages"].items()
}
_SCRIPTS = {
    "zh": r"[\u4e00-\u9fff]", "ja": r"[\u3040-\u30ff]", "ko": r"[\uac00-\ud7af]",
    "ru": r"[\u0400-\u04ff]", "ar": r"[\u0600-\u06ff]", "el": r"[\u0370-\u03ff]",
    "he": r"[\u0590-\u05ff]", "hi": r"[\u0900-\u097f]", "th": r"[\u0e00-\u0e7f]",
}  # fmt: skip
"""Share of the letters in a script that makes a text one of that language (or its script's)."""


def sentences(text: str) -> list[str]:
    """Return the sentences and lines of a text, without code and bullets."""
    found = _SENTENCE.split(_FENCE.sub("\n", text))
    return [bare for one in found if (bare := _BULLET.sub("", one.strip(" \t\"'*\u201c\u201d")))]


def asks(text: str) -> bool:
    """Return whether a text contains a question or a request, ends with a cue, or is a title.

    A text in another language than English always asks.
    """
    if language_of(text) not in ("", "en"):
        return True
    parts = sentences(text)
    if any(_is_request(one) for one in parts):
        return True
    has_cue = _CUE.search(_FENCE.sub("\n", text).rstrip())
    if not parts:
        return bool(has_cue)
    is_label = not parts[-1].endswith(":") or len(parts[-1].split()) <= LABEL_WORDS
    if has_cue and is_label and not _ANSWERING.match(parts[-1]):
        return True
    is_told = len(text.split()) <= FIRST_PERSON_WORDS and _FIRST_PERSON.match(parts[0])
    is_sentence = text.rstrip().endswith((".", "!", "\u3002")) or _FINITE.search(parts[0])
    most = TITLE_WORDS * (3 if parts[0][:1].islower() else 1)  # a query may be longer
    is_short = len(parts) == 1 and len(parts[0].split()) <= most
    return bool(is_told) or (is_short and not is_sentence and _ANSWERING.match(parts[0]) is None)


def language_of(text: str) -> str:
    """Return the ISO code of a text's language; empty where it is not clear.

    Non-Latin scripts are recognised by their letters, seven languages by their commonest words, of
    which another language than English must have three, and twice as many as English.
    """
    letters = [letter for letter in text if letter.isalpha()]
    for code, script in _SCRIPTS.items():
        if 2 * len(re.findall(script, text)) > max(1, len(letters)):
            return code
    tokens = re.findall(r"[^\W\d_]+", _QUOTED.sub(" ", text.lower()))
    counts = {code: sum(token in words for token in tokens) for code, words in _WORDS_OF.items()}
    best, second = sorted(counts, key=lambda code: -counts[code])[:2]
    is_clear = counts[best] > counts[second] and counts[best] >= max(2, 0.25 * len(tokens))
    if best != "en":
        is_clear = is_clear and counts[best] >= max(3, 2 * counts["en"])
    return best if is_clear else ""


def _is_request(sentence: str) -> bool:
    bare, end = _OPENING.sub("", sentence).replace("\u2019", "'"), sentence.rstrip("\"'*)\u201d ")
    if end.endswith(("?", "\uff1f")) or _REQUEST.search(sentence) or _WH.match(bare):
        return True
    if _YES_NO.match(bare) and not end.endswith((".", "!")):
        return True
    if _is_imperative(bare) or _ROLE.match(bare) or _IMPERATIVES & {*_DUTY.findall(bare.lower())}:
        return True
    clauses = re.split(r"[,;:]\s+", bare)[1:]
    clauses = clauses if _ADVERBIAL.match(bare) else clauses[:1]
    return any(_is_imperative(clause) or _ASKED.match(clause) for clause in clauses)


def _is_imperative(sentence: str) -> bool:
    first = re.findall(r"[\w']+", sentence.lower().replace("re-", "re"))[:2]
    is_adverb = len(first) > 1 and (first[0].endswith("ly") or first[0] in ("either", "both"))
    return first == ["do", "not"] or bool(_IMPERATIVES & {*first[: 1 + is_adverb]})


def refuses(response: str) -> bool:
    """Return whether a response refuses, near its beginning and in English."""
    return _opens_with(_REFUSES, response)


def declines(response: str) -> bool:
    """Return whether a response says near its beginning that it does not know."""
    return _opens_with(_DECLINES, response)


def _opens_with(phrase: re.Pattern[str], response: str) -> bool:
    opening = normal(response[:OPENING_CHARS]).replace("\u2019", "'")
    return phrase.search(" ".join(opening.split())) is not None
