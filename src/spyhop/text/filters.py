"""Extraction and comparison of answers as lm-eval's `filter_list` and `exact_match` define them."""

import re
import string
from typing import Any, Literal

from pydantic import ValidationError, field_validator

from spyhop.schema import Config, RecipeError

_NAMES = {"regex_pattern": "pattern", "group_select": "select"}  # lm-eval's names of our fields


class Step(Config):
    """One function of a filter."""

    function: Literal["regex", "lowercase", "uppercase", "remove_whitespace", "take_first"]
    """Name of the function, as lm-eval has it."""
    pattern: str = r"#### (\-?[0-9\.\,]+)"
    """Regular expression; its first group that is not empty is the answer."""
    select: int = 0
    """Which match counts: 0 is the first, -1 the last."""
    fallback: str = "[invalid]"
    """The answer where nothing matches."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"no regular expression ({error})") from None
        return pattern

    def apply(self, text: str) -> str:
        """Return the text that remains."""
        if self.function == "remove_whitespace":
            return text.strip()
        if self.function != "regex":
            return {"lowercase": text.lower(), "uppercase": text.upper()}.get(self.function, text)
        found = re.findall(self.pattern, text)
        if not -len(found) <= self.select < len(found):
            return self.fallback
        match = found[self.select]
        groups = [group for group in match if group] if isinstance(match, tuple) else [match]
        return groups[0].strip() if groups else self.fallback


class ExactMatch(Config):
    """Differences that do not count when an answer is compared with the gold one."""

    ignore_case: bool = False
    """Compare without case."""
    ignore_punctuation: bool = False
    """Compare without punctuation."""
    ignore_numbers: bool = False
    """Compare without digits."""
    regexes_to_ignore: tuple[str, ...] = ()
    """Regular expressions whose matches are removed first."""

    def plain(self, text: str) -> str:
        """Return a text without what does not count."""
        for pattern in self.regexes_to_ignore:
            text = re.sub(pattern, "", text)
        text = text.lower() if self.ignore_case else text
        ignored = string.punctuation * self.ignore_punctuation + string.digits * self.ignore_numbers
        return text.translate(str.maketrans("", "", ignored))


class Filter(Config):
    """A named way to read the answer from a response."""

    name: str
    """Name of the score."""
    steps: tuple[Step, ...] = ()
    match: ExactMatch = ExactMatch()

    def answer(self, response: str) -> str | None:
        """Return the answer in a response; None where a pattern matches nothing."""
        text = response
        for step in self.steps:
            text = step.apply(text)
        lost = [step.fallback for step in self.steps if step.function == "regex"]
        return None if text in lost else text

    def is_right(self, answer: str | None, golds: list[str]) -> bool:
        """Return whether an answer equals any gold one."""
        if answer is None:
            return False
        return self.match.plain(answer) in {self.match.plain(gold) for gold in golds}


def read_filters(given: object, where: str) -> list[Filter]:
    """Return the filters of an lm-eval task; without any, the response itself is the answer."""
    if not given:
        return [Filter(name="none")]
    try:
        tables: Any = given
        filters = []
        for table in tables:
            steps = [{_NAMES.get(key, key): each[key] for key in each} for each in table["filter"]]
            filters.append(Filter(name=table["name"], steps=tuple(map(Step.model_validate, steps))))
        return filters
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{first['loc'][0]} = {first['input']!r:.60}: {first['msg']}"
    except (TypeError, KeyError, AttributeError):
        reason = "write a list of tables with `name` and `filter`"
    raise RecipeError(f"{where}: filter_list: {reason}")
