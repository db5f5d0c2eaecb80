"""The report of a run: `report.html` for people, `results.json` and `items.jsonl` for programs."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from spyhop.evaluate import ItemOverlap, TaskScores, task_scores
from spyhop.report.data_figures import messages_section, mixture_section
from spyhop.report.evaluation import (
    published_section,
    samples_section,
    scores_sections,
    sweep_section,
)
from spyhop.report.html import ReportSection, Turn, report_stage, section, short, write_page
from spyhop.report.safety import overlap_sections, safety_sections, spread_section
from spyhop.report.sections import (
    add_dropped,
    audit_section,
    contamination_section,
    cost_section,
    data_section,
    mask_section,
    probe_section,
    rows_section,
    training_section,
)
from spyhop.schema import Config, Finding, Item, Pair, Score
from spyhop.stage import Context
from spyhop.store import Artifact, Artifacts

NUM_PAIRS = 3
"""Pairs shown of each kind."""
SHOWN_CHARS = 1000
CHECKS = ("ending", "outcome", "right", "retried", "tell", "answers", "gold", "score", "missing")
"""Kinds of counts that describe the results of calls."""
ITEMS = "items.jsonl"
MOST_ITEMS = 300
"""Items on the page; all of them are in `items.jsonl` beside it."""
ANSWER = ("response", "extracted", "correct", "ending")
"""Fields of a score that the file has."""
LEAD = "Every figure below comes from the run's own rows."


class ReportConfig(Config):
    """Title of a report, and what it shows."""

    title: str
    phases: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Names of each student's training phases among `students`, in order; the first student is
    compared with the other models. Default: all of them are phases of one training."""
    hidden: tuple[str, ...] = ()
    """Suites whose texts stay off the page."""
    show_texts: bool = False
    """Whether the page has some of their texts, behind a line to open."""
    notes: tuple[str, ...] = ()
    """Sentences on how the models were asked."""


@report_stage(version=10)
def page(
    ctx: Context,
    config: ReportConfig,
    *,
    answers: Artifacts | None = None,
    pairs: Artifacts | None = None,
    gate: Artifact | None = None,
    students: Artifacts | None = None,
    probes: Artifacts | None = None,
    data: Artifacts | None = None,
    items: Artifacts | None = None,
    scores: Artifacts | None = None,
    sampled: Artifacts | None = None,
    swept: Artifacts | None = None,
    support: Artifacts | None = None,
    shared: Artifact | None = None,
    sealed: Artifact | None = None,
    audits: Artifacts | None = None,
) -> None:
    """Write the page of whatever a run made: a section for each input that it has.

    Answers, probes, scores, samples and support have the names of models, `swept` those of
    `model.message`; differences are to the first model of the scores. `data` are the steps from
    readers to queries, `shared` is what training rows contain of the items, `sealed` the
    declaration that the scores were made under.
    """
    answers, pairs, students, scores = answers or {}, pairs or {}, students or {}, scores or {}
    items, sampled, swept = items or {}, sampled or {}, swept or {}
    seen = {row.id: row for row in shared.rows(ItemOverlap)} if shared else None
    phases = config.phases or ({config.title: tuple(students)} if students else {})
    made = {**answers, **pairs}
    sections: list[ReportSection] = []
    if scores:
        student = next((name for name in config.phases if name in scores), "")
        sections += scores_sections(
            scores, items, config.hidden, seen, sealed, config.notes, student
        )
        sections += [samples_section(sampled, seen)] if sampled else []
        sections += [sweep_section(swept)] if swept else []
        sections += [spread_section(sampled, swept)] if sampled or swept else []
        sections += overlap_sections(scores)
        sections += safety_sections(scores, support or {}, is_shown=config.show_texts)
        sections += published_section(list(items))
        sections += [items_section(ctx.out, items, scores, config.hidden)] if items else []
        sections += [audit_section(audits)] if items and config.phases else []
    sections += [contamination_section(seen)] if seen is not None else []
    trained = {name: [students[each] for each in some] for name, some in phases.items()}
    sections += [training_section(trained)] if trained else []
    sections += [probe_section(probes)] if probes else []
    sections += [mixture_section(data)] if data else []
    if made:
        sections += [cost_section(answers=answers, pairs=pairs, scores=scores)]
        sections += [_checks_section(made)]
    if gate is not None:
        sections += [section("gate").rows(map(finding_row, gate.rows(Finding)))]
    sections += [messages_section(answers), rows_section(answers)] if answers else []
    sections += [_pairs_section(pairs)] if pairs else []
    if any(each.record.dropped for each in made.values()) and not students:
        sections += [add_dropped(section("dropped"), made)]
    sections += [mask_section(next(iter(trained.values()))[-1])] if trained else []
    groups = {"answers": answers, "pairs": pairs, "students": students, "scores": scores}
    sections += [data_section(**groups)]
    lead = ", ".join(f"{name}: {each.num_rows:,} rows" for name, each in pairs.items()) or LEAD
    every = (each for name, own in scores.items() for each in task_scores(name, own, seen))
    figures = {"results": list(map(_result, every))} if scores else {}
    inputs = (items, *groups.values(), sampled, swept)
    write_page(ctx.out, config.title, lead, sections, *inputs, **figures)


def _checks_section(artifacts: Artifacts) -> ReportSection:
    """How calls ended, and what checks of their replies found."""
    return section("checks").rows(
        {"rows": name, "check": kind, "result": what.replace("_", " "), "number": num,
         "% of the rows": num / max(1, artifact.num_rows)}
        for name, artifact in artifacts.items()
        for key, num in artifact.record.counts.items()
        for kind, _, what in [key.partition("/")]
        if kind in CHECKS and what
    )  # fmt: skip


def finding_row(found: Finding) -> dict[str, Any]:
    """Return a finding of a gate as cells by heading."""
    return {
        "finding": found.id.replace("_", " "),
        "": "passed" if found.is_passed else "FAILED",
        "rows": found.num_rows,
        "in words": found.text,
    }


def pair_turns(row: Pair, most: int = SHOWN_CHARS) -> list[Turn]:
    """Return the beginnings of a pair's texts as turns."""
    texts = {"user": row.instruction, "assistant": row.response}
    return [Turn(role, short(text, most)) for role, text in texts.items()]


def _pairs_section(pairs: Artifacts) -> ReportSection:
    found = section("pairs", num=NUM_PAIRS)
    for name, artifact in pairs.items():
        for row in islice(artifact.rows(Pair), NUM_PAIRS):
            score = "" if row.rating is None else f", score {row.rating.score}"
            found.conversation(pair_turns(row), f"{name}, pair {row.id}{score}, {row.origin}")
    return found


def _result(score: TaskScores) -> dict[str, Any]:
    """Return a score for programs, with the shares of its items in training and that of others."""
    seen, values = score.overlaps, score.means
    in_training = None
    if seen is not None:
        found = [seen[name] for name in score.ids]
        without_long = values[[not each.has_long for each in found]]
        clean = values[[not each.has_any for each in found]]
        in_training = {
            "exact": sum(each.is_exact for each in found) / score.n,
            "long": 1 - len(without_long) / score.n,
            "short": 1 - len(clean) / score.n,
            "num_without_long": len(without_long),
            "without_long": float(without_long.mean()) if len(without_long) else None,
            "num_clean": len(clean),
            "clean": float(clean.mean()) if len(clean) else None,
        }
    return {
        "model": score.model,
        "suite": score.suite,
        "task": score.task,
        "n": score.n,
        "accuracy": score.interval.value,
        "low": score.interval.low,
        "high": score.interval.high,
        "answered": 1 - (score.rate("no answer") or 0.0),
        "chance": score.chance,
        "verdict": score.against_guessing,
        "in_training": in_training,
    }


class ShownItem(NamedTuple):
    """An item with the answers of the models, by name."""

    item: Item
    scores: dict[str, Score]


def items_section(
    folder: Path, items: Artifacts, scores: Artifacts, hidden: Collection[str] = ()
) -> ReportSection:
    """Show items, those first on which models differ, and write all of them to `items.jsonl`.

    The page can be filtered by model and task, and each item has its own link. Items of hidden
    suites are in neither.
    """
    verdicts: dict[str, set[bool]] = defaultdict(set)
    for artifact in scores.values():
        for batch in artifact.batches(["id", "correct", "suite"]):
            for row in batch.to_pylist():
                if row["suite"] not in hidden:
                    verdicts[row["id"]].add(row["correct"])
    order = sorted(verdicts, key=lambda row_id: len(verdicts[row_id]) < 2)[:MOST_ITEMS]
    ids, shown = set(order), dict[str, ShownItem]()
    with (folder / ITEMS).open("w", encoding="utf-8") as lines:
        for each in _joined(items, scores, hidden):
            answers = {
                name: score.model_dump(include=set(ANSWER)) for name, score in each.scores.items()
            }
            line = {**each.item.model_dump(), "answers": answers}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            if each.item.id in ids:
                shown[each.item.id] = each
    found = section("items", shown=f"{len(shown):,}", num=f"{len(verdicts):,}", file=ITEMS)
    rows = [shown[row_id] for row_id in order if row_id in shown]
    tasks = list(dict.fromkeys(f"{row.item.suite} {row.item.task}" for row in rows))
    return found.add("items.html", rows=rows, models=list(scores), tasks=tasks)


def _joined(items: Artifacts, scores: Artifacts, hidden: Collection[str]) -> Iterator[ShownItem]:
    """Join items and scores, which come in the items' order."""
    streams = {name: artifact.rows(Score) for name, artifact in scores.items()}
    waiting = {name: next(stream, None) for name, stream in streams.items()}
    for artifact in items.values():
        for item in artifact.rows(Item):
            row = ShownItem(item, {})
            for name, score in waiting.items():
                if score is not None and score.id == item.id:
                    row.scores[name] = score
                    waiting[name] = next(streams[name], None)
            if row.scores and item.suite not in hidden:
                yield row
