"""The report of an evaluation: scores with their rates, differences, samples, system messages."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

from markupsafe import Markup

from spyhop.evaluate import (
    RATES,
    ItemOverlap,
    SealConfig,
    SweptTask,
    TaskScores,
    best_per_task,
    chance_sentence,
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
from spyhop.report.charts import Values, radar, spans
from spyhop.report.comparison import MOST_BARS, differences_table, draw_differences
from spyhop.report.html import ReportSection, Table, cell, percent, percent_interval
from spyhop.report.suite_texts import add_disagreements, add_first_prompt, disagreeing
from spyhop.schema import Item
from spyhop.store import Artifact

CAPTION = (
    "Form: where the cue of the answer is, or likelihood, and the metric unless it is accuracy. "
    "Strict: accuracy under the Orca paper's rule, the first capital letter. Length: mean tokens "
    "of a response, budget: the most. "
    "Against guessing: an exact test. A rate is red where the items that it touches could reverse "
    "the sign of the difference to the first model; for the first model itself, to guessing."
)
AGAINST_GUESSING = {
    "above": "above guessing",
    "below": "below guessing",
    "near": "not shown to differ from guessing",
}


def scores_sections(
    scores: Mapping[str, Artifact],
    items: Mapping[str, Artifact],
    hidden: Collection[str] = (),
    seen: Mapping[str, ItemOverlap] | None = None,
    sealed: Artifact | None = None,
    notes: Sequence[str] = (),
    student: str = "",
) -> list[ReportSection]:
    """Scores of every model: those of whole suites, then a section for each suite.

    Differences are to the first model, or of the `student` to every other one.
    """
    overview = ReportSection("Scores")
    state = seal_state(scores, sealed)
    found = {name: task_scores(name, artifact, seen) for name, artifact in scores.items()}
    for text in (f"{state[:1].upper()}{state[1:]}.", *notes):
        overview.text(text)
    for own in found.values():
        if own[0].chance:
            overview.text(chance_sentence(own))
    totals = {name: [each for each in own if each.task == ALL] for name, own in found.items()}
    overview.table(scores_table(totals))
    sections = [overview]
    for suite in dict.fromkeys(each.suite for own in found.values() for each in own):
        of_suite = {
            name: own
            for name, tasks in found.items()
            if (own := [each for each in tasks if each.suite == suite])
        }
        sections.append(suite_section(suite, of_suite, sealed, student))
        if suite in hidden:
            sections[-1].text("The texts of this suite stay off the page.")
        else:
            add_texts(sections[-1], [own[0] for own in of_suite.values()], items)
    return sections


def suite_section(
    suite: str,
    found: Mapping[str, Sequence[TaskScores]],
    sealed: Artifact | None,
    student: str = "",
) -> ReportSection:
    """Every model on the tasks of a suite: charts, rates, differences, topics."""
    section = ReportSection(f"Suite {suite}")
    tasks = {name: own if len(own) > 2 else own[:1] for name, own in found.items()}
    for name, own in tasks.items():
        if len(own) > 1:
            macro = cell(macro_average(own), "%")
            section.text(f"{name}: macro average over {len(own) - 1} tasks {macro} %.")
    topics = {name: topics for name, own in found.items() if (topics := by_topic(own))}
    for groups, kind in ((tasks, "task"), (topics, "topic")):
        if groups:
            add_charts(section, groups, kind)
            section.table(scores_table(groups))
            if len(groups) > 1:
                add_differences(section, groups, sealed if kind == "task" else None, student)
    return section


def scores_table(found: Mapping[str, Sequence[TaskScores]]) -> Table:
    """Return the table of scores with form, budget and rates beside each."""
    red = Markup('<b class="wrong">{}</b>').format
    return Table.of(
        ({name: red(text) if name in reds else text for name, text in cells.items()}
         for cells, reds in score_rows(found)),
        CAPTION,
    )  # fmt: skip


def add_charts(
    section: ReportSection, found: Mapping[str, Sequence[TaskScores]], kind: str
) -> None:
    """Add bars with intervals, and a radar of three or more tasks or topics."""
    values: Values = [
        {
            "row": each.task.replace("_", " "),
            "line": each.model,
            "chance": 100 * each.chance or None,
            **{name: 100 * getattr(each.interval, name) for name in ("value", "low", "high")},
        }
        for own in found.values()
        for each in own
    ]
    if len({each["row"] for each in values}) > MOST_BARS:
        return
    caption = f"Score of each {kind} with its 95 % interval; red: guessing."
    section.chart(spans(values, "score %", bars=True, domain=[0, 100]), caption)
    spokes = [each for each in values if each["row"] != ALL]
    num = len({each["row"] for each in spokes})
    if num > 2 and len(spokes) == num * len(found):
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
    section: ReportSection,
    found: Mapping[str, Sequence[TaskScores]],
    sealed: Artifact | None,
    student: str = "",
) -> None:
    """Add differences, drawn and in numbers; sealed ones say what they show."""
    first = next(iter(found))
    others = [name for name in found if name != (student or first)]
    results = []
    for one, other in ((name, student) if student else (first, name) for name in others):
        some = differences(found[one], found[other])
        if not some:
            section.text(f"{other} and {one} have scores by different metrics: not compared.")
        results += [(f"{other} minus {one}", each) for each in some]
        if len(some) <= MOST_BARS and any(each.low is not None for each in some):
            section.chart(draw_differences(some), f"{other} minus {one}, with 95 % intervals.")
    more = {}
    declared = None if sealed is None else SealConfig.model_validate(sealed.record.config)
    if declared is not None and found[first][0].protocol.metric == declared.metric:
        smallest = declared.smallest_difference
        more["smallest of interest"] = [of_interest(each, smallest) for _, each in results]
    section.table(differences_table(results, more))


def score_rows(
    found: Mapping[str, Sequence[TaskScores]],
) -> Iterator[tuple[dict[str, Any], set[str]]]:
    """Yield one row per task and model, and which of its rates are red.

    A rate is red if it could reverse the difference to the first model's score on the task.
    """
    first, *others = found.values()
    for own in first:
        pairs: list[tuple[TaskScores, TaskScores | None]] = [(own, None)]
        pairs += [
            (each, own)
            for tasks in others
            for each in tasks
            if (each.suite, each.task) == (own.suite, own.task)
        ]
        for score, other in pairs:
            yield _score_row(score), {f"{name} %" for name in red_rates(score, other)}


def _score_row(score: TaskScores) -> dict[str, Any]:
    protocol = score.protocol
    is_written = protocol.method == "generate"
    form = [protocol.form, *([] if is_written else ["likelihood"])]
    more = (f"{name} {percent(v)}" for name, v in score.metrics.items() if name != "strict")
    return {
        "task": f"{score.suite} {score.task}".replace("_", " "),
        "model": score.model,
        "n": f"{score.n:,}" + (f" x {score.num_samples}" if score.num_samples > 1 else ""),
        "score %": score.interval.value,
        "95 % interval": percent_interval(score.interval.low, score.interval.high),
        "form": " ".join([*form, *sorted(score.metric_names - {"accuracy"})]),
        "chance %": score.chance or None,
        "against guessing": AGAINST_GUESSING[score.against_guessing] if score.chance else None,
        "strict %": score.strict,
        **{f"{name} %": score.rate(name) for name in RATES},
        "length": round(mean(e.response_tokens for e in score.scores)) if is_written else None,
        "budget": protocol.sampling.max_new_tokens if is_written else None,
        "other metrics %": ", ".join(more),
    }


def samples_section(
    sampled: Mapping[str, Artifact], seen: Mapping[str, ItemOverlap] | None
) -> ReportSection:
    """Several samples of each response: the mean, its error between samples, pass@k, majority."""
    section = ReportSection(
        "Samples",
        "Sampled responses, beside the greedy ones above. The first sample alone is the setting of "
        "the Orca paper: one response at temperature 0.7.",
    )
    section.rows(
        {
            **{name: _score_row(score)[name] for name in list(_score_row(score))[:5]},
            "error between samples": f"{100 * figures.error:.2f}",
            "first sample %": figures.first,
            "pass@k %": ", ".join(f"{k}: {percent(value)}" for k, value in figures.pass_at.items()),
            "majority %": figures.majority,
            "variance of items": figures.variance and figures.variance.items,
            "variance of samples": figures.variance and figures.variance.samples,
        }
        for name, artifact in sampled.items()
        for score in task_scores(name, artifact, seen)
        if (figures := score.samples) is not None
    )
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
        if any(each.task != ALL for each in tasks):
            chosen, best = best_per_task(tasks)
            section.text(
                f"{model}: macro average {percent(chosen)} % with a chosen message for each task, "
                f"{percent(best)} % with the best one on the test items."
            )
        section.rows(
            (
                {
                    "task": f"{each.suite} {each.task}".replace("_", " "),
                    "n": each.n,
                    **{name: percent(value) for name, value in each.by_message.items()},
                    "chosen %": each.chosen,
                    "best on test %": each.best_on_test,
                    "best": each.best if each.num_best == 1 else f"{each.num_best} messages tie",
                }
                for each in tasks
            ),
            f"Accuracy % of {model}.",
        )
    return section


def swept_tasks(swept: Mapping[str, Artifact]) -> dict[str, list[SweptTask]]:
    """Return each model's tasks under every message, from scores by `model.message`."""
    by_model: dict[str, dict[str, list[TaskScores]]] = {}
    for name, artifact in swept.items():
        model, _, message = name.rpartition(".")
        by_model.setdefault(model, {})[message] = task_scores(model, artifact)
    return {model: sweep(scores) for model, scores in by_model.items()}


def published_section(suites: Sequence[str]) -> list[ReportSection]:
    """The papers' figures on the suites, each with its protocol; they are paired with nothing."""
    section = ReportSection(
        "Published results",
        "Figures as the papers print them, in percent: other weights and protocols, single runs "
        "without intervals. They are compared with no score of this run.",
    )
    for suite in suites:
        rows: dict[tuple[str, str], dict[str, str]] = {}
        tasks = dict.fromkeys((each.task for each in published(suite)), "")
        for each in published(suite):
            row = {"source": each.source, "model": each.model, **tasks, "protocol": each.note}
            key = each.source, each.model
            rows.setdefault(key, row)[each.task] = f"{each.percent:g}"
        section.rows(rows.values(), suite)
    return [section] if section.blocks else []
