"""The report of a comparison of data sets by what they gain as they grow."""

import json
from collections.abc import Mapping

from spyhop.report.html import RESULTS, write_page
from spyhop.report.humpback_figures import Measure, StudentRun, seen_by
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
    version=2, writes=FOLDER, shows_names=True, plan=lambda config, **inputs: Estimate(seconds=5)
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
    every: dict[Measure, Mapping[str, Artifact] | None] = {
        "accuracy": accuracy, "held_out": held_out, "win_rate": win_rate
    }  # fmt: skip
    taken = {measure: scores for measure, scores in every.items() if scores}
    seen = list(seen_by(config.runs, taken).values())
    sections = [
        scaling_section(seen, list(taken)),
        training_section({name: [step] for name, step in students.items()}),
        data_section(students=students),
    ]
    lead = "Every student starts from one base; at one N all data sets are trained for equal steps."
    write_page(ctx.out, config.title, lead, sections, students)
    (ctx.out / RESULTS).write_text(json.dumps(results_of(seen, list(taken)), indent=1))
