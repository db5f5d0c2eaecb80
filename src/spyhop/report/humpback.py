"""The report of a Humpback run: rounds, ratings, data, and the paper's tables from one's own run.

Source: Humpback (arXiv:2308.06259); table and figure numbers are those of version 1 unless said.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spyhop.curate import A4, A5
from spyhop.curate.rate import rounded
from spyhop.evaluate import chance_sentence, seal_state, task_scores
from spyhop.report.html import RESULTS, ReportSection, write_page
from spyhop.report.humpback_figures import (
    Measure,
    PairSet,
    StudentRun,
    StudentScores,
    of_score,
    pair_set,
    seen_by,
)
from spyhop.report.humpback_tables import TITLES, levels, results_of
from spyhop.report.page import finding_row
from spyhop.report.sections import audit_section, data_section, dropped_rows, training_section
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
THEIRS = ("paper: pairs", "paper: instruction", "paper: response")
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
    version=7, writes=FOLDER, shows_names=True, plan=lambda config, **inputs: Estimate(seconds=8)
)
def humpback_page(
    ctx: Context,
    config: HumpbackPageConfig,
    *,
    seeds: Artifact,
    augmented: Mapping[str, Artifact],
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
    trips: Mapping[str, Artifact],
    sealed: Artifact | None = None,
) -> None:
    """Write `report.html` and `results.json`: every table of the paper that the run can fill.

    Ratings, gates, kept pairs and promotions have the name of the student that they lead to.
    """
    taken: dict[Measure, Mapping[str, Artifact]] = {"accuracy": accuracy, "held_out": held_out}
    measures = [measure for measure, scores in taken.items() if scores]
    seen = seen_by({name: config.runs[name] for name in students}, taken, graded)
    chosen = {name: _promotion(each) for name, each in promotions.items()}
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
    sections = [
        _rounds_section(config.asked_under, rounds, measures, students, rated, kept, chosen),
        _gate_section(found, rated),
        _assumptions_section(rated, trips),
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
        sections[0].text(f"Tests: {seal_state(accuracy, sealed)}.")
        sections.append(audit_section(audits))
    pairs = {"seeds": seeds, **augmented}
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
    rows: list[dict[str, Any]] = []
    before = ""
    for name, each in seen.items():
        row: dict[str, Any] = {"student": each.run.kind}
        if name in rated:
            judge = rated[name].record.inputs
            names = [one.name for model in ("judge", "model") for one in judge.get(model, [])]
            row |= {"rated by": ", ".join(names), "pairs rated": rated[name].num_rows}
            row["kept"] = kept[name].num_rows
        row |= levels(each, measures)
        row["verdict"] = chosen[name]["reason"] if name in chosen else "seeds alone"
        if before and students[name].key == students[before].key:
            row["verdict"] = f"the same as {seen[before].run.kind}, which was not promoted"
        before = name
        rows.append(row)
    blank = dict.fromkeys(("student", "rated by", "pairs rated", "kept"))
    section.rows({**blank, **row} for row in rows)
    for each in seen.values():
        if "accuracy" in each.scores:
            section.text(chance_sentence(task_scores(each.run.kind, each.scores["accuracy"])))
    return section


def _gate_section(
    found: Mapping[str, list[Finding]], rated: Mapping[str, Artifact]
) -> ReportSection:
    section = ReportSection(
        "Can the ratings be trusted?",
        "What a judge cannot say is missing, never a low score. Below the limits nothing is "
        "trained on, unless the config says otherwise.",
    )
    rows = []
    for name, each in rated.items():
        counts, num = each.record.counts, max(1, each.num_rows)
        missing = sum(n for count, n in counts.items() if count.startswith("missing/"))
        shares = {f"score {score} %": counts.get(f"score/{score}", 0) / num for score in SCORES}
        round_ = {"round": _round(name), "pairs": each.num_rows}
        rows.append({**round_, **shares, "missing %": missing / num})
    section.rows(rows)
    section.rows(
        {"round": _round(name), **finding_row(each)}
        for name, some in found.items()
        for each in some
    )
    return section


def _assumptions_section(
    rated: Mapping[str, Artifact], trips: Mapping[str, Artifact]
) -> ReportSection:
    section = ReportSection(
        "The paper's two assumptions",
        "Some web texts are good answers to an instruction, and the instruction can be written. "
        "The round trip picks an instruction's own text among the nearest ones by likelihood.",
    )
    shares: dict[str, list[tuple[bool, str]]] = {
        f"texts rated 4 or more, {_round(name)}": [
            (row.rating.score >= A4, row.origin)
            for row in artifact.rows(Pair)
            if row.rating is not None and row.rating.score is not None
        ]
        for name, artifact in rated.items()
    }
    for writer, trip in trips.items():
        picks = [row for row in trip.rows(Score) if row.error is None]
        chance = sum(row.chance for row in picks) / max(1, len(picks))
        for by, metric in (("gain", "acc_mutual_info"), ("sum", "acc")):
            name = f"own text picked by the {by} of log-probabilities, {writer}"
            shares[name] = [(row.metrics[metric] > 0, row.passage) for row in picks]
    section.rows(
        {
            "": name,
            "texts": len(values),
            "%, 95 % interval over pages": cluster_interval(
                [float(is_so) for is_so, _ in values], [page for _, page in values]
            ),
            "chance %": chance if name.startswith("own text") else None,
        }
        for name, values in shares.items()
        if len({page for _, page in values}) > 1
    )
    return section


def _round(student: str) -> str:
    return f"for {student.upper()}"


def _data_section(sets: Sequence[PairSet]) -> ReportSection:
    section = ReportSection(
        "The data", "Pairs and their lengths in characters, mean ± standard deviation (Table 2)."
    )
    section.rows(
        {
            "": each.name,
            "pairs": each.num_pairs,
            "instruction": str(each.instructions),
            "response": str(each.responses),
            **dict(zip(THEIRS, PAPER.get(each.name, [""] * 3), strict=True)),
        }
        for each in sets
    )
    return section


def _diversity_section(sets: Sequence[PairSet]) -> ReportSection:
    readers = ", ".join(sorted({each.asked.reader for each in sets} - {""}))
    section = ReportSection(
        "What the instructions ask for",
        f"The verb of an instruction and the noun that is its object, read by {readers}. Distinct "
        "pairs are those to be expected in draws of equal size.",
    )
    if not readers:
        section.text("No parser is installed: pip install 'spyhop[parser]' reads verbs and nouns.")
        return section
    least = min((each.asked.num_read for each in sets if each.asked.num_read), default=0)
    section.rows(
        {
            "": each.name,
            "instructions": each.num_pairs,
            "read %": each.asked.num_read / max(1, each.num_pairs),
            "paper, parsed %": PAPER_READ.get(each.name),
            "distinct pairs": len(each.asked.pairs),
            f"distinct in {least}": f"{each.asked.distinct(least):.1f}"
            if each.asked.num_read
            else None,
            "entropy, bits": f"{each.asked.entropy_bits:.2f}",
        }
        for each in sets
    )
    if not least:
        section.text("In some or all of the sets no instruction could be read.")
    section.rows(
        {"": each.name, "most frequent": ", ".join(_most_frequent(each))}
        for each in sets
        if each.asked.num_read
    )
    return section


def _most_frequent(each: PairSet) -> Iterator[str]:
    ordered = sorted(each.asked.pairs.items(), key=lambda one: (-one[1], one[0]))
    return (f"{verb} {noun} {n}" for (verb, noun), n in ordered[:NUM_TOP])


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
    section.rows({"step": name, "segments left": each.num_rows} for name, each in steps.items())
    for name, each in steps.items():
        section.rows(dropped_rows(name, each))
    return section


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 3]}..."


def _plain(each: PairSet) -> dict[str, Any]:
    return {
        "name": each.name,
        "pairs": each.num_pairs,
        "instruction_chars": [each.instructions.mean, each.instructions.sd],
        "response_chars": [each.responses.mean, each.responses.sd],
        "verb_noun_reader": each.asked.reader,
        "verb_noun_read": each.asked.num_read,
        "verb_noun_distinct": len(each.asked.pairs),
        "verb_noun_entropy_bits": each.asked.entropy_bits,
    }
