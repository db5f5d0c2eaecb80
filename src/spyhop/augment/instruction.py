"""Clean instructions that a model wrote for a text, and name why one is rejected.

The checks are about form: whether a text can be put to an assistant as an instruction. Whether it
fits its response is rated later. Classes are those of real outputs of small backward models.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from spyhop.augment.conversation import ReversedConfig
from spyhop.schema import Config
from spyhop.text.asking import asks, language_of, sentences
from spyhop.text.overlap import words
from spyhop.text.tables import pattern
from spyhop.text.thought import without_end_marks, without_thought

MARKS = ("<|", "[INST]", "### Instruction:", "### Response:", "Response:")
_PREFIX = pattern("instruction_prefix")
_QUOTES = {'"': '"', "\u201c": "\u201d", "\u00ab": "\u00bb", "'": "'", "`": "`", "**": "**"}
_ANSWER = pattern("instruction_answer")
"""A line behind a labelled instruction that is no part of it."""
_SOLUTION = pattern("instruction_solution")
_QUOTED = re.compile(r"\"[^\"]+\"|\u201c[^\u201d]+\u201d|'[^'\n]{12,}'|\*\*[^*]+\*\*")
_REFUSAL = pattern("instruction_refusal")
_TALK = pattern("instruction_talk")
"""The beginning of a text that talks about the task, or that an assistant says in its own role."""
_ABOUT = pattern("instruction_about")
"""Words about the task anywhere; a question about a text that is not there."""


_TURN = re.compile(r"^[ \t*_#>]*(?:response|assistant)[*_]*\s*:\s*\S", re.IGNORECASE | re.MULTILINE)
"""A model that continues with the answer after the label of its prompt."""


COPY_WORDS, COPY_FRAC = 8, 0.5
"""Filter `copy`: at least this share of the instruction's runs of words is in the response, and the
rest asks for nothing. Filter `answered`: the same share of the response is in it, too."""
LEAK_WORDS = 8
"""Filters `prompt_leak` and `echo`: words of a run of the prompt (all of it, if it is shorter) that
is in the instruction; for `echo` such runs are at least half of it."""


class InstructionFilters(Config):
    """Filters for generated instructions."""

    marks: tuple[str, ...] = MARKS
    """Filter `prompt_leak`: a line of the instruction starts with one of these."""
    min_chars: int = Field(3, ge=0)
    """Filter `too_short`: least characters of an instruction; a single word that is not a question
    is too short, too."""
    max_chars: int | None = Field(None, gt=0)
    """Filter `too_long`: most characters of an instruction. Default: no limit, as in the paper."""


def clean(text: str) -> str:
    """Return an instruction without what models write around it.

    Removed are a thought, end tokens, prefixes ("Instruction:", "Sure! Here is the question:"), an
    answer that follows an instruction with such a prefix, and quotes around the whole.
    """
    text = without_end_marks(without_thought(text)).strip()
    is_labelled = False
    while (found := _PREFIX.match(text)) and found.end():
        text, is_labelled = text[found.end() :].strip(), True
    if is_labelled and (quoted := re.match(r'(["\u201c])(.+?)["\u201d](?=\W|$)', text, re.DOTALL)):
        text = quoted[0] if asks(quoted[2]) else text
    for end in (_ANSWER, _SOLUTION) if is_labelled else (_SOLUTION,):
        if (found := end.search(text)) and asks(before := text[: found.start()].strip()):
            text = before
    if (found := _TURN.search(text)) and "\n" not in (before := text[: found.start()].strip()):
        text = before if asks(before) else text
    return _unquoted(text)


def _unquoted(text: str) -> str:
    for start, end in _QUOTES.items():
        inner = text[len(start) : -len(end)]
        is_whole = text.startswith(start) and text.endswith(end) and len(text) > len(start + end)
        if is_whole and start not in inner and end not in inner:
            return inner.strip()
    is_open = text.startswith(('"', "\u201c")) and not re.search(r'["\u201d]', text[1:])
    return text[1:].strip() if is_open else text


@dataclass(frozen=True, slots=True)
class InstructionCheck:
    """Names the reason to reject an instruction."""

    filters: InstructionFilters
    asked: ReversedConfig
    """The prompt of the backward model."""

    def reason(self, text: str, response: str, language: str) -> str:
        """Return why a cleaned instruction is rejected; empty if it is good."""
        stated, plain = words(text), text.replace("\u2019", "'")
        if not stated:
            return "empty"
        is_word = len(stated) == 1 and "?" not in text
        if len(text) < self.filters.min_chars or (is_word and self.filters.min_chars):
            return "too_short"
        if self.filters.max_chars is not None and len(text) > self.filters.max_chars:
            return "too_long"
        if _REFUSAL.match(plain) and "?" not in text:
            return "refusal"
        found, expected = language_of(text), (language, language_of(self.asked.prompt))
        if found and language and found not in expected:
            return "other_language"
        if is_loop(stated):
            return "loop"
        is_talk = (
            plain.splitlines()[0].strip(" *_#") in self.asked.prompt.split("\n")
            or _ABOUT.search(plain)
            or _TALK.match(plain.lstrip("\"'*_# \u201c"))
        )
        return (
            self._leak(text, stated)
            or ("talk" if is_talk else "")
            or self._copy(text, stated, words(response))
            or ("" if asks(text) else "statement")
        )

    def _leak(self, text: str, stated: Sequence[str]) -> str:
        covered = [False] * len(stated)
        for piece in (self.asked.system_message, *self.asked.prompt.split("{response}")):
            prompt = words(piece)
            size = min(LEAK_WORDS, len(prompt))
            runs = set(_runs(prompt, size)) if size > 2 else set()
            for start, run in enumerate(_runs(stated, size)):
                if run in runs:
                    covered[start : start + size] = [True] * size
        if 2 * sum(covered) >= len(stated):
            return "echo"
        marks = self.filters.marks
        is_marked = any(line.lstrip("* ").startswith(marks) for line in text.splitlines())
        return "prompt_leak" if is_marked or any(covered) else ""

    def _copy(self, text: str, stated: Sequence[str], response: Sequence[str]) -> str:
        size = min(COPY_WORDS, len(response))
        if size < 3 or _shared(stated, response, size) < COPY_FRAC:
            return ""
        parts = sentences(_QUOTED.sub("_", text))
        if len(parts) > 1 and _shared(response, stated, size) >= COPY_FRAC:
            return "answered"
        known = set(_runs(response, size))
        begun = [tuple(words(one)[:size]) for one in parts]  # in the response from the start on?
        own = (
            one
            for one, run in zip(parts, begun, strict=True)
            if "?" in one
            or (run and run not in (known if len(run) == size else _runs(response, len(run))))
        )
        return "" if any(asks(one) for one in own) else "copy"


def is_loop(stated: Sequence[str]) -> bool:
    """Return whether a text repeats itself: under 60 % of its runs of four words are distinct."""
    runs = _runs(stated, 4)
    if len(runs) < 8:
        half = len(stated) // 2
        return half > 2 and list(stated[:half]) == list(stated[half:])
    return len(set(runs)) < 0.6 * len(runs)


def _shared(stated: Sequence[str], other: Sequence[str], size: int) -> float:
    """Return the share of a text's runs of words that are in another text."""
    runs, known = _runs(stated, size), set(_runs(other, size))
    return sum(run in known for run in runs) / len(runs) if runs else 0.0


def _runs(stated: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Return every run of that many words, in order."""
    return list(zip(*(stated[start:] for start in range(size)), strict=False))
