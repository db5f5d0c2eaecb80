"""The report of a run: `report.html` for people, `results.json` for programs."""

import json
from typing import Any

from spyhop.report.html import render_page
from spyhop.report.sections import (
    data_section,
    mask_section,
    samples_section,
    scores_section,
    training_section,
)
from spyhop.schema import Config, Score
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.statistics import near_chance, wilson
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


@stage(version=1, writes=FOLDER, plan=plan_page)
def page(
    ctx: Context,
    config: ReportConfig,
    *,
    answers: list[Artifact],
    students: list[Artifact],
    scores: list[Artifact],
) -> None:
    """Write the page and the results of one run."""
    sections = []
    if scores:
        sections.append(scores_section(list(zip(config.models, scores, strict=True))))
    sections += [
        training_section(list(zip(config.students, students, strict=True))),
        samples_section(answers),
        mask_section(students[0], answers),
        data_section([*answers, *students, *scores]),
    ]
    lead = "From answers to a measured student. Every figure below comes from the run's own rows."
    footer = "\n".join(f"{artifact.path.name}" for artifact in [*answers, *students, *scores])
    html = render_page(config.title, lead, sections, f"Made by spyhop from:\n{footer}")
    (ctx.out / PAGE).write_text(html, encoding="utf-8")
    results = [
        row
        for name, each in zip(config.models, scores, strict=True)
        for row in _results(name, each)
    ]
    (ctx.out / RESULTS).write_text(json.dumps(results, indent=1))


def _results(model: str, scores: Artifact) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores.rows(Score):
        groups.setdefault((score.suite, score.task), []).append(score)
    rows = []
    for (suite, task), found in groups.items():
        correct = sum(score.correct for score in found)
        interval = wilson(correct, len(found))
        test = near_chance(correct, len(found), [score.chance for score in found])
        answered = sum(score.extracted is not None for score in found)
        rows.append(
            {
                "model": model,
                "suite": suite,
                "task": task,
                "n": len(found),
                "accuracy": interval.value,
                "low": interval.low,
                "high": interval.high,
                "answered": answered / len(found),
                "chance": test.chance,
                "verdict": test.verdict,
            }
        )
    return rows
