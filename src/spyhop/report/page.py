"""The report of a run: `report.html` for people, `results.json` for programs."""

import json
from collections.abc import Mapping
from typing import Any

from spyhop.evaluate import ItemOverlap, TaskScores, task_scores
from spyhop.report.audit import audit_section
from spyhop.report.contamination import contamination_section, seen_items
from spyhop.report.cost import cost_section
from spyhop.report.data_figures import messages_section, mixture_section
from spyhop.report.evaluation import scores_sections
from spyhop.report.html import RESULTS, write_page
from spyhop.report.items import items_section
from spyhop.report.probe_figures import probe_section
from spyhop.report.rows import checks_section
from spyhop.report.sections import (
    data_section,
    mask_section,
    samples_section,
    training_section,
)
from spyhop.schema import Config
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact


class ReportConfig(Config):
    """Title of a report."""

    title: str
    phases: dict[str, tuple[str, ...]]
    """Names of each student's training phases among `students`, in order."""


@stage(
    version=8, writes=FOLDER, shows_names=True, plan=lambda config, **inputs: Estimate(seconds=5)
)
def page(
    ctx: Context,
    config: ReportConfig,
    *,
    answers: Mapping[str, Artifact],
    students: Mapping[str, Artifact],
    scores: Mapping[str, Artifact],
    items: Mapping[str, Artifact] | None = None,
    data: Mapping[str, Artifact] | None = None,
    shared: Artifact | None = None,
    probes: Mapping[str, Artifact] | None = None,
    audits: Mapping[str, Artifact] | None = None,
    sealed: Artifact | None = None,
) -> None:
    """Write the page and the results of one run.

    Args:
        ctx: As for every stage.
        config: The title.
        answers: Training rows, by the model or person that wrote them.
        students: Trained models by phase; the first student is compared with the others.
        scores: Answers to the items, by the name of the model.
        items: The items that were asked.
        data: The steps from readers to queries.
        shared: What the answers contain of the items.
        probes: Probes by the student's name.
        audits: Imitation audits of the student, by the judge.
        sealed: The declaration that the scores were made under.
    """
    seen = None if shared is None else seen_items(list(shared.rows(ItemOverlap)))
    sections = []
    if scores:
        student = next((name for name in config.phases if name in scores), "")
        sections += scores_sections(scores, items or {}, seen=seen, sealed=sealed, student=student)
    if scores and items:
        sections.append(items_section(ctx.out, items, scores))
        sections.append(audit_section(audits))
    if seen is not None:
        sections.append(contamination_section(seen))
    sections += [
        training_section(
            {name: [students[each] for each in phases] for name, phases in config.phases.items()}
        ),
        *([probe_section(probes)] if probes else []),
        *([mixture_section(data)] if data else []),
        cost_section(answers=answers, scores=scores),
        checks_section(answers),
        messages_section(answers),
        samples_section(answers),
        mask_section(students[next(iter(config.phases.values()))[-1]]),
        data_section(answers=answers, students=students, scores=scores),
    ]
    lead = "From answers to a measured student. Every figure below comes from the run's own rows."
    write_page(ctx.out, config.title, lead, sections, answers, students, scores)
    results = [
        _result(each) for name, own in scores.items() for each in task_scores(name, own, seen)
    ]
    (ctx.out / RESULTS).write_text(json.dumps(results, indent=1))


def _result(score: TaskScores) -> dict[str, Any]:
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
        "in_training": None if score.overlaps is None else _in_training(score, score.overlaps),
    }


def _in_training(score: TaskScores, seen: Mapping[str, ItemOverlap]) -> dict[str, float | None]:
    """Return shares of items in the training rows, and the scores on the others."""
    found, values = [seen[name] for name in score.ids], score.values.mean(axis=1)
    without_long = values[[not each.has_long for each in found]]
    clean = values[[not each.has_any for each in found]]
    return {
        "exact": sum(each.is_exact for each in found) / score.n,
        "long": 1 - len(without_long) / score.n,
        "short": 1 - len(clean) / score.n,
        "num_without_long": len(without_long),
        "without_long": float(without_long.mean()) if len(without_long) else None,
        "num_clean": len(clean),
        "clean": float(clean.mean()) if len(clean) else None,
    }
