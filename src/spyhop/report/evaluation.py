"""The report of an evaluation: scores with their rates, differences, samples, system messages."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from statistics import mean

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
from spyhop.report.score_charts import radar, score_bars
from spyhop.report.suite_texts import add_disagreements, add_first_prompt, disagreeing
from spyhop.schema import Config, Item
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact

HEADINGS = [
    "task", "model", "n", "score %", "95 % interval", "form", "chance %", "strict %",
    *(f"{rate} %" for rate in RATES), "length", "budget", "other metrics %",
]  # fmt: skip
CAPTION = (
    "Form: where the cue of the answer is, or likelihood, and the metric unless it is accuracy. "
    "Strict: accuracy under the Orca paper's rule, the first capital letter. Length: mean tokens of "
    "a response, budget: the most. A "
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
    version=2, writes=FOLDER, shows_names=True, plan=lambda config, **inputs: Estimate(seconds=3)
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
        *scores_sections(scores, items, config.hidden, seen, sealed, config.notes),
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


def scores_sections(
    scores: Mapping[str, Artifact],
    items: Mapping[str, Artifact],
    hidden: Collection[str] = (),
    seen: Mapping[str, ItemOverlap] | None = None,
    sealed: Artifact | None = None,
    notes: Sequence[str] = (),
    title: str = "Scores",
) -> list[ReportSection]:
    """Scores of every model: those of whole suites, then a section for each suite."""
    overview = ReportSection(title)
    state = seal_state(scores, sealed)
    for text in (f"{state.text[:1].upper()}{state.text[1:]}.", *notes):
        overview.text(text)
    found = {name: task_scores(name, artifact, seen) for name, artifact in scores.items()}
    totals = {name: [each for each in own if each.task == ALL] for name, own in found.items()}
    overview.table(scores_table(totals))
    sections = [overview]
    for suite in dict.fromkeys(each.suite for own in found.values() for each in own):
        of_suite = {
            name: own
            for name, tasks in found.items()
            if (own := [each for each in tasks if each.suite == suite])
        }
        sections.append(suite_section(suite, of_suite, sealed))
        if suite in hidden:
            sections[-1].text("The texts of this suite stay off the page.")
        else:
            add_texts(sections[-1], [own[0] for own in of_suite.values()], items)
    return sections


def suite_section(
    suite: str, found: Mapping[str, Sequence[TaskScores]], sealed: Artifact | None
) -> ReportSection:
    """Every model on the tasks of a suite: charts, rates, differences, topics."""
    section = ReportSection(f"Suite {suite}")
    tasks = {name: own if len(own) > 2 else own[:1] for name, own in found.items()}
    for name, own in tasks.items():
        if len(own) > 1:
            mean = macro_average(own)
            section.text(
                f"{name}: macro average over {len(own) - 1} tasks "
                f"{percent(mean.value)} % ({percent_interval(mean.low, mean.high)})."
            )
    add_charts(section, tasks, "task")
    section.table(scores_table(tasks))
    if len(found) > 1:
        add_differences(section, tasks, sealed)
    if topics := {name: by_topic(own) for name, own in found.items() if by_topic(own)}:
        add_charts(section, topics, "topic")
        section.table(scores_table(topics))
        if len(topics) > 1:
            add_differences(section, topics, None)
    return section


def scores_table(found: Mapping[str, Sequence[TaskScores]]) -> Table:
    """Return the table of scores with form, budget and rates beside each, without empty columns."""
    rows = [
        [
            Markup('<b class="wrong">{}</b>').format(cell) if is_red else cell
            for cell, is_red in zip(score_cells(score), red_cells(score, other), strict=True)
        ]
        for score, other in with_first(found)
    ]
    shown = [place for place in range(len(HEADINGS)) if any(row[place] for row in rows)]
    cells = [[row[place] for place in shown] for row in rows]
    return Table([HEADINGS[place] for place in shown], cells, CAPTION)


def add_charts(
    section: ReportSection, found: Mapping[str, Sequence[TaskScores]], kind: str
) -> None:
    """Add bars with intervals, and a radar of three or more tasks or topics."""
    groups: dict[str, list[TaskScores]] = {}
    for each in (each for own in found.values() for each in own):
        groups.setdefault(each.task, []).append(each)
    if len(groups) > MOST_BARS:
        return
    caption = f"Score of each {kind} with its 95 % interval; red: guessing."
    section.chart(score_bars(groups), caption)
    spokes = {name: some for name, some in groups.items() if name != ALL}
    if len(spokes) > 2 and all(len(some) == len(found) for some in spokes.values()):
        section.chart(radar(spokes), f"Score % of each {kind}; dashed: guessing.")


def by_topic(own: Sequence[TaskScores]) -> list[TaskScores]:
    """Return the total and each topic; nothing where topics are the tasks, or only one."""
    total = own[0]
    topics = sorted({score.topic for score in total.scores})
    pairs = {(score.topic, score.task) for score in total.scores}
    if len(topics) < 2 or len(topics) == len(pairs) == len(own) - 1:
        return []
    some = {topic: tuple(s for s in total.scores if s.topic == topic) for topic in topics}
    return [total, *(replace(total, task=t or "no topic", scores=s) for t, s in some.items())]


def add_texts(
    section: ReportSection, totals: Sequence[TaskScores], items: Mapping[str, Artifact]
) -> None:
    """Add what a suite was asked: its first prompt, and items on which the models differ."""
    first = totals[0]
    ids = {first.ids[0]}
    for other in totals[1:]:
        ids.update(name for side in disagreeing(first, other) for name in side)
    asked = {item.id: item for each in items.values() for item in each.rows(Item) if item.id in ids}
    add_disagreements(section, totals, asked)
    if first.ids[0] in asked:
        add_first_prompt(section, asked[first.ids[0]], first.protocol)


def add_differences(
    section: ReportSection, found: Mapping[str, Sequence[TaskScores]], sealed: Artifact | None
) -> None:
    """Add differences to the first model, drawn and in numbers; sealed ones say what they show."""
    (first, own), *others = found.items()
    results = []
    for name, tasks in others:
        some = differences(own, tasks)
        if not some:
            section.text(f"{name} and {first} have scores by different metrics: not compared.")
        results += [(f"{name} minus {first}", each) for each in some]
        if len(some) <= MOST_BARS and any(each.low is not None for each in some):
            section.chart(draw_differences(some), f"{name} minus {first}, with 95 % intervals.")
    more = {}
    declared = None if sealed is None else SealConfig.model_validate(sealed.record.config)
    if declared is not None and own[0].protocol.metric == declared.metric:
        smallest = declared.smallest_difference
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
        f"{mean(each.response_tokens for each in score.scores):.0f}" if is_written else "",
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
