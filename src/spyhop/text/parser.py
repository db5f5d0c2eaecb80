"""Verbs and nouns of instructions by a dependency parser (extra `[parser]`), as in the papers.

The root verb of the first sentence that has one, with its direct object, both as lemmas.

Source: Self-Instruct (arXiv:2212.10560), section 3.2: root verb and first direct noun object.
"""

from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

MODEL = "en_core_web_sm"
"""The parser's model, which is installed by `python -m spacy download en_core_web_sm`."""
MAX_CHARS = 2_000
"""Instructions are read up to here, as longer ones hold texts to work on."""
MAX_SENTENCES = 5


def parser_name() -> str:
    """Return the name and versions of the installed parser; empty without one."""
    try:
        return f"spaCy {version('spacy')}, {MODEL} {version(MODEL)}"
    except PackageNotFoundError:
        return ""


def parsed_verb_nouns(texts: Iterable[str], model: str = MODEL) -> Iterator[tuple[str, str] | None]:
    """Yield verb and noun of every instruction, or None, in order."""
    language = import_module("spacy").load(model, exclude=["ner"])
    for document in language.pipe(text[:MAX_CHARS] for text in texts):
        pairs = (_verb_noun(one.root) for one in list(document.sents)[:MAX_SENTENCES])
        yield next((pair for pair in pairs if pair), None)


def _verb_noun(root: Any) -> tuple[str, str] | None:  # noqa: ANN401 (a token of an extra)
    if root.pos_ != "VERB":
        return None
    objects = [child for child in root.children if child.dep_ in ("dobj", "obj")]
    return (root.lemma_.lower(), objects[0].lemma_.lower()) if objects else None
