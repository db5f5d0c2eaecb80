"""The report of a Humpback run: rounds, ratings, data, and the paper's tables from one's own run.

Source: Humpback (arXiv:2308.06259); table and figure numbers are those of version 1 unless said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from spyhop.curate import A4, A5
from spyhop.curate.rate import rounded
from spyhop.report.audit import audit_section
from spyhop.report.data_figures import dropped_table
from spyhop.report.html import (
    RESULTS,
    ReportSection,
    Table,
    percent,
    percent_interval,
    write_page,
)
from spyhop.report.humpback_figures import (
    Measure,
    PairSet,
    StudentRun,
    StudentScores,
    measures_of,
    of_score,
    pair_set,
    seen_by,
)
from spyhop.report.humpback_tables import (
    TITLES,
    level,
    results_of,
)
from spyhop.report.sections import data_section, training_section
from spyhop.report.task_figures import chance_sentence, task_results
from spyhop.schema import Config, Finding, Pair, Score
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.statistics import cluster_interval
from spyhop.store import Artifact

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
PAPER_READ = {"seeds": "8", "all augmented": "13"}
"""Percent of instructions with a root verb and a direct object, found by a parser."""


BEST_STUDENT = {"sources": "Curated pairs are those of", "messages": "The tagged student is"}


class HumpbackPageConfig(Config):
    """What the inputs are."""

    title: str
    runs: dict[str, StudentRun]
    """Place of each student in the tables, by its name."""
    asked_under: str
    """System message at inference."""


@stage(
    version=5, writes=FOLDER, shows_names=True, plan=lambda config, **inputs: Estimate(seconds=8)
)
def humpback_page(
    ctx: Context,
    config: HumpbackPageConfig,
    *,
    seeds: Artifact,
    augmented: Artifact,
    rated: Mapping[str, Artifact],
    gates: Mapping[str, Artifact],
    kept: Mapping[str, Artifact],
    promotions: Mapping[str, Artifact],
    students: Mapping[str, Artifact],
    accuracy: Mapping[str, Artifact],
    held_out: Mapping[str, Artifact],
    graded: Mapping[str, Artifact],
    steps: Mapping[str, Artifact],
    audits: Mapping[str, Artifact],
    trip: Artifact,
) -> None:
    """Write `report.html` and `results.json`: every table of the paper that the run can fill.

    Ratings, gates, kept pairs and promotions have the name of the student that they lead to.
    """
    seen = seen_by({name: config.runs[name] for name in students}, accuracy, held_out, graded)
    chosen = {name: _promotion(each) for name, each in promotions.items()}
    *_, last = kept
    sets = [
        pair_set("seeds", seeds.rows(Pair)),
        pair_set("kept", kept[last].rows(Pair)),
        pair_set("A5", of_score(rated[last], A5)),
        pair_set("A4", of_score(rated[last], A4)),
        pair_set("all augmented", augmented.rows(Pair)),
    ]
    found = {name: list(each.rows(Finding)) for name, each in gates.items()}
    measures = measures_of(accuracy, held_out)
    rounds = {name: each for name, each in seen.items() if each.run.table == "rounds"}
    sections = [
        _rounds_section(config.asked_under, rounds, measures, students, rated, kept, chosen),
        _gate_section(found, rated),
        _assumptions_section(rated, trip),
        _data_section(sets),
        _diversity_section(sets),
    ]
    for name, make in TITLES.items():
        some = [each for each in seen.values() if each.run.table == name]
        if some and name != "rounds":
            sections.append(make(some, measures))
            if name in BEST_STUDENT:
                sections[-1].text(
                    f"{BEST_STUDENT[name]} the best student, {_best(rounds, chosen)}."
                )
    if accuracy:
        sections.append(audit_section(audits))
    pairs = {"seeds": seeds, "augmented": augmented}
    sections += [
        _pairs_section(rated[last]),
        _segments_section(steps),
        training_section({each.run.kind: [students[name]] for name, each in rounds.items()}),
        data_section(pairs=pairs, rated=rated, kept=kept),
    ]
    lead = _lead(rounds, chosen)
    write_page(ctx.out, config.title, lead, sections, pairs, rated, kept, students)
    results = {
        "rounds": list(chosen.values()),
        "gates": [[each.model_dump() for each in some] for some in found.values()],
        "data": [_plain(each) for each in sets],
        "students": results_of(list(seen.values()), measures),
    }
    (ctx.out / RESULTS).write_text(json.dumps(results, indent=1))


def _promotion(artifact: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(artifact.file("promotion.json").read_text())
    return found


def _lead(rounds: Mapping[str, StudentScores], chosen: Mapping[str, dict[str, Any]]) -> str:
    lines = [f"{rounds[name].run.kind}: {each['reason']}." for name, each in chosen.items()]
    lines.append(f"The best student is {_best(rounds, chosen)}.")
    return "\n".join(lines)


def _best(rounds: Mapping[str, StudentScores], chosen: Mapping[str, dict[str, Any]]) -> str:
    """Return the name of the last student that was promoted."""
    best = [name for name in rounds if name not in chosen or chosen[name]["chosen"] == "after"]
    return rounds[best[-1]].run.kind


def _rounds_section(
    asked_under: str,
    seen: Mapping[str, StudentScores],
    measures: Sequence[Measure],
    students: Mapping[str, Artifact],
    rated: Mapping[str, Artifact],
    kept: Mapping[str, Artifact],
    chosen: Mapping[str, dict[str, Any]],
) -> ReportSection:
    section = ReportSection(
        "Rounds",
        "Each student is trained from the base on the seeds and the pairs that the best student "
        "so far rated highest. A student is promoted only if it is better on the same items.",
    )
    section.text(f"All are asked under: {asked_under or 'no system message'}")
    rows: list[list[Any]] = []
    before = ""
    for name, each in seen.items():
        row: list[Any] = [each.run.kind, "", "", ""]
        if name in rated:
            judge = rated[name].record.inputs
            names = [one.name for model in ("judge", "model") for one in judge.get(model, [])]
            row[1:] = [", ".join(names), f"{rated[name].num_rows:,}", f"{kept[name].num_rows:,}"]
        row += [level(each, measure) for measure in measures]
        row.append(chosen[name]["reason"] if name in chosen else "seeds alone")
        if before and students[name].key == students[before].key:
            row[-1] = f"the same as {seen[before].run.kind}, which was not promoted"
        before = name
        rows.append(row)
    headings = ["student", "rated by", "pairs rated", "kept", *map(_heading, measures), "verdict"]
    section.table(Table(headings, rows))
    for each in seen.values():
        if "accuracy" in each.scores:
            section.text(chance_sentence(task_results(each.run.kind, each.scores["accuracy"])))
    return section


def _heading(measure: Measure) -> str:
    return "accuracy %" if measure == "accuracy" else "held-out log-likelihood"


def _gate_section(
    found: Mapping[str, list[Finding]], rated: Mapping[str, Artifact]
) -> ReportSection:
    section = ReportSection(
        "Can the ratings be trusted?",
        "What a judge cannot say is missing, never a low score. Below the limits nothing is "
        "trained on, unless the config says otherwise.",
    )
    counted = []
    for name, each in rated.items():
        counts = each.record.counts
        missing = sum(num for name, num in counts.items() if name.startswith("missing/"))
        shares = [counts.get(f"score/{score}", 0) / max(1, each.num_rows) for score in SCORES]
        missed = percent(missing / max(1, each.num_rows))
        counted.append([_round(name), each.num_rows, *map(percent, shares), missed])
    headings = ["", "pairs", *(f"score {score} %" for score in SCORES), "missing %"]
    section.table(Table(headings, counted))
    rows = [
        [
            _round(name),
            each.id.replace("_", " "),
            "passed" if each.is_passed else "FAILED",
            each.num_rows,
            each.text,
        ]
        for name, some in found.items()
        for each in some
    ]
    section.table(Table(["", "finding", "", "rows", "in words"], rows))
    return section


def _assumptions_section(rated: Mapping[str, Artifact], trip: Artifact) -> ReportSection:
    section = ReportSection(
        "The paper's two assumptions",
        "Some web texts are good answers to an instruction, and the instruction can be written. "
        "The round trip picks an instruction's own text among the nearest ones by likelihood.",
    )
    picks = [row for row in trip.rows(Score) if row.error is None]
    shares: list[tuple[str, list[tuple[bool, str]], str]] = [
        (
            f"texts rated 4 or more, {_round(name)}",
            [
                (row.rating.score >= A4, row.origin)
                for row in artifact.rows(Pair)
                if row.rating is not None and row.rating.score is not None
            ],
            "",
        )
        for name, artifact in rated.items()
    ]
    chance = percent(sum(row.chance for row in picks) / max(1, len(picks)))
    for by, name in (("gain", "acc_mutual_info"), ("sum", "acc")):
        own = [(row.metrics[name] > 0, row.passage) for row in picks]
        shares.append((f"own text picked by the {by} of log-probabilities", own, chance))
    rows = []
    for name, values, chance in shares:
        flags, pages = [float(is_so) for is_so, _ in values], [page for _, page in values]
        if len(set(pages)) > 1:
            found = cluster_interval(flags, pages)
            shown = f"{percent(found.value)} ({percent_interval(found.low, found.high)})"
            rows.append([name, f"{len(flags):,}", shown, chance])
    section.table(Table(["", "texts", "%, 95 % interval over pages", "chance %"], rows))
    return section


def _round(student: str) -> str:
    return f"for {student.upper()}"


def _data_section(sets: Sequence[PairSet]) -> ReportSection:
    section = ReportSection(
        "The data", "Pairs and their lengths in characters, mean ± standard deviation (Table 2)."
    )
    rows = []
    for each in sets:
        theirs = PAPER.get(each.name, ("", "", ""))
        ours = [f"{each.num_pairs:,}", str(each.instructions), str(each.responses)]
        rows.append([each.name, *ours, *theirs])
    headings = ["", "pairs", "instruction", "response"]
    headings += ["paper: pairs", "instruction", "response"]
    section.table(Table(headings, rows))
    return section


def _read_by(sets: Sequence[PairSet]) -> str:
    readers = {each.asked.reader for each in sets} - {""}
    return (
        f"read by {', '.join(sorted(readers))}"
        if readers
        else (
            "by spyhop's own rules and not by a parser (extra [parser]): compare the sets with "
            "each other, not with published figures"
        )
    )


def _diversity_section(sets: Sequence[PairSet]) -> ReportSection:
    section = ReportSection(
        "What the instructions ask for",
        f"The verb of an instruction and the noun that is its object, {_read_by(sets)}. Distinct "
        "pairs are those to be expected in draws of equal size.",
    )
    num_least = min((each.asked.num_read for each in sets if each.asked.num_read), default=0)
    rows = [
        [
            each.name,
            each.num_pairs,
            percent(each.asked.num_read / max(1, each.num_pairs)),
            PAPER_READ.get(each.name, ""),
            len(each.asked.pairs),
            f"{each.asked.distinct(num_least):.1f}" if each.asked.num_read else "",
            f"{each.asked.entropy_bits:.2f}",
        ]
        for each in sets
    ]
    headings = ["", "instructions", "read %", "paper, parsed %", "distinct pairs"]
    headings += [f"distinct in {num_least}", "entropy, bits"]
    section.table(Table(headings, rows))
    if not num_least:
        section.text("In some or all of the sets no instruction could be read.")
    shown = [
        [each.name, ", ".join(f"{verb} {noun} {n}" for (verb, noun), n in _top(each))]
        for each in sets
        if each.asked.num_read
    ]
    if shown:
        section.table(Table(["", "most frequent"], shown))
    return section


def _top(each: PairSet) -> list[tuple[tuple[str, str], int]]:
    ordered = sorted(each.asked.pairs.items(), key=lambda one: (-one[1], one[0]))
    return ordered[:NUM_TOP]


def _pairs_section(rated: Artifact) -> ReportSection:
    section = ReportSection(
        "Pairs by score", "The first ones of each score, as the last round rated."
    )
    shown = dict.fromkeys(SCORES, 0)
    found: list[tuple[int, Pair]] = []
    for row in rated.rows(Pair):
        if row.rating is None or row.rating.score is None:
            continue
        score = rounded(row.rating.score)
        if shown[score] < NUM_EXAMPLES:
            shown[score] += 1
            found.append((score, row))
        elif min(shown.values()) >= NUM_EXAMPLES:
            break
    for score, row in sorted(found, key=lambda one: -one[0]):
        turns = [
            {"role": "user", "content": _short(row.instruction)},
            {"role": "assistant", "content": _short(row.response)},
        ]
        reason = f"; {_short(row.rating.reason)}" if row.rating and row.rating.reason else ""
        section.conversation(turns, f"score {score}, pair {row.id}, {row.origin}{reason}")
    return section


def _segments_section(steps: Mapping[str, Artifact]) -> ReportSection:
    section = ReportSection("From pages to segments")
    rows = [[name, f"{each.num_rows:,}"] for name, each in steps.items()]
    section.table(Table(["step", "segments left"], rows))
    for name, each in steps.items():
        if each.record.dropped:
            section.table(dropped_table(name, each))
    return section


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 3]}..."


def _plain(each: PairSet) -> dict[str, Any]:
    return {
        "name": each.name,
        "pairs": each.num_pairs,
        "instruction_chars": [each.instructions.mean, each.instructions.sd],
        "response_chars": [each.responses.mean, each.responses.sd],
        "verb_noun_reader": each.asked.reader or "rules",
        "verb_noun_read": each.asked.num_read,
        "verb_noun_distinct": len(each.asked.pairs),
        "verb_noun_entropy_bits": each.asked.entropy_bits,
    }
