"""The report of a run: `report.html` for people, `results.json` for programs."""

from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

from spyhop.evaluate import ItemOverlap, TaskScores, task_scores
from spyhop.report.costs import CostedStudent, costed, point_cost_section
from spyhop.report.data_figures import (
    messages_section,
    mixture_section,
    rounds_section,
    search_section,
)
from spyhop.report.evaluation import (
    published_section,
    samples_section,
    scores_sections,
    sweep_section,
)
from spyhop.report.html import ReportSection, Turn, report_stage, section, short, write_page
from spyhop.report.items import density_section, inherited_section, items_section
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
from spyhop.schema import Config, Finding, Pair
from spyhop.stage import Context
from spyhop.store import Artifact, Artifacts
from spyhop.train import read_metrics

NUM_PAIRS = 3
"""Pairs shown of each kind."""
SHOWN_CHARS = 1000
CHECKS = ("ending", "outcome", "right", "retried", "tell", "answers", "gold", "score", "missing")
"""Kinds of counts that describe the results of calls."""
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
    sizes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Students of each arm at growing sizes. Default: every student is an arm."""
    notes: tuple[str, ...] = ()
    """Sentences on how the models were asked."""


@report_stage(version=15)
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
    rounds: Artifacts | None = None,
    promotions: Artifacts | None = None,
    searched: Artifact | None = None,
) -> None:
    """Write the page of whatever a run made: a section for each input that it has.

    Answers, probes, scores, samples and support have the names of models, `swept` those of
    `model.message`; differences are to the first model of the scores. `data` are the steps from
    readers to queries, `shared` is what training rows contain of the items, `sealed` the
    declaration that the scores were made under. `rounds` are prompts that rounds added, by the
    student's name, `promotions` whether it was promoted, `searched` the
    search for system messages.
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
        sections += [rounds_section(rounds, promotions, scores)] if rounds and promotions else []
        sections += inherited_section(scores)
        sections += [samples_section(sampled, seen)] if sampled else []
        sections += [sweep_section(swept)] if swept else []
        sections += [spread_section(sampled, swept)] if sampled or swept else []
        sections += overlap_sections(scores)
        sections += safety_sections(scores, support or {}, is_shown=config.show_texts)
        sections += published_section(list(items))
        sections += [items_section(ctx.out, items, scores, config.hidden)] if items else []
        sections += [audit_section(audits)] if items and config.phases else []
        sections += _cost_sections(ctx.root, config, students, scores)
    sections += density_section(scores, seen) if scores and seen else []
    sections += [contamination_section(seen)] if seen is not None else []
    trained = {name: [students[each] for each in some] for name, some in phases.items()}
    sections += [training_section(trained)] if trained else []
    sections += [probe_section(probes)] if probes else []
    sections += [mixture_section(data)] if data else []
    sections += [search_section(searched)] if searched else []
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


def _cost_sections(
    root: Path, config: ReportConfig, students: Artifacts, scores: Artifacts
) -> list[ReportSection]:
    """What a point cost, for each arm, over the base's scores."""
    if "base" not in scores:
        return []
    sizes = config.sizes or {name: (name,) for name in config.phases}
    arms: dict[str, list[CostedStudent]] = {}
    for arm, names in sizes.items():
        some = {}  # a size that did not run is the one before it
        for name in (name for name in names if name in scores):
            base = scores.get(f"base-{name.removeprefix('student-')}", scores["base"])
            phases = [students[phase] for phase in config.phases[name]]
            trained = sum(read_metrics(each)["tokens"] for each in phases)
            some[phases[-1].key] = costed(root, phases[-1], scores[name], base, trained)
        arms[arm] = list(some.values())
    return point_cost_section(arms, "the base")


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
    in_training: dict[str, float | None] | None = None
    if score.overlaps is not None:
        found = [score.overlaps[name] for name in score.ids]
        in_training = {"exact": sum(each.is_exact for each in found) / score.n}
        for kind, has, without in (
            ("long", "has_long", "without_long"),
            ("short", "has_any", "clean"),
        ):
            left = score.means[[not getattr(each, has) for each in found]]
            mean = float(left.mean()) if len(left) else None
            in_training |= {
                kind: 1 - len(left) / score.n, f"num_{without}": len(left), without: mean
            }  # fmt: skip
    return {
        "model": score.model, "suite": score.suite, "task": score.task, "n": score.n,
        "accuracy": score.interval.value, "low": score.interval.low, "high": score.interval.high,
        "answered": 1 - (score.rate("no answer") or 0.0), "chance": score.chance,
        "verdict": score.against_guessing, "in_training": in_training,
    }  # fmt: skip
