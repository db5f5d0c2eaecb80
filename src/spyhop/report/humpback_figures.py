"""Figures of a Humpback run: what the data is like, and what every student scored."""

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from spyhop.evaluate import compare, outcomes
from spyhop.schema import Config, Finding, Pair
from spyhop.statistics import Comparison, Interval, Scaling, scaling, seed_interval, wilson
from spyhop.store import Artifact
from spyhop.text.diversity import Diversity, diversity

TableName = Literal["rounds", "quality", "sources", "messages", "scaling"]
Measure = Literal["accuracy", "held_out"]


class StudentRun(Config):
    """Where a student stands in the run's tables."""

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
        """Return them as the paper's Table 2 has them."""
        return "" if math.isnan(self.mean) else f"{self.mean:,.0f} ± {self.sd:,.0f}"


@dataclass(slots=True)
class PairSet:
    """A set of pairs: how many, how long, and what they ask for."""

    name: str
    instructions: Lengths
    responses: Lengths
    num_pairs: int
    asked: Diversity


@dataclass(slots=True)
class Seen:
    """One student with its scores."""

    run: StudentRun
    scores: dict[Measure, Artifact] = field(default_factory=dict)
    num_found: int | None = None
    """Rows that there were, where they were fewer than the run's."""

    @property
    def num_rows(self) -> int | None:
        """Rows it was trained on, where that is what is varied."""
        return self.run.num_rows if self.num_found is None else self.num_found

    def level(self, measure: Measure) -> Interval:
        """Return the mean over items with a 95 % interval over items."""
        values = list(outcomes([self.scores[measure]]).values())
        if measure == "accuracy":
            return wilson(int(sum(values)), len(values))
        return seed_interval(values)

    def against(self, other: "Seen", measure: Measure) -> Comparison:
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


def of_score(rated: Artifact, least: float) -> Iterator[Pair]:
    """Yield the pairs of at least that score; those whose score is missing are none of them."""
    for row in rated.rows(Pair):
        if row.rating is not None and row.rating.score is not None and row.rating.score >= least:
            yield row


def findings(gates: Sequence[Artifact]) -> list[list[Finding]]:
    """Return the findings of each round's gate."""
    return [list(gate.rows(Finding)) for gate in gates]


def seen_by(
    runs: Sequence[StudentRun],
    accuracy: Sequence[Artifact],
    held_out: Sequence[Artifact],
    graded: Sequence[Artifact] = (),
) -> list[Seen]:
    """Return the students with their scores; an empty list means that a measure was not taken.

    `graded` is what those of the table `quality` read.
    """
    found = [Seen(run) for run in runs]
    quality = [each for each in found if each.run.table == "quality"]
    for each, pairs in zip(quality, graded, strict=bool(graded)):
        if pairs.num_rows != each.run.num_rows:
            each.num_found = pairs.num_rows
    for measure, scores in (("accuracy", accuracy), ("held_out", held_out)):
        for each, artifact in zip(found, scores, strict=bool(scores)):
            each.scores["accuracy" if measure == "accuracy" else "held_out"] = artifact
    return found


def fits(students: Sequence[Seen], measure: Measure) -> dict[str, Scaling | None]:
    """Return the scaling coefficient of each data set; None where there are too few points."""
    found: dict[str, Scaling | None] = {}
    for kind in dict.fromkeys(each.run.kind for each in students):
        some = [each for each in students if each.run.kind == kind]
        sizes = [each.run.num_rows or 0 for each in some]
        unit = 100 if measure == "accuracy" else 1
        values = [unit * each.level(measure).value for each in some]
        has_line = len(some) > 2 and len(set(sizes)) > 1
        found[kind] = scaling(sizes, values) if has_line else None
    return found


def _lengths(values: "array[int]") -> Lengths:
    if len(values) < 2:
        return Lengths(float(values[0]) if values else math.nan, 0.0)
    found = np.frombuffer(values, dtype=np.int64)
    return Lengths(float(found.mean()), float(found.std(ddof=1)))
