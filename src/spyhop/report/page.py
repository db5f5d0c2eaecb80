"""The report of a run: `report.html` for people, `results.json` for programs."""

import json
from dataclasses import asdict
from typing import Any

from spyhop.evaluate import ItemOverlap
from spyhop.report.contamination import contamination_section, seen_items
from spyhop.report.cost import cost_section
from spyhop.report.data_figures import messages_section, mixture_section
from spyhop.report.html import render_page
from spyhop.report.probe_figures import probe_section
from spyhop.report.sections import (
    data_section,
    mask_section,
    samples_section,
    scores_section,
    training_section,
)
from spyhop.report.task_figures import TaskResult, task_results
from spyhop.schema import Answer, Config
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact

PAGE, RESULTS = "report.html", "results.json"


class ReportConfig(Config):
    """Titles of a report."""

    title: str
    models: tuple[str, ...] = ()
    """Names of the models, in the order of `scores`."""
    students: tuple[str, ...] = ("student",)
    """Names of the trained models, in the order of `students`."""


def plan_page(config: ReportConfig, **inputs: list[Estimate]) -> Estimate:
    """A few seconds for the charts."""
    return Estimate(seconds=5)


@stage(version=2, writes=FOLDER, plan=plan_page)
def page(
    ctx: Context,
    config: ReportConfig,
    *,
    answers: list[Artifact],
    students: list[Artifact],
    scores: list[Artifact],
    data: list[Artifact] | None = None,
    shared: Artifact | None = None,
    probes: list[Artifact] | None = None,
) -> None:
    """Write the page and the results of one run.

    `data` are the steps from readers to queries, `shared` is what the answers hold of the items,
    `probes` are those of the first students.
    """
    seen = None if shared is None else seen_items(list(shared.rows(ItemOverlap)))
    measured = list(zip(config.models, scores, strict=True))
    answered = _by_model(answers)
    sections = []
    if scores:
        student = config.students[0] if config.students[0] in config.models[1:] else ""
        sections.append(scores_section(measured, seen, student))
    if seen is not None:
        sections.append(contamination_section(seen))
    sections += [
        training_section(
            [(name, [each]) for name, each in zip(config.students, students, strict=True)]
        ),
        *([probe_section(list(zip(config.students, probes, strict=False)))] if probes else []),
        *([mixture_section(data)] if data else []),
        cost_section(answered, measured),
        messages_section(answered),
        samples_section(answers),
        mask_section(students[0]),
        data_section([*answers, *students, *scores]),
    ]
    lead = "From answers to a measured student. Every figure below comes from the run's own rows."
    footer = "\n".join(f"{artifact.path.name}" for artifact in [*answers, *students, *scores])
    html = render_page(config.title, lead, sections, f"Made by spyhop from:\n{footer}")
    (ctx.out / PAGE).write_text(html, encoding="utf-8")
    results = [
        _plain(result) for name, each in measured for result in task_results(name, each, seen)
    ]
    (ctx.out / RESULTS).write_text(json.dumps(results, indent=1))


def _by_model(answers: list[Artifact]) -> list[tuple[str, Artifact]]:
    """Name each artifact by who answered."""
    return [(next((row.model for row in each.rows(Answer)), ""), each) for each in answers]


def _plain(result: TaskResult) -> dict[str, Any]:
    return {
        "model": result.model,
        "suite": result.suite,
        "task": result.task,
        "n": result.n,
        "accuracy": result.interval.value,
        "low": result.interval.low,
        "high": result.interval.high,
        "answered": result.answered,
        "chance": result.chance,
        "verdict": result.verdict,
        "in_training": None if result.shared is None else asdict(result.shared),
    }
