"""Figures of curation where the truth is known: what was written, rated and kept, by kind."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from spyhop.curate.rate import rounded
from spyhop.schema import Config, Pair, Segment
from spyhop.statistics import Interval, seed_interval
from spyhop.store import Artifact
from spyhop.world import is_recovered, kind_of

CORRECT = "correct"
SCORES = (1, 2, 3, 4, 5)


class CuratedSet(Config):
    """Setting, seed and round of rated pairs."""

    setting: str
    seed: int
    round: int


@dataclass(slots=True)
class Kind:
    """How documents of one kind fared."""

    documents: int = 0
    written: int = 0
    """Got an instruction that passed the filters."""
    recovered: int = 0
    """Got one that they answer step for step."""
    kept: int = 0
    scores: Counter[int] = field(default_factory=Counter)
    """Of the rated pairs, rounded."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A document with the instruction written for it."""

    kind: str
    is_kept: bool
    pair: Pair


@dataclass(frozen=True, slots=True)
class Curated:
    """One rating of one set of documents."""

    where: CuratedSet
    kinds: dict[str, Kind]
    samples: list[Sample]

    @property
    def precision(self) -> float:
        """Share of correct documents among those that are kept; 0 where none is."""
        return self.kinds[CORRECT].kept / max(1, sum(k.kept for k in self.kinds.values()))

    @property
    def recall(self) -> float:
        """Share of the correct documents that is kept."""
        return self.kinds[CORRECT].kept / max(1, self.kinds[CORRECT].documents)

    @property
    def base_rate(self) -> float:
        """Share of correct documents among all that got an instruction."""
        return self.kinds[CORRECT].written / max(1, sum(k.written for k in self.kinds.values()))


def read_curated(
    where: CuratedSet, documents: Artifact, rated: Artifact, kept: Artifact
) -> Curated:
    """Return what became of the documents of one seed in one round of rating.

    Samples: of each kind the first pair that was kept and the first that was not.
    """
    found = {row.id: row for row in documents.rows(Segment)}
    kinds: dict[str, Kind] = {CORRECT: Kind()}
    for row in found.values():
        kinds.setdefault(kind_of(row), Kind()).documents += 1
    chosen = {row.id for row in kept.rows(Pair)}
    samples: dict[tuple[str, bool], Sample] = {}
    for pair in rated.rows(Pair):
        document = found[pair.segment_id]
        name, is_kept = kind_of(document), pair.id in chosen
        kind = kinds[name]
        kind.written += 1
        kind.recovered += is_recovered(pair.instruction, document)
        kind.kept += is_kept
        if pair.rating is not None and pair.rating.score is not None:
            kind.scores[rounded(pair.rating.score)] += 1
        samples.setdefault((name, is_kept), Sample(name, is_kept, pair))
    return Curated(where, kinds, [samples[key] for key in sorted(samples, key=_kept_first)])


def _kept_first(key: tuple[str, bool]) -> tuple[str, bool]:
    kind, is_kept = key
    return kind, not is_kept


def over_runs(curated: Iterable[Curated]) -> dict[str, Kind]:
    """Return the kinds with their numbers summed over seeds."""
    kinds: dict[str, Kind] = {}
    for each in curated:
        for name, kind in each.kinds.items():
            total = kinds.setdefault(name, Kind())
            total.documents += kind.documents
            total.written += kind.written
            total.recovered += kind.recovered
            total.kept += kind.kept
            total.scores.update(kind.scores)
    return kinds


def over_seeds(values: Sequence[float]) -> Interval:
    """Return the mean of one share per seed with its t-interval; a point with a single seed."""
    if len(values) < 2:
        return Interval(value=values[0], low=values[0], high=values[0], level=0.95)
    found = seed_interval(values)
    return Interval(
        value=found.value, low=max(0.0, found.low), high=min(1.0, found.high), level=found.level
    )
