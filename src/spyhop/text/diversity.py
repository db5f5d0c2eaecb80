"""Verbs of instructions and the nouns that are their objects, by a parser (extra `[parser]`).

The root verb of the first sentence that has one, with its direct object, both as lemmas. What
cannot be read is counted, never guessed.

Source: Self-Instruct (arXiv:2212.10560), section 3.2; Humpback (arXiv:2308.06259), Figure 2 (v1).
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import islice

from spyhop.lazy import stats

MODEL = "en_core_web_sm"
"""The parser's model, which is installed by `python -m spacy download en_core_web_sm`."""
MAX_CHARS = 2_000
"""Instructions are read up to here, as longer ones hold texts to work on."""
MAX_SENTENCES = 5


@dataclass(frozen=True, slots=True)
class Diversity:
    """Verbs with their nouns in a set of instructions."""

    num_instructions: int
    pairs: Counter[tuple[str, str]]
    """(verb, noun) of each instruction that could be read."""
    reader: str = ""
    """Name and versions of the parser; empty without one, and then no instruction is read."""

    @property
    def num_read(self) -> int:
        """Instructions in which both were found."""
        return self.pairs.total()

    @property
    def entropy_bits(self) -> float:
        """Entropy of the pairs; 2 to this power is how many equally frequent ones say the same."""
        total = max(1, self.num_read)
        return -sum(n / total * math.log2(n / total) for n in self.pairs.values()) + 0.0

    def distinct(self, num_read: int) -> float:
        """Return the distinct pairs expected among `num_read` (rarefaction, Hurlbert 1971)."""
        total = self.num_read
        if num_read >= total:
            return float(len(self.pairs))
        missed = stats.hypergeom.pmf(0, total, [*self.pairs.values()], num_read)
        return float(len(self.pairs) - missed.sum())


def diversity(instructions: Iterable[str]) -> Diversity:
    """Return the verbs and nouns of the instructions; none where no parser is installed."""
    try:
        reader = f"spaCy {version('spacy')}, {MODEL} {version(MODEL)}"
    except PackageNotFoundError:
        return Diversity(sum(1 for _ in instructions), Counter())
    language = import_module("spacy").load(MODEL, exclude=["ner"])
    num, pairs = 0, Counter[tuple[str, str]]()
    for document in language.pipe(text[:MAX_CHARS] for text in instructions):
        num += 1
        found = (
            (one.root.lemma_.lower(), child.lemma_.lower())
            for one in list(document.sents)[:MAX_SENTENCES]
            if one.root.pos_ == "VERB"
            for child in one.root.children
            if child.dep_ in ("dobj", "obj")
        )
        pairs.update(islice(found, 1))
    return Diversity(num, pairs, reader)
