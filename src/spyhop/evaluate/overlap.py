"""Overlap of responses with reference texts: BLEU, chrF, ROUGE and METEOR (extra `[text]`).

BLEU and chrF are sacrebleu's, with its signature; ROUGE is rouge-score's, stemmed; METEOR is
nltk's with the exact and the stem stage. WordNet is not used, so a synonym is no match, and figures
are lower than those of METEOR with all its stages. All values are between 0 and 1; of several
references the best one counts.
"""

import re
from collections.abc import Sequence
from functools import cache
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any

from spyhop.lazy import library
from spyhop.schema import InputError

ROUGE = ("rouge1", "rouge2", "rougeL")
USER = "text overlap"
METRICS = ("bleu", "chrf", *ROUGE, "meteor")
_WORD = re.compile(r"\w+|[^\w\s]")
_NO_SYNONYMS = SimpleNamespace(synsets=lambda word: [])
"""In the place of WordNet."""


def text_overlap(
    responses: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the overlap of responses with one or more references each, and sacrebleu's signatures.

    BLEU and chrF are over the corpus, the others means over the responses.
    """
    if not responses or len(responses) != len(references) or not all(references):
        raise InputError(
            f"{len(responses)} responses with {sum(map(bool, references))} references: text "
            "overlap needs one reference or more for each response"
        )
    columns = list(map(list, zip_longest(*references)))
    metrics = _metrics(is_corpus=True)
    scores = {n: _share(each.corpus_score(list(responses), columns)) for n, each in metrics.items()}
    single = [_single(text, some) for text, some in zip(responses, references, strict=True)]
    scores |= {name: sum(each[name] for each in single) / len(single) for name in single[0]}
    return scores, {name: str(each.get_signature()) for name, each in metrics.items()}


def overlap_metrics(response: str, references: Sequence[str]) -> dict[str, float]:
    """Return every metric of one response; BLEU has the effective order, as a sentence needs."""
    if not any(references):
        raise InputError("text overlap needs a reference")
    metrics = _metrics(is_corpus=False)
    scores = {n: _share(e.sentence_score(response, list(references))) for n, e in metrics.items()}
    return scores | _single(response, references)


def _share(found: Any) -> float:  # noqa: ANN401 (sacrebleu's score, in percent and rounding errors)
    return min(1.0, float(found.score) / 100)


def _single(response: str, references: Sequence[str]) -> dict[str, float]:
    """Return the metrics that are means over responses."""
    rouge = [_rouge().score(reference, response) for reference in references]
    meteor = library("nltk.translate.meteor_score", USER).single_meteor_score
    pairs = [[_WORD.findall(text) for text in (some, response)] for some in references]
    found = [meteor(*words, wordnet=_NO_SYNONYMS) if all(words) else 0.0 for words in pairs]
    return {n: max(each[n].fmeasure for each in rouge) for n in ROUGE} | {"meteor": max(found)}


@cache
def _metrics(*, is_corpus: bool) -> dict[str, Any]:
    sacrebleu = library("sacrebleu", USER)
    return {"bleu": sacrebleu.BLEU(effective_order=not is_corpus), "chrf": sacrebleu.CHRF()}


@cache
def _rouge() -> Any:  # noqa: ANN401 (rouge-score's type)
    return library("rouge_score.rouge_scorer", USER).RougeScorer(list(ROUGE), use_stemmer=True)
