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
Kinds = Counter[tuple[str, str | int]]
"""By kind of document: its `COUNTS`, and the rated pairs of each rounded score."""


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
        right = {name: self.kinds[CORRECT, name] for name in COUNTS}
        every = {name: sum(self.kinds[kind, name] for kind in names_of(self.kinds))
                 for name in COUNTS}  # fmt: skip
        return {
            "precision": right["kept"] / max(1, every["kept"]),
            "recall": right["kept"] / max(1, right["documents"]),
            "base_rate": right["written"] / max(1, every["written"]),
        }

    def plain(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        kinds = {
            name: {**{count: self.kinds[name, count] for count in COUNTS},
                   "scores": {str(score): self.kinds[name, score] for score in SCORES}}
            for name in names_of(self.kinds)
        }  # fmt: skip
        return {**self.where.model_dump(), **self.shares(), "kinds": kinds}


def read_curated(
    where: CuratedSet, documents: Artifact, rated: Artifact, kept: Artifact
) -> Curated:
    """Return what became of the documents of one seed in one round of rating."""
    found = {row.id: row for row in documents.rows(Segment)}
    kinds: Kinds = Counter({(CORRECT, "documents"): 0})
    kinds.update((kind_of(row), "documents") for row in found.values())
    chosen = {row.id for row in kept.rows(Pair)}
    samples: dict[tuple[str, bool], Pair] = {}
    for pair in rated.rows(Pair):
        document = found[pair.segment_id]
        name, is_kept = kind_of(document), pair.id in chosen
        kinds[name, "written"] += 1
        kinds[name, "recovered"] += is_recovered(pair.instruction, document)
        kinds[name, "kept"] += is_kept
        if pair.rating is not None and pair.rating.score is not None:
            kinds[name, rounded(pair.rating.score)] += 1
        samples.setdefault((name, is_kept), pair)
    order = sorted(samples, key=lambda each: (each[0], not each[1]))
    return Curated(where, kinds, [(*key, samples[key]) for key in order])


def names_of(kinds: Kinds) -> list[str]:
    """Return the kinds of documents, the correct ones first."""
    return list(dict.fromkeys(kind for kind, _ in kinds))


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


def curation_sections(name: str, curated: Sequence[Curated]) -> list[ReportSection]:
    """Return what curation found in a setting: precision and recall, the funnel, documents."""
    rounds = rounds_of(curated)
    found, funnel = _found_section(name, rounds), _funnel_section(name, rounds)
    return [found, funnel, _documents_section(name, curated[0])]


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
    kinds = sum((each.kinds for each in rounds[min(rounds)]), Counter())
    values = [
        {"line": kind, "rating": str(score), "documents": kinds[kind, score]}
        for kind in names_of(kinds)
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
    by_round = {n: sum((each.kinds for each in some), Counter()) for n, some in rounds.items()}
    first, rows = by_round[min(by_round)], []
    for kind in names_of(first):
        documents, written, recovered, _ = (first[kind, name] for name in COUNTS)
        kept = {f"kept in round {n}": kinds[kind, "kept"] for n, kinds in by_round.items()}
        shares = {f"{head}, %": num / max(1, documents) for head, num in kept.items()}
        rows.append({
            "kind": kind, "documents": documents, "with an instruction": written,
            "recovered %": recovered / max(1, written) if kind in SOLUTIONS else None,
            **kept, **shares,
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
