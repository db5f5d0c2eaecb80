"""The report of a training alone: its probe, loss, rows and mask, and what was dropped."""

from collections.abc import Mapping

from spyhop.evaluate import ItemOverlap
from spyhop.report.contamination import seen_items
from spyhop.report.evaluation import scores_sections
from spyhop.report.html import write_page
from spyhop.report.items import items_section
from spyhop.report.probe_figures import probe_section
from spyhop.report.sections import data_section, mask_section, samples_section, training_section
from spyhop.schema import Config
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact


class TrainingPageConfig(Config):
    """Title of the page, and name of the model."""

    title: str
    hidden: tuple[str, ...] = ()
    """Suites whose texts stay off the page."""


@stage(
    version=3, writes=FOLDER, shows_names=True, plan=lambda config, **inputs: Estimate(seconds=5)
)
def training_page(
    ctx: Context,
    config: TrainingPageConfig,
    *,
    answers: Mapping[str, Artifact],
    students: Mapping[str, Artifact],
    probe: Artifact | None = None,
    items: Mapping[str, Artifact] | None = None,
    scores: Mapping[str, Artifact] | None = None,
    shared: Artifact | None = None,
) -> None:
    """Write `report.html`; `students` are the phases of one training, in order.

    `scores` are those of base and student on the `items`, `shared` what the rows contain of them.
    """
    phases = list(students.values())
    probes = {} if probe is None else {config.title: probe}
    seen = None if shared is None else seen_items(list(shared.rows(ItemOverlap)))
    sections = [
        *(scores_sections(scores, items or {}, config.hidden, seen) if scores else []),
        *([items_section(ctx.out, items, scores, config.hidden)] if items and scores else []),
        training_section({config.title: phases}),
        *([probe_section(probes)] if probes else []),
        samples_section(answers),
        mask_section(phases[-1]),
        data_section(answers=answers, students=students, probes=probes),
    ]
    lead = "From rows to a model. Every figure below comes from the run's own rows."
    write_page(ctx.out, config.title, lead, sections, answers, students, probes)
