"""The report of a Humpback run: rounds, ratings, data, and the paper's tables from one's own run.

Source: Humpback (arXiv:2308.06259); table and figure numbers are those of version 1 unless said.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from spyhop.curate import A4, A5
from spyhop.curate.rate import rounded
from spyhop.report.data_figures import dropped_table
from spyhop.report.html import Section, Table, percent, render_page
from spyhop.report.humpback_figures import (
    Measure,
    PairSet,
    Seen,
    StudentRun,
    findings,
    of_score,
    pair_set,
    seen_by,
)
from spyhop.report.humpback_tables import (
    TITLES,
    level,
    results_of,
)
from spyhop.report.page import PAGE, RESULTS
from spyhop.report.sections import data_section, training_section
from spyhop.report.task_figures import chance_sentence, task_results
from spyhop.schema import Config, Finding, Pair
from spyhop.stage import FOLDER, Context, Estimate, stage
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


class HumpbackPageConfig(Config):
    """What the inputs are."""

    title: str
    runs: tuple[StudentRun, ...]
    """One per student, in their order."""
    num_kept: int
    asked_under: str
    """System message at inference."""
    has_accuracy: bool
    has_held_out: bool


def plan_page(config: HumpbackPageConfig, **inputs: Estimate | list[Estimate]) -> Estimate:
    """A few seconds for the charts."""
    return Estimate(seconds=8)


@stage(version=2, writes=FOLDER, plan=plan_page)
def humpback_page(
    ctx: Context,
    config: HumpbackPageConfig,
    *,
    seeds: Artifact,
    augmented: Artifact,
    rated: list[Artifact],
    gates: list[Artifact],
    kept: list[Artifact],
    promotions: list[Artifact],
    students: list[Artifact],
    accuracy: list[Artifact],
    held_out: list[Artifact],
    graded: list[Artifact],
    steps: list[Artifact],
) -> None:
    """Write `report.html` and `results.json`: every table of the paper that the run can fill."""
    seen = seen_by(config.runs, accuracy, held_out, graded)
    chosen = [json.loads((each.path / "promotion.json").read_text()) for each in promotions]
    sets = [
        pair_set("seeds", seeds.rows(Pair)),
        pair_set("kept", kept[-1].rows(Pair)),
        pair_set("A5", of_score(rated[-1], A5)),
        pair_set("A4", of_score(rated[-1], A4)),
        pair_set("all augmented", augmented.rows(Pair)),
    ]
    found = findings(gates)
    sections = [
        _rounds_section(config, _of(seen, "rounds"), students, rated, kept, chosen),
        _gate_section(found, rated),
        _data_section(sets),
        _diversity_section(sets),
    ]
    measures = _measures(config)
    for name, make in TITLES.items():
        some = _of(seen, name)
        if some and name != "rounds":
            sections.append(make(some, measures))
    sections += [
        _pairs_section(rated[-1]),
        _segments_section(steps),
        training_section(_trained(config, students)),
        data_section([seeds, augmented, *rated, *kept]),
    ]
    footer = "\n".join(each.path.name for each in [seeds, augmented, *rated, *kept, *students])
    html = render_page(config.title, _lead(chosen), sections, f"Made by spyhop from:\n{footer}")
    (ctx.out / PAGE).write_text(html, encoding="utf-8")
    results = {
        "rounds": chosen,
        "gates": [[each.model_dump() for each in some] for some in found],
        "data": [_plain(each) for each in sets],
        "students": results_of(seen, measures),
    }
    (ctx.out / RESULTS).write_text(json.dumps(results, indent=1))


def _measures(config: HumpbackPageConfig) -> list[Measure]:
    known: list[tuple[Measure, bool]] = [
        ("accuracy", config.has_accuracy),
        ("held_out", config.has_held_out),
    ]
    return [name for name, should_step in known if should_step]


def _of(seen: Sequence[Seen], table: str) -> list[Seen]:
    return [each for each in seen if each.run.table == table]


def _lead(chosen: Sequence[dict[str, Any]]) -> str:
    lines = [f"Round {n}: {each['reason']}." for n, each in enumerate(chosen, 1)]
    last = [n for n, each in enumerate(chosen, 1) if each["chosen"] == "after"]
    lines.append(f"The best student is M{last[-1] if last else 0}.")
    return "\n".join(lines)


def _rounds_section(
    config: HumpbackPageConfig,
    seen: Sequence[Seen],
    students: Sequence[Artifact],
    rated: Sequence[Artifact],
    kept: Sequence[Artifact],
    chosen: Sequence[dict[str, Any]],
) -> Section:
    section = Section(
        "Rounds",
        "Each student is trained from the base on the seeds and the pairs that the best student "
        "so far rated highest. A round goes on only if it is better on the same items.",
    )
    section.text(f"All are asked under: {config.asked_under or 'no system message'}")
    measures = _measures(config)
    rows: list[list[Any]] = []
    for n, each in enumerate(seen):
        row: list[Any] = [f"M{n}", "", "", ""]
        if n:
            judge = rated[n - 1].record.inputs
            names = [one.name for name in ("judge", "model") for one in judge.get(name, [])]
            row[1:] = [", ".join(names), f"{rated[n - 1].num_rows:,}", f"{kept[n - 1].num_rows:,}"]
        row += [level(each, measure) for measure in measures]
        row.append(chosen[n - 1]["reason"] if n else "seeds alone")
        if n and students[n].key == students[n - 1].key:
            row[-1] = f"M{n - 1} again: it was not promoted, so nothing had changed"
        rows.append(row)
    headings = ["student", "rated by", "pairs rated", "kept", *map(_heading, measures), "verdict"]
    section.table(Table(headings, rows))
    for n, each in enumerate(seen):
        if "accuracy" in each.scores:
            section.text(chance_sentence(task_results(f"M{n}", each.scores["accuracy"])))
    return section


def _heading(measure: Measure) -> str:
    return "accuracy %" if measure == "accuracy" else "held-out log-likelihood"


def _gate_section(found: Sequence[list[Finding]], rated: Sequence[Artifact]) -> Section:
    section = Section(
        "Can the ratings be trusted?",
        "What a judge cannot say is missing, never a low score. Below the limits nothing is "
        "trained on, unless the config says otherwise.",
    )
    counted = []
    for n, each in enumerate(rated, 1):
        counts = each.record.counts
        missing = sum(num for name, num in counts.items() if name.startswith("missing/"))
        shares = [counts.get(f"score/{score}", 0) / max(1, each.num_rows) for score in SCORES]
        missed = percent(missing / max(1, each.num_rows))
        counted.append([f"round {n}", each.num_rows, *map(percent, shares), missed])
    headings = ["", "pairs", *(f"score {score} %" for score in SCORES), "missing %"]
    section.table(Table(headings, counted))
    rows = [
        [
            f"round {n}",
            each.id.replace("_", " "),
            "passed" if each.is_passed else "FAILED",
            each.num_rows,
            each.text,
        ]
        for n, some in enumerate(found, 1)
        for each in some
    ]
    section.table(Table(["", "finding", "", "rows", "in words"], rows))
    return section


def _data_section(sets: Sequence[PairSet]) -> Section:
    section = Section(
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


def _diversity_section(sets: Sequence[PairSet]) -> Section:
    section = Section(
        "What the instructions ask for",
        "The verb that an instruction opens with and the noun that is its object, by rules of our "
        "own and not by a parser: compare the sets with each other, not with published figures. "
        "Distinct pairs are those to be expected in draws of equal size.",
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


def _pairs_section(rated: Artifact) -> Section:
    section = Section("Pairs by score", "The first ones of each score, as the last round rated.")
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


def _segments_section(steps: Sequence[Artifact]) -> Section:
    section = Section("From pages to segments")
    rows = [[each.record.stage.split(".")[-1], f"{each.num_rows:,}"] for each in steps]
    section.table(Table(["step", "segments left"], rows))
    for each in steps:
        if each.record.dropped:
            section.table(dropped_table(each))
    return section


def _trained(
    config: HumpbackPageConfig, students: Sequence[Artifact]
) -> list[tuple[str, list[Artifact]]]:
    found = zip(config.runs, students, strict=True)
    return [(run.kind, [each]) for run, each in found if run.table == "rounds"]


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 3]}..."


def _plain(each: PairSet) -> dict[str, Any]:
    return {
        "name": each.name,
        "pairs": each.num_pairs,
        "instruction_chars": [each.instructions.mean, each.instructions.sd],
        "response_chars": [each.responses.mean, each.responses.sd],
        "verb_noun_read": each.asked.num_read,
        "verb_noun_distinct": len(each.asked.pairs),
        "verb_noun_entropy_bits": each.asked.entropy_bits,
    }
