"""The report of a comparison of data sets by what they gain as they grow."""

import json
from collections.abc import Mapping

from spyhop.report.html import RESULTS, write_page
from spyhop.report.humpback_figures import Measure, StudentRun, StudentScores
from spyhop.report.humpback_tables import results_of, scaling_section
from spyhop.report.sections import data_section, training_section
from spyhop.schema import Config
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact


class ScalePageConfig(Config):
    """What the students are."""

    title: str
    runs: dict[str, StudentRun]
    """Data set, size and seed of each student, by its name."""


@stage(
    version=1, writes=FOLDER, shows_names=True, plan=lambda config, **inputs: Estimate(seconds=5)
)
def scale_page(
    ctx: Context,
    config: ScalePageConfig,
    *,
    students: Mapping[str, Artifact],
    accuracy: Mapping[str, Artifact] | None = None,
    held_out: Mapping[str, Artifact] | None = None,
    win_rate: Mapping[str, Artifact] | None = None,
) -> None:
    """Write `report.html` and `results.json`: curves, slopes, and whether the slopes differ."""
    taken: dict[Measure, Mapping[str, Artifact]] = {
        "accuracy": accuracy or {}, "held_out": held_out or {}, "win_rate": win_rate or {}
    }  # fmt: skip
    measures: list[Measure] = [measure for measure, each in taken.items() if each]
    seen = [
        StudentScores(run, {measure: taken[measure][name] for measure in measures})
        for name, run in config.runs.items()
    ]
    sections = [
        scaling_section(seen, measures),
        training_section({name: [step] for name, step in students.items()}),
        data_section(students=students),
    ]
    lead = "Every student starts from one base; at one N all data sets are trained for equal steps."
    write_page(ctx.out, config.title, lead, sections, students)
    (ctx.out / RESULTS).write_text(json.dumps(results_of(seen, measures), indent=1))
