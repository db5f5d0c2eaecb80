"""The report of a training alone: its probe, loss, rows and mask, and what was dropped."""

from collections.abc import Sequence

from spyhop.report.html import render_page
from spyhop.report.page import PAGE
from spyhop.report.probe_figures import probe_section
from spyhop.report.sections import data_section, mask_section, samples_section, training_section
from spyhop.schema import Config
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact


class TrainingPageConfig(Config):
    """Title of the page, and what the trainings that follow each other are called."""

    title: str


@stage(version=1, writes=FOLDER, plan=lambda config, **inputs: Estimate(seconds=5))
def training_page(
    ctx: Context,
    config: TrainingPageConfig,
    *,
    answers: list[Artifact],
    students: list[Artifact],
    probes: Sequence[Artifact] = (),
) -> None:
    """Write `report.html`; `students` are the trainings that follow each other."""
    last = students[-1]
    sections = [
        training_section([(config.title, students)]),
        *([probe_section([(config.title, each) for each in probes])] if probes else []),
        samples_section(answers),
        mask_section(last),
        data_section([*answers, *students, *probes]),
    ]
    lead = "From rows to a model. Every figure below comes from the run's own rows."
    made = "\n".join(each.path.name for each in [*answers, *students, *probes])
    html = render_page(config.title, lead, sections, f"Made by spyhop from:\n{made}")
    (ctx.out / PAGE).write_text(html, encoding="utf-8")
