"""Strata: a task's rows in classes of length, complexity, topic or difficulty, drawn from evenly.

The measures, documented here once:

* `length`: words of the query, as spaces part them.
* `complexity`: facts to keep in mind at once: numbers, and ends of sentences and clauses (`.`, `!`,
  `?`, `;`, line breaks) in the query.
* `topic`: the first topic whose pattern is found in the query, else the last class.
* `difficulty`: a figure for each row made elsewhere: 1 where a teaching assistant's verified answer
  was wrong, or a model's loss on the target. Rows without a figure make a class of their own.
"""

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from spyhop.collect.table import quoted
from spyhop.schema import Config, Row

FACTS = r"\d+(?:[.,]\d+)*|[.!?;\n]"


class Difficulty(Row):
    """How hard a query is; `id` is the query's."""

    value: float


class Stratum(Config):
    """A property that divides the rows of a task into strata."""

    by: Literal["length", "complexity", "topic", "difficulty"]
    """Property of a row that defines its stratum."""
    edges: tuple[float, ...] = ()
    """Where a class ends and the next begins: (20, 100) makes three classes of the measure."""
    topics: tuple[str, ...] = Field(())
    """Regular expressions (RE2), one for each topic; the case of letters does not matter."""

    @model_validator(mode="after")
    def _has_classes(self) -> "Stratum":
        given, other = ("topics", "edges") if self.by == "topic" else ("edges", "topics")
        if not getattr(self, given) or getattr(self, other):
            raise ValueError(f"by = {self.by!r} needs {given}, and no {other}")
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError(f"edges = {list(self.edges)}: they must rise")
        for topic in self.topics:
            try:
                pc.match_substring_regex(pa.array([""]), topic)
            except pa.ArrowInvalid as error:
                reason = f"topics: {topic!r} is not a pattern of RE2 ({error!s:.80})"
                raise ValueError(reason) from None
        return self

    @property
    def num_classes(self) -> int:
        """Number of classes, those without a topic or figure included."""
        return len(self.edges or self.topics) + 1 + (self.by == "difficulty")

    def name(self, place: int) -> str:
        """Return how a class is called in the record."""
        if self.by == "topic":
            return (*self.topics, "other")[place]
        if place > len(self.edges):
            return f"{self.by} unknown"
        if place == len(self.edges):
            return f"{self.by} from {self.edges[-1]:g}"
        low = f"{self.edges[place - 1]:g} to" if place else "below"
        return f"{self.by} {low} {self.edges[place]:g}"


def class_sql(strata: Sequence[Stratum]) -> str:
    """Return SQL for the class of a row: a number below the product of the strata's classes."""
    total = "0"
    for stratum in strata:
        total = f"({total}) * {stratum.num_classes} + {_own_class(stratum)}"
    return total


def _own_class(stratum: Stratum) -> str:
    if stratum.by == "topic":
        found = (f"regexp_matches(query, {quoted(topic)}, 'is')" for topic in stratum.topics)
        cases = " ".join(f"WHEN {each} THEN {place}" for place, each in enumerate(found))
        return f"CASE {cases} ELSE {len(stratum.topics)} END"
    pattern = {"length": r"\S+", "complexity": FACTS}.get(stratum.by)
    counted = pattern and f"len(regexp_extract_all(query, {quoted(pattern)}))"
    above = (f"({counted or 'difficulty'} >= {edge!r})::BIGINT" for edge in stratum.edges)
    return f"coalesce({' + '.join(above)}, {len(stratum.edges) + 1})"


def class_names(strata: Sequence[Stratum], place: int) -> str:
    """Return the names of a cell's classes."""
    names = []
    for stratum in reversed(strata):
        place, own = divmod(place, stratum.num_classes)
        names.append(stratum.name(own))
    return ", ".join(reversed(names))
