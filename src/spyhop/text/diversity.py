"""Verbs of instructions and the nouns that are their objects.

Self-Instruct and Humpback parse each instruction and take the root verb with its direct object. The
extra `[parser]` with its model does this here, too; else rules do. The rules know imperatives only,
after words of politeness, take the noun phrase after the verb, and its last word as the noun. What
cannot be read is counted, never guessed. On 2,009 human instructions spaCy reads 66 % and the rules
34 %; of the instructions that both read, 79 % of the pairs are equal. Figures of the rules compare
data sets with each other and not with published ones; `Diversity.reader` names the reader.

Source: Self-Instruct (arXiv:2212.10560), section 3.2; Humpback (arXiv:2308.06259), Figure 2 (v1).
"""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from spyhop.text.parser import parsed_verb_nouns, parser_name
from spyhop.text.tables import table, word_set

VERBS = word_set("verbs")
_SKIPPED, _ENDS, _PRONOUNS = map(word_set, ("skipped", "ends", "pronouns"))
_UNCHANGED, _IN_IE = word_set("unchanged"), word_set("in_ie")
_PLURALS: dict[str, str] = table("text/words.toml")["plurals"]
_OPENINGS = re.compile(
    r"^(?:(?:hi|hello|hey|ok|okay|now|then|first|next|also|so|and|please|kindly|pls|just|simply"
    r"|briefly|shortly|quickly|carefully|always)\b[\s,!.:-]*"
    r"|(?:can|could|would|will) you(?: please| kindly| also)?\s+"
    r"|(?:i want|i need|i'd like|i would like|i'd love) you to\s+"
    r"|(?:i want|i need|i'd like|i would like|help me(?: to)?|try|let's|let us)(?: to)?\s+"
    r"|your task is to\s+|you (?:must|should|need to|have to|are to|are asked to)\s+"
    r"|step by step[\s,]*|in (?:a few|\d+|one|two|three) \w+,\s*)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Diversity:
    """Verbs with their nouns in a set of instructions."""

    num_instructions: int
    pairs: Counter[tuple[str, str]]
    """(verb, noun) of each instruction that could be read."""
    reader: str = ""
    """Name and versions of the parser; empty for the rules."""

    @property
    def num_read(self) -> int:
        """Instructions in which both were found."""
        return self.pairs.total()

    @property
    def verbs(self) -> Counter[str]:
        """How often each verb occurs, over all nouns."""
        found: Counter[str] = Counter()
        for (verb, _), num in self.pairs.items():
            found[verb] += num
        return found

    @property
    def entropy_bits(self) -> float:
        """Entropy of the pairs; 2 to this power is how many equally frequent ones say the same."""
        total = max(1, self.num_read)
        return -sum(n / total * math.log2(n / total) for n in self.pairs.values()) + 0.0

    def distinct(self, num_read: int) -> float:
        """Return the distinct pairs expected among `num_read` instructions.

        Data sets of different sizes compare at one number (rarefaction, Hurlbert 1971): each pair
        counts with the probability that a draw without replacement contains it.
        """
        total = self.num_read
        if num_read >= total:
            return float(len(self.pairs))
        missed = [_missed(total, num, num_read) for num in self.pairs.values()]
        return len(self.pairs) - sum(missed)


def diversity(instructions: Iterable[str]) -> Diversity:
    """Return the verbs and nouns of the instructions."""
    reader = parser_name()
    found = Counter(parsed_verb_nouns(instructions) if reader else map(verb_noun, instructions))
    pairs = Counter({pair: num for pair, num in found.items() if pair is not None})
    return Diversity(found.total(), pairs, reader)


def verb_noun(instruction: str) -> tuple[str, str] | None:
    """Return the opening verb and the noun that is its object, both in lower case, or None.

    The sentences of an instruction are tried in order, at most five; questions and statements give
    nothing. Nouns are put into the singular by their ending.
    """
    for sentence in re.split(r"(?<=[.!?:])\s+|\n+", instruction.strip(), maxsplit=5)[:5]:
        found = _of_sentence(sentence)
        if found is not None:
            return found
    return None


def _of_sentence(sentence: str) -> tuple[str, str] | None:
    text = sentence.strip().lstrip("#*->0123456789.) \t\"'“")
    while cut := _OPENINGS.match(text):
        text = text[cut.end() :]
    words = [word.lower() for word in _WORD.findall(text)[:24]]
    if not words or words[0] not in VERBS:
        return None
    noun = _noun(words[1:])
    return None if noun is None else (words[0], noun)


def _noun(words: list[str]) -> str | None:
    """Return the last word of the first noun phrase, up to a word that ends one."""
    start = 0
    while start < len(words) and (words[start] in _SKIPPED or words[start].isdigit()):
        start += 1
    phrase: list[str] = []
    for word in words[start:]:
        is_end = not word[0].isalpha() or word in _ENDS
        if is_end or (phrase and word.endswith(("ing", "ly")) and len(word) > 5):
            break
        phrase.append(word)
    if not phrase or phrase[-1] in _PRONOUNS or phrase[-1] in _SKIPPED:
        return None
    return _singular(phrase[-1].removesuffix("'s").removesuffix("’s"))


def _singular(noun: str) -> str:
    """Return the singular of a noun: by the lists of irregular ones, else by its ending."""
    if noun in _PLURALS or noun in _UNCHANGED or noun.endswith(("ss", "us", "is", "ics")):
        return _PLURALS.get(noun, noun)
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-1] if noun[:-1] in _IN_IE else f"{noun[:-3]}y"
    if noun.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and len(noun) > 3 else noun


def _missed(total: int, num: int, drawn: int) -> float:
    """Return the probability that a draw of `drawn` of `total` misses all of `num`."""
    if total - num < drawn:
        return 0.0
    logs = (
        math.lgamma(total - num + 1)
        - math.lgamma(total - num - drawn + 1)
        - math.lgamma(total + 1)
        + math.lgamma(total - drawn + 1)
    )
    return math.exp(logs)
