"""The report of an evaluation: scores with their rates, differences, samples, system messages."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from markupsafe import Markup

from spyhop.evaluate import (
    RATES,
    ItemOverlap,
    SealConfig,
    SweptTask,
    TaskScores,
    best_per_task,
    differences,
    macro_average,
    of_interest,
    red_rates,
    seal_state,
    sweep,
    task_scores,
)
from spyhop.evaluate.published import published
from spyhop.evaluate.rates import ALL
from spyhop.report.comparison import MOST_BARS, differences_table, draw_differences
from spyhop.report.contamination import contamination_section, seen_items
from spyhop.report.html import ReportSection, Table, percent, percent_interval, write_page
from spyhop.report.items import items_section
from spyhop.report.safety import overlap_sections, safety_sections, spread_section
from spyhop.schema import Config
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact

HEADINGS = [
    "task", "model", "n", "score %", "95 % interval", "form", "chance %", "strict %",
    *(f"{rate} %" for rate in RATES), "budget", "other metrics %",
]  # fmt: skip
CAPTION = (
    "Form: where the cue of the answer is, or likelihood, and the metric unless it is accuracy. "
    "Strict: accuracy under the Orca paper's rule, the first capital letter. Budget: new tokens. A "
    "rate is red where the items that it touches could reverse the sign of the difference to the "
    "first model; for the first model itself, to guessing."
)


SOURCES = ("items", "samples")
"""Of variance."""


class EvaluationPageConfig(Config):
    """Title of the page."""

    title: str
    hidden: tuple[str, ...] = ()
    """Suites whose texts stay off the page."""
    show_texts: bool = False
    """Whether the page has some of their texts, behind a line to open."""
    notes: tuple[str, ...] = ()
    """Sentences on how the models were asked."""


@stage(
    version=1, writes=FOLDER, shows_names=True, plan=lambda config, **inputs: Estimate(seconds=3)
)
def evaluation_page(
    ctx: Context,
    config: EvaluationPageConfig,
    *,
    items: Mapping[str, Artifact],
    scores: Mapping[str, Artifact],
    sampled: Mapping[str, Artifact] | None = None,
    swept: Mapping[str, Artifact] | None = None,
    shared: Artifact | None = None,
    sealed: Artifact | None = None,
    support: Mapping[str, Artifact] | None = None,
) -> None:
    """Write `report.html`; differences are to the first model.

    Args:
        ctx: As for every stage.
        config: The title.
        items: The items that were asked.
        scores: Answers to the items, by the name of the model.
        sampled: Several samples of each answer, by the name of the model.
        swept: Answers under system messages, by `model.message`.
        shared: What the training rows contain of the items.
        sealed: The declaration that the scores were made under.
        support: Checked sentences of responses, by the name of the model.
    """
    seen = None if shared is None else seen_items(list(shared.rows(ItemOverlap)))
    sections = [
        scores_with_rates(scores, seen, sealed, config.notes),
        *([samples_section(sampled, seen)] if sampled else []),
        *([sweep_section(swept)] if swept else []),
        *([spread_section(sampled or {}, swept or {})] if sampled or swept else []),
        *overlap_sections(scores),
        *safety_sections(scores, support or {}, is_shown=config.show_texts),
        *([contamination_section(seen)] if seen is not None else []),
        *published_section(list(items)),
        items_section(ctx.out, items, scores, config.hidden),
    ]
    lead = "Every figure below comes from the run's own rows, which are in the files beside it."
    write_page(ctx.out, config.title, lead, sections, items, scores, sampled or {}, swept or {})


def scores_with_rates(
    scores: Mapping[str, Artifact],
    seen: Mapping[str, ItemOverlap] | None,
    sealed: Artifact | None = None,
    notes: Sequence[str] = (),
    title: str = "Scores",
) -> ReportSection:
    """Scores of every model on every task, with form, budget and rates beside each."""
    section = ReportSection(title)
    state = seal_state(scores, sealed)
    for text in (f"{state.text[:1].upper()}{state.text[1:]}.", *notes):
        section.text(text)
    found = {name: task_scores(name, artifact, seen) for name, artifact in scores.items()}
    rows = [
        [
            Markup('<b class="wrong">{}</b>').format(cell) if is_red else cell
            for cell, is_red in zip(score_cells(score), red_cells(score, other), strict=True)
        ]
        for score, other in with_first(found)
    ]
    for name, tasks in found.items():
        for suite in dict.fromkeys(each.suite for each in tasks):
            own = [each for each in tasks if each.suite == suite]
            if len(own) > 2:
                mean = macro_average(own)
                section.text(
                    f"{name}, {suite}: macro average over {len(own) - 1} tasks "
                    f"{percent(mean.value)} % ({percent_interval(mean.low, mean.high)})."
                )
    if len(scores) > 1:
        _add_differences(section, found, sealed)
    section.table(Table(HEADINGS, rows, CAPTION))
    return section


def _add_differences(
    section: ReportSection, found: Mapping[str, Sequence[TaskScores]], sealed: Artifact | None
) -> None:
    """Add differences to the first model on every task; sealed ones say what they show."""
    (first, own), *others = found.items()
    results = [
        (f"{name} minus {first}", each)
        for name, tasks in others
        for each in differences(own, tasks)
    ]
    if len(results) <= MOST_BARS:
        named = [replace(each, group=f"{each.group}, {models}") for models, each in results]
        section.chart(draw_differences(named), "Differences with 95 % intervals.")
    more = {}
    if sealed is not None:
        smallest = SealConfig.model_validate(sealed.record.config).smallest_difference
        more["smallest of interest"] = [of_interest(each, smallest) for _, each in results]
    section.table(differences_table(results, more))


def with_first(
    found: Mapping[str, Sequence[TaskScores]],
) -> list[tuple[TaskScores, TaskScores | None]]:
    """Return scores task by task, each with the first model's on the same task; none for itself."""
    first, *others = found.values()
    pairs: list[tuple[TaskScores, TaskScores | None]] = []
    for own in first:
        pairs.append((own, None))
        pairs += [
            (each, own)
            for tasks in others
            for each in tasks
            if (each.suite, each.task) == (own.suite, own.task)
        ]
    return pairs


def score_cells(score: TaskScores) -> list[str]:
    """Return the cells under `HEADINGS` of one model on one task."""
    protocol = score.protocol
    is_written = protocol.method == "generate"
    return [
        f"{score.suite} {score.task}".replace("_", " "),
        score.model,
        f"{score.n:,}" + (f" x {score.num_samples}" if score.num_samples > 1 else ""),
        percent(score.interval.value),
        percent_interval(score.interval.low, score.interval.high),
        " ".join([protocol.form, *([] if is_written else ["likelihood"]), *_metric(score)]),
        percent(score.chance) if score.chance else "",
        "" if score.strict is None else percent(score.strict),
        *("" if (rate := score.rate(name)) is None else percent(rate) for name in RATES),
        f"{protocol.sampling.max_new_tokens:,}" if is_written else "",
        ", ".join(f"{name} {percent(v)}" for name, v in score.metrics.items() if name != "strict"),
    ]


def red_cells(score: TaskScores, other: TaskScores | None) -> list[bool]:
    """Return which cells are red: rates that could reverse the difference to another model."""
    red = {f"{name} %" for name in red_rates(score, other)}
    return [heading in red for heading in HEADINGS]


def samples_section(
    sampled: Mapping[str, Artifact], seen: Mapping[str, ItemOverlap] | None
) -> ReportSection:
    """Several samples of each response: the mean, its error between samples, pass@k, majority."""
    section = ReportSection(
        "Samples",
        "Sampled responses, beside the greedy ones above. The first sample alone is the setting of "
        "the Orca paper: one response at temperature 0.7.",
    )
    rows = [
        [
            *score_cells(score)[:5],
            f"{100 * figures.error:.2f}",
            percent(figures.first),
            ", ".join(f"{k}: {percent(value)}" for k, value in figures.pass_at.items()),
            percent(figures.majority),
            *(_decimal(getattr(figures.variance, source, None)) for source in SOURCES),
        ]
        for name, artifact in sampled.items()
        for score in task_scores(name, artifact, seen)
        if (figures := score.samples) is not None
    ]
    headings = [*HEADINGS[:5], "error between samples", "first sample %", "pass@k %", "majority %"]
    section.table(Table([*headings, *(f"variance of {name}" for name in SOURCES)], rows))
    return section


def sweep_section(swept: Mapping[str, Artifact]) -> ReportSection:
    """Accuracy of each model on each task under each system message, and the honest choice."""
    section = ReportSection(
        "System messages",
        "The chosen message is the best one on other items than those it is scored on (ten-fold "
        "cross-validation). The best message on the test items themselves, as in the Orca paper, "
        "is biased upwards.",
    )
    for model, tasks in swept_tasks(swept).items():
        messages = list(tasks[0].by_message)
        rows = [
            [
                f"{each.suite} {each.task}".replace("_", " "),
                f"{each.n:,}",
                *(percent(each.by_message[message]) for message in messages),
                percent(each.chosen),
                percent(each.best_on_test),
                each.best if each.num_best == 1 else f"{each.num_best} messages tie",
            ]
            for each in tasks
        ]
        headings = ["task", "n", *messages, "chosen %", "best on test %", "best"]
        if any(each.task != ALL for each in tasks):
            chosen, best = best_per_task(tasks)
            section.text(
                f"{model}: macro average {percent(chosen)} % with a chosen message for each task, "
                f"{percent(best)} % with the best one on the test items."
            )
        section.table(Table(headings, rows, f"Accuracy % of {model}."))
    return section


def swept_tasks(swept: Mapping[str, Artifact]) -> dict[str, list[SweptTask]]:
    """Return each model's tasks under every message, from scores by `model.message`."""
    by_model: dict[str, dict[str, list[TaskScores]]] = {}
    for name, artifact in swept.items():
        model, _, message = name.rpartition(".")
        by_model.setdefault(model, {})[message] = task_scores(model, artifact)
    return {model: sweep(scores) for model, scores in by_model.items()}


def _metric(score: TaskScores) -> list[str]:
    return sorted({each.metric for each in score.scores} - {"accuracy"})


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def published_section(suites: Sequence[str]) -> list[ReportSection]:
    """The papers' figures on the suites, each with its protocol; they are paired with nothing."""
    section = ReportSection(
        "Published results",
        "Figures as the papers print them, in percent: other weights and protocols, single runs "
        "without intervals. They are compared with no score of this run.",
    )
    for suite in suites:
        columns = {(cell.source, cell.model): cell.note for cell in published(suite)}
        by_cell = {(c.source, c.model, c.task): f"{c.percent:g}" for c in published(suite)}
        tasks = list(dict.fromkeys(cell.task for cell in published(suite)))
        rows = [
            [source, model, *(by_cell.get((source, model, task), "") for task in tasks), note]
            for (source, model), note in columns.items()
        ]
        if rows:
            section.table(Table(["source", "model", *tasks, "protocol"], rows, suite))
    return [section] if section.blocks else []
