"""The report of a Humpback run: rounds, ratings, data, and the paper's tables from one's own run.

Source: Humpback (arXiv:2308.06259); table and figure numbers are those of version 1 unless said.
"""

import json
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from spyhop.curate import A4, A5
from spyhop.curate.rate import rounded
from spyhop.evaluate import chance_sentence, seal_state, task_scores
from spyhop.report.html import ReportSection, prose, report_stage, section, short, write_page
from spyhop.report.page import finding_row, pair_turns
from spyhop.report.sections import add_dropped, audit_section, data_section, training_section
from spyhop.report.students import (
    Seen,
    StudentRun,
    StudentScores,
    costs_section,
    paired_section,
    quality_section,
    results_of,
    scaling_section,
    seen_by,
)
from spyhop.schema import Config, Finding, Pair, Score
from spyhop.stage import Context
from spyhop.statistics import cluster_interval
from spyhop.store import Artifact, Artifacts
from spyhop.text.diversity import Diversity, diversity

NUM_EXAMPLES = 2
"""Pairs shown of each score."""
SHOWN_CHARS = 400
NUM_TOP = 12
SCORES = (1, 2, 3, 4, 5)
PAPER = {
    "seeds": ("3,200", "148 ± 322", "1,072 ± 818"),
    "A5": ("41,821", "115 ± 175", "1,663 ± 616"),
    "A4": ("195,043", "206 ± 298", "1,985 ± 649"),
    "all augmented": ("502,133", "352 ± 134", "1,722 ± 653"),
}
"""Rows, characters of instructions and of responses (Table 2)."""
THEIRS = ("paper: pairs", "paper: instruction", "paper: response")
PAPER_READ = {"seeds": "8", "all augmented": "13"}
"""Percent of instructions with a root verb and a direct object, found by a parser."""
BEST_STUDENT = {"sources": "Curated pairs are those of", "messages": "The tagged student is"}
SECTIONS: dict[str, Callable[[Seen], ReportSection]] = {
    "quality": quality_section,
    "sources": partial(paired_section, "sources"),
    "messages": partial(paired_section, "tags"),
    "scaling": scaling_section,
}
"""By the table of the students."""
Lengths = tuple[float, float]
"""Characters: mean and standard deviation."""


@dataclass(frozen=True, slots=True)
class PairSet:
    """A set of pairs: how many, how long, and what they ask for."""

    name: str
    num_pairs: int
    instructions: Lengths
    responses: Lengths
    asked: Diversity

    def plain(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "name": self.name, "pairs": self.num_pairs, "instruction_chars": self.instructions,
            "response_chars": self.responses, "verb_noun_reader": self.asked.reader,
            "verb_noun_read": self.asked.num_read, "verb_noun_distinct": len(self.asked.pairs),
            "verb_noun_entropy_bits": self.asked.entropy_bits,
        }  # fmt: skip


def pair_set(name: str, pairs: Iterable[Pair]) -> PairSet:
    """Read a set of pairs once."""
    asked, answered = array("q"), array("q")

    def instructions() -> Iterator[str]:
        for row in pairs:
            asked.append(len(row.instruction))
            answered.append(len(row.response))
            yield row.instruction

    found = diversity(instructions())
    return PairSet(name, len(asked), _mean_and_sd(asked), _mean_and_sd(answered), found)


def _mean_and_sd(values: "array[int]") -> Lengths:
    mean = float(np.mean(values)) if values else math.nan
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def of_score(rated: Artifact, least: float) -> Iterator[Pair]:
    """Yield the pairs of at least that score; those whose score is missing are none of them."""
    for row in rated.rows(Pair):
        if row.rating is not None and (row.rating.score or 0) >= least:
            yield row


class HumpbackPageConfig(Config):
    """What the inputs are."""

    title: str
    runs: dict[str, StudentRun]
    """Place of each student in the tables, by its name."""
    asked_under: str
    """System message at inference."""


@report_stage(version=10)
def humpback_page(
    ctx: Context,
    config: HumpbackPageConfig,
    *,
    seeds: Artifact,
    augmented: Artifacts,
    rated: Artifacts,
    gates: Artifacts,
    kept: Artifacts,
    promotions: Artifacts,
    students: Artifacts,
    accuracy: Artifacts,
    held_out: Artifacts,
    graded: Artifacts,
    steps: Artifacts,
    audits: Artifacts,
    trips: Artifacts,
    sealed: Artifact | None = None,
) -> None:
    """Write `report.html` and `results.json`: every table of the paper that the run can fill.

    Ratings, gates, kept pairs and promotions have the name of the student that they lead to.
    """
    runs = {name: config.runs[name] for name in students}
    seen = seen_by(runs, {"accuracy": accuracy, "held_out": held_out}, graded)
    chosen: dict[str, dict[str, Any]] = {
        name: json.loads(each.file("promotion.json").read_text())
        for name, each in promotions.items()
    }
    *_, last = kept
    sets = [
        pair_set("seeds", seeds.rows(Pair)),
        pair_set("kept", kept[last].rows(Pair)),
        pair_set("A5", of_score(rated[last], A5)),
        pair_set("A4", of_score(rated[last], A4)),
        *(pair_set(name, each.rows(Pair)) for name, each in augmented.items()),
    ]
    found = {name: list(each.rows(Finding)) for name, each in gates.items()}
    rounds = {name: each for name, each in seen.items() if each.run.table == "rounds"}
    promoted = [
        each.run.kind
        for name, each in rounds.items()
        if name not in chosen or chosen[name]["chosen"] == "after"
    ]
    first = section("rounds", message=config.asked_under or "no system message")
    first.rows(_round_rows(rounds, students, rated, kept, chosen))
    for each in rounds.values():
        if "accuracy" in each.scores:
            first.text(chance_sentence(task_scores(each.run.kind, each.scores["accuracy"])))
    sections = [
        first,
        _gate_section(found, rated),
        _assumptions_section(rated, trips),
        _data_section(sets),
        _diversity_section(sets),
    ]
    for name, make in SECTIONS.items():
        if some := [each for each in seen.values() if each.run.table == name]:
            sections.append(make(some))
            if name in BEST_STUDENT:
                sections[-1].text(f"{BEST_STUDENT[name]} the best student, {promoted[-1]}.")
    if accuracy:
        first.text(f"Tests: {seal_state(accuracy, sealed)}.")
        sections.append(audit_section(audits))
    sections += costs_section(ctx.root, seen, students)
    pairs = {"seeds": seeds, **augmented}
    left = ({"step": name, "segments left": each.num_rows} for name, each in steps.items())
    sections += [
        _pairs_section(rated[last]),
        add_dropped(section("segments").rows(left), steps),
        training_section({each.run.kind: [students[name]] for name, each in rounds.items()}),
        data_section(pairs=pairs, rated=rated, kept=kept),
    ]
    lead = [f"{rounds[name].run.kind}: {each['reason']}." for name, each in chosen.items()]
    lead.append(f"The best student is {promoted[-1]}.")
    results = {
        "rounds": list(chosen.values()),
        "gates": [[each.model_dump() for each in some] for some in found.values()],
        "data": [each.plain() for each in sets],
        "students": results_of(list(seen.values())),
    }
    inputs = (pairs, rated, kept, students)
    write_page(ctx.out, config.title, "\n".join(lead), sections, *inputs, results=results)


def _round_rows(
    seen: Mapping[str, StudentScores],
    students: Artifacts,
    rated: Artifacts,
    kept: Artifacts,
    chosen: Mapping[str, dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return a row for each student: who rated its pairs, its levels, whether it was promoted."""
    rows: list[dict[str, Any]] = []
    before = ""
    for name, each in seen.items():
        row: dict[str, Any] = dict.fromkeys(("student", "rated by", "pairs rated", "kept"))
        row["student"] = each.run.kind
        if name in rated:
            judge = rated[name].record.inputs
            names = [one.name for model in ("judge", "model") for one in judge.get(model, [])]
            row |= {"rated by": ", ".join(names), "pairs rated": rated[name].num_rows}
            row["kept"] = kept[name].num_rows
        row |= each.levels()
        row["verdict"] = chosen[name]["reason"] if name in chosen else "seeds alone"
        if before and students[name].key == students[before].key:
            row["verdict"] = f"the same as {seen[before].run.kind}, which was not promoted"
        before = name
        rows.append(row)
    return rows


def _gate_section(found: Mapping[str, list[Finding]], rated: Artifacts) -> ReportSection:
    rows = []
    for name, each in rated.items():
        counts, num = each.record.counts, max(1, each.num_rows)
        missing = sum(n for count, n in counts.items() if count.startswith("missing/"))
        shares = {f"score {score} %": counts.get(f"score/{score}", 0) / num for score in SCORES}
        round_ = {"round": _round(name), "pairs": each.num_rows}
        rows.append({**round_, **shares, "missing %": missing / num})
    return section("trust").rows(rows).rows(
        {"round": _round(name), **finding_row(each)}
        for name, some in found.items()
        for each in some
    )  # fmt: skip


def _assumptions_section(rated: Artifacts, trips: Artifacts) -> ReportSection:
    groups: dict[str, tuple[float | None, list[tuple[bool, str]]]] = {}
    for name, artifact in rated.items():
        found = [(row.rating.score >= A4, row.origin) for row in artifact.rows(Pair)
                 if row.rating is not None and row.rating.score is not None]  # fmt: skip
        groups[f"texts rated 4 or more, {_round(name)}"] = None, found
    for writer, trip in trips.items():
        picks = [row for row in trip.rows(Score) if row.error is None]
        chance = sum(row.chance for row in picks) / max(1, len(picks))
        for by, metric in (("gain", "acc_mutual_info"), ("sum", "acc")):
            name = f"own text picked by the {by} of log-probabilities, {writer}"
            groups[name] = chance, [(row.metrics[metric] > 0, row.passage) for row in picks]
    rows = []
    for name, (guess, values) in groups.items():
        shares, pages = [float(is_so) for is_so, _ in values], [page for _, page in values]
        if len(set(pages)) > 1:
            share = cluster_interval(shares, pages).of_scores()
            row = {"": name, "texts": len(values), "%, 95 % interval over pages": share}
            rows.append({**row, "chance %": guess})
    return section("assumptions").rows(rows)


def _round(student: str) -> str:
    return f"for {student.upper()}"


def _data_section(sets: Sequence[PairSet]) -> ReportSection:
    shown = "{:,.0f} ± {:,.0f}".format
    return section("lengths").rows(
        {"": each.name, "pairs": each.num_pairs,
         "instruction": shown(*each.instructions) if each.num_pairs else "",
         "response": shown(*each.responses) if each.num_pairs else "",
         **dict(zip(THEIRS, PAPER.get(each.name, [""] * 3), strict=True))}
        for each in sets
    )  # fmt: skip


def _diversity_section(sets: Sequence[PairSet]) -> ReportSection:
    readers = ", ".join(sorted({each.asked.reader for each in sets} - {""}))
    made = section("diversity", readers=readers)
    if not readers:
        return made.text(prose("no_parser"))
    least = min((num for each in sets if (num := each.asked.num_read)), default=0)
    rows, frequent = [], []
    for each in sets:
        found = each.asked
        distinct = f"{found.distinct(least):.1f}" if found.num_read else None
        rows.append({
            "": each.name, "instructions": each.num_pairs,
            "read %": found.num_read / max(1, each.num_pairs),
            "paper, parsed %": PAPER_READ.get(each.name), "distinct pairs": len(found.pairs),
            f"distinct in {least}": distinct, "entropy, bits": f"{found.entropy_bits:.2f}",
        })  # fmt: skip
        ordered = sorted(found.pairs.items(), key=lambda one: (-one[1], one[0]))[:NUM_TOP]
        words = ", ".join(f"{verb} {noun} {n}" for (verb, noun), n in ordered)
        frequent += [{"": each.name, "most frequent": words}] * bool(words)
    made.rows(rows)
    if not frequent:
        made.text("In some or all of the sets no instruction could be read.")
    return made.rows(frequent)


def _pairs_section(rated: Artifact) -> ReportSection:
    made = section("rated")
    found: dict[int, list[Pair]] = {score: [] for score in SCORES}
    for row in rated.rows(Pair):
        if row.rating is not None and row.rating.score is not None:
            of_same = found[rounded(row.rating.score)]
            if len(of_same) < NUM_EXAMPLES:
                of_same.append(row)
            elif all(len(some) == NUM_EXAMPLES for some in found.values()):
                break
    for score in reversed(SCORES):
        for row in found[score]:
            reason = row.rating and row.rating.reason
            more = f"; {short(reason, SHOWN_CHARS)}" if reason else ""
            note = f"score {score}, pair {row.id}, {row.origin}{more}"
            made.conversation(pair_turns(row, SHOWN_CHARS), note)
    return made
