"""What curation found where the truth is known: documents written about, rated, kept, by kind."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spyhop.curate.rate import rounded
from spyhop.report.charts import axis, chart, colour, layer, names
from spyhop.report.html import ReportSection, Turn, percent, percent_interval, section
from spyhop.schema import Config, Pair, Segment
from spyhop.statistics import Interval, seed_interval
from spyhop.store import Artifact
from spyhop.world import SOLUTIONS, is_recovered, kind_of

CORRECT = "correct"
SCORES = (1, 2, 3, 4, 5)
COUNTS = ("documents", "written", "recovered", "kept")
"""Documents; those with an instruction that passed the filters; with one that they answer step for
step; with one that was kept."""
Kinds = dict[str, Counter[str | int]]
"""By kind of document, its `COUNTS`, and the rated pairs of each rounded score."""


class CuratedSet(Config):
    """Setting, seed and round of rated pairs."""

    setting: str
    seed: int
    round: int


@dataclass(frozen=True, slots=True)
class Curated:
    """One rating of one set of documents."""

    where: CuratedSet
    kinds: Kinds
    samples: list[tuple[str, bool, Pair]]
    """Of each kind the first pair that was kept, and the first that was not."""

    def shares(self) -> dict[str, float]:
        """Return precision and recall of the kept documents, and the share of correct ones in all.

        All are the documents that got an instruction. A share of nothing is 0.
        """
        right = self.kinds[CORRECT]
        every = sum(self.kinds.values(), Counter())
        return {
            "precision": right["kept"] / max(1, every["kept"]),
            "recall": right["kept"] / max(1, right["documents"]),
            "base_rate": right["written"] / max(1, every["written"]),
        }

    def plain(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        kinds = {
            name: {**{count: counts[count] for count in COUNTS},
                   "scores": {str(score): counts[score] for score in SCORES}}
            for name, counts in self.kinds.items()
        }  # fmt: skip
        return {**self.where.model_dump(), **self.shares(), "kinds": kinds}


def read_curated(
    where: CuratedSet, documents: Artifact, rated: Artifact, kept: Artifact
) -> Curated:
    """Return what became of the documents of one seed in one round of rating."""
    found = {row.id: row for row in documents.rows(Segment)}
    kinds: Kinds = {CORRECT: Counter()}
    for row in found.values():
        kinds.setdefault(kind_of(row), Counter())["documents"] += 1
    chosen = {row.id for row in kept.rows(Pair)}
    samples: dict[tuple[str, bool], Pair] = {}
    for pair in rated.rows(Pair):
        document = found[pair.segment_id]
        name, is_kept = kind_of(document), pair.id in chosen
        counts = kinds[name]
        counts["written"] += 1
        counts["recovered"] += is_recovered(pair.instruction, document)
        counts["kept"] += is_kept
        if pair.rating is not None and pair.rating.score is not None:
            counts[rounded(pair.rating.score)] += 1
        samples.setdefault((name, is_kept), pair)
    order = sorted(samples, key=lambda each: (each[0], not each[1]))
    return Curated(where, kinds, [(*key, samples[key]) for key in order])


def over_runs(curated: Sequence[Curated]) -> Kinds:
    """Return the kinds with their numbers summed over seeds."""
    kinds: Kinds = defaultdict(Counter)
    for each in curated:
        for name, counts in each.kinds.items():
            kinds[name].update(counts)
    return kinds


def over_seeds(values: Sequence[float]) -> Interval:
    """Return the mean of one share per seed with its t-interval; a point with a single seed."""
    if len(values) < 2:
        return Interval(value=values[0], low=values[0], high=values[0])
    found = seed_interval(values)
    return Interval(value=found.value, low=max(0.0, found.low), high=min(1.0, found.high))


def rounds_of(curated: Sequence[Curated]) -> dict[int, list[Curated]]:
    """Return the seeds' ratings by round."""
    rounds: dict[int, list[Curated]] = defaultdict(list)
    for each in curated:
        rounds[each.where.round].append(each)
    return rounds


def curation_sentences(curated: Sequence[Curated]) -> list[str]:
    """Say how many of the kept documents are correct, round by round."""
    sentences = []
    for number, some in rounds_of(curated).items():
        kept, every = (over_seeds([each.shares()[name] for each in some])
                       for name in ("precision", "base_rate"))  # fmt: skip
        limits = percent_interval(kept.low, kept.high)
        sentences.append(
            f"Of the documents kept in round {number}, {percent(kept.value)} % are correct "
            f"[{limits}]; of all, {percent(every.value)} %."
        )
    return sentences


def curation_sections(name: str, curated: Sequence[Curated]) -> dict[str, ReportSection]:
    """Return what curation found in a setting: precision and recall, the funnel, documents."""
    rounds = rounds_of(curated)
    return {
        "found": _found_section(name, rounds),
        "funnel": _funnel_section(name, rounds),
        "documents": _documents_section(name, curated[0]),
    }


def _found_section(name: str, rounds: dict[int, list[Curated]]) -> ReportSection:
    measures = {"precision": "precision", "recall": "recall", "base_rate": "correct among all"}
    rows = (
        {"round": number, "": title,
         "%, 95 % over seeds": over_seeds(values) if len(values) > 1 else values[0],
         "seed by seed": ", ".join(map(percent, values))}
        for number, some in rounds.items()
        for measure, title in measures.items()
        for values in [[each.shares()[measure] for each in some]]
    )  # fmt: skip
    values = [
        {"line": kind, "rating": str(score), "documents": counts[score]}
        for kind, counts in over_runs(rounds[min(rounds)]).items()
        for score in SCORES
    ]
    place = {
        "x": axis("documents", "documents"), "color": colour(), "order": names("line"),
        "y": names("rating", title="rating", sort=[str(score) for score in reversed(SCORES)]),
    }  # fmt: skip
    return section("found", name=name).rows(rows).chart(
        chart(values, layer("bar", place), height=150),
        "Round 1: ratings by kind of document, all seeds. 5 is the likeliest fifth.",
    )  # fmt: skip


def _funnel_section(name: str, rounds: dict[int, list[Curated]]) -> ReportSection:
    by_round = {number: over_runs(some) for number, some in rounds.items()}
    rows = []
    for kind, counts in by_round[min(by_round)].items():
        recovered = counts["recovered"] / max(1, counts["written"])
        kept = {f"kept in round {n}": kinds[kind]["kept"] for n, kinds in by_round.items()}
        shares = {f"{head}, %": num / max(1, counts["documents"]) for head, num in kept.items()}
        rows.append({
            "kind": kind, "documents": counts["documents"],
            "with an instruction": counts["written"],
            "recovered %": recovered if kind in SOLUTIONS else None, **kept, **shares,
        })  # fmt: skip
    return section("funnel", name=name).rows(rows)


def _documents_section(name: str, curated: Curated) -> ReportSection:
    where = curated.where
    found = section("documents", name=name, seed=where.seed, round=where.round)
    for kind, is_kept, pair in curated.samples:
        rating = pair.rating
        score = "no rating" if rating is None or rating.score is None else f"{rating.score:g}"
        value = "" if rating is None or rating.value is None else f" ({rating.value:.3f} a token)"
        turns = [Turn("instruction written", pair.instruction), Turn("document", pair.response)]
        kept = "kept" if is_kept else "not kept"
        found.conversation(turns, f"{kind}; rating {score}{value}; {kept}")
    return found
