"""Figures of a Humpback run: what the data is like, and what every student scored."""

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from spyhop.evaluate import compare, outcomes
from spyhop.schema import Config, Pair
from spyhop.statistics import Comparison, Interval, Scaling, scaling, seed_interval, wilson
from spyhop.store import Artifact, Artifacts
from spyhop.text.diversity import Diversity, diversity

TableName = Literal["rounds", "quality", "sources", "messages", "scaling"]
Measure = Literal["accuracy", "held_out", "win_rate"]


class StudentRun(Config):
    """Table and line of a student."""

    table: TableName
    kind: str
    """Line of the table: a round, a grade of pairs, a data set, ..."""
    student: str = ""
    """Size of the student, where there are several."""
    num_rows: int | None = None
    """Rows it was to be trained on, where that is what is varied."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Lengths:
    """Characters: mean and standard deviation."""

    mean: float
    sd: float

    def __str__(self) -> str:
        return "" if math.isnan(self.mean) else f"{self.mean:,.0f} ± {self.sd:,.0f}"


@dataclass(frozen=True, slots=True)
class PairSet:
    """A set of pairs: how many, how long, and what they ask for."""

    name: str
    instructions: Lengths
    responses: Lengths
    num_pairs: int
    asked: Diversity

    def plain(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {
            "name": self.name,
            "pairs": self.num_pairs,
            "instruction_chars": [self.instructions.mean, self.instructions.sd],
            "response_chars": [self.responses.mean, self.responses.sd],
            "verb_noun_reader": self.asked.reader,
            "verb_noun_read": self.asked.num_read,
            "verb_noun_distinct": len(self.asked.pairs),
            "verb_noun_entropy_bits": self.asked.entropy_bits,
        }


@dataclass(frozen=True, slots=True)
class StudentScores:
    """One student with its scores."""

    run: StudentRun
    scores: dict[Measure, Artifact]
    num_rows: int | None
    """Rows it was trained on, where that is what is varied; fewer than the run's if there were."""

    def level(self, measure: Measure) -> Interval:
        """Return the mean over items with a 95 % interval over items."""
        values = list(outcomes([self.scores[measure]]).values())
        if set(values) <= {0.0, 1.0}:
            return wilson(int(sum(values)), len(values))
        return seed_interval(values)

    def against(self, other: "StudentScores", measure: Measure) -> Comparison:
        """Return this one minus the other, on the same items."""
        return compare([other.scores[measure]], [self.scores[measure]])[0]


def pair_set(name: str, pairs: Iterable[Pair]) -> PairSet:
    """Read a set of pairs once."""
    asked, answered = array("q"), array("q")

    def instructions() -> Iterator[str]:
        for row in pairs:
            asked.append(len(row.instruction))
            answered.append(len(row.response))
            yield row.instruction

    found = diversity(instructions())
    return PairSet(name, _lengths(asked), _lengths(answered), len(asked), found)


def _lengths(values: "array[int]") -> Lengths:
    if len(values) < 2:
        return Lengths(float(values[0]) if values else math.nan, 0.0)
    return Lengths(float(np.mean(values)), float(np.std(values, ddof=1)))


def of_score(rated: Artifact, least: float) -> Iterator[Pair]:
    """Yield the pairs of at least that score; those whose score is missing are none of them."""
    for row in rated.rows(Pair):
        if row.rating is not None and (row.rating.score or 0) >= least:
            yield row


def seen_by(
    runs: Mapping[str, StudentRun],
    taken: Mapping[Measure, Artifacts],
    graded: Artifacts = MappingProxyType({}),
) -> dict[str, StudentScores]:
    """Return the students with their scores, by name; `graded` is what some were trained on."""
    found = {}
    for name, run in runs.items():
        scores = {measure: each[name] for measure, each in taken.items() if name in each}
        num = graded[name].num_rows if name in graded else run.num_rows
        found[name] = StudentScores(run, scores, num)
    return found


def fits(students: Sequence[StudentScores], measure: Measure) -> dict[str, Scaling | None]:
    """Return each data set's scaling coefficient; None without enough points or scores."""
    found: dict[str, Scaling | None] = {}
    for kind, (sizes, values) in lines_of(students, measure).items():
        has_line = len(sizes) > 2 and len(set(sizes)) > 1 and len(set(values)) > 1
        found[kind] = scaling(sizes, values) if has_line else None
    return found


def lines_of(
    students: Sequence[StudentScores], measure: Measure
) -> dict[str, tuple[list[int], list[float]]]:
    """Return (sizes, values) of each data set; shares are in percent."""
    unit = 1 if measure == "held_out" else 100
    found: dict[str, tuple[list[int], list[float]]] = {}
    for each in students:
        sizes, values = found.setdefault(each.run.kind, ([], []))
        sizes.append(each.run.num_rows or 0)
        values.append(unit * each.level(measure).value)
    return found
