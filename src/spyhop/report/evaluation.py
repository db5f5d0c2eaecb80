"""The report of an evaluation: scores with their rates, differences, samples, system messages."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from statistics import mean
from typing import Any

from markupsafe import Markup

from spyhop.evaluate import (
    RATES,
    ItemOverlap,
    Protocol,
    SealConfig,
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
from spyhop.evaluate.measure import option_requests, request_of
from spyhop.evaluate.rates import ALL
from spyhop.evaluate.suite import published
from spyhop.report.charts import radar, span, spans
from spyhop.report.comparison import MOST_BARS, differences_table, draw_differences
from spyhop.report.html import (
    ReportSection,
    Table,
    Turn,
    cell,
    percent,
    percent_interval,
    prose,
    section,
)
from spyhop.schema import Item
from spyhop.store import Artifact, Artifacts, rows_of

AGAINST_GUESSING = {
    "above": "above guessing",
    "below": "below guessing",
    "near": "not shown to differ from guessing",
}
Groups = Mapping[str, Sequence[TaskScores]]
"""Tasks or topics of a suite, its total first, by the model's name."""


def scores_sections(
    scores: Artifacts,
    items: Artifacts,
    hidden: Collection[str] = (),
    seen: Mapping[str, ItemOverlap] | None = None,
    sealed: Artifact | None = None,
    notes: Sequence[str] = (),
    student: str = "",
) -> list[ReportSection]:
    """Scores of every model: those of whole suites, then a section for each suite.

    Differences are to the first model, or of the `student` to every other one.
    """
    found = {name: task_scores(name, artifact, seen) for name, artifact in scores.items()}
    guessing = [chance_sentence(own) for own in found.values() if own[0].chance]
    totals = {name: [each for each in own if each.task == ALL] for name, own in found.items()}
    overview = section("scores").text(seal_sentence(scores, sealed), *notes, *guessing)
    sections = [overview.table(scores_table(totals))]
    for suite in dict.fromkeys(each.suite for own in found.values() for each in own):
        groups = {
            name: [each for each in own if each.suite == suite] for name, own in found.items()
        }
        of_suite = {name: own for name, own in groups.items() if own}
        made = suite_section(suite, of_suite, sealed, student)
        first, *_ = next(iter(of_suite.values()))
        if suite in hidden:
            made.text("The texts of this suite stay off the page.")
        else:
            for item in islice((i for i in rows_of(items, Item) if i.id == first.ids[0]), 1):
                add_first_prompt(made, item, first.protocol)
        sections.append(made)
    return sections


def seal_sentence(scores: Artifacts, sealed: Artifact | None) -> str:
    """Say whether a comparison is confirmatory."""
    state = seal_state(scores, sealed)
    return f"{state[:1].upper()}{state[1:]}."


def suite_section(
    suite: str, found: Groups, sealed: Artifact | None, student: str = ""
) -> ReportSection:
    """Every model on the tasks of a suite: charts, rates, differences, topics."""
    made = ReportSection(f"Suite {suite}")
    tasks = {name: own if len(own) > 2 else own[:1] for name, own in found.items()}
    for name, own in tasks.items():
        if len(own) > 1:
            macro = cell(macro_average(own), "%")
            made.text(f"{name}: macro average over {len(own) - 1} tasks {macro} %.")
    topics = {name: topics for name, own in found.items() if (topics := by_topic(own))}
    for groups, kind in ((tasks, "task"), (topics, "topic")):
        if groups:
            _add_charts(made, groups, kind)
            made.table(scores_table(groups))
            if len(groups) > 1:
                _add_differences(made, groups, sealed if kind == "task" else None, student)
    return made


def scores_table(found: Groups) -> Table:
    """Return the table of scores with form, budget and rates beside each."""
    red = Markup('<b class="wrong">{}</b>').format
    return Table.of(
        ({name: red(text) if name in reds else text for name, text in cells.items()}
         for cells, reds in score_rows(found)),
        prose("scores"),
    )  # fmt: skip


def _add_charts(to: ReportSection, found: Groups, kind: str) -> None:
    """Add bars with intervals, and a radar of three or more tasks or topics."""
    values = [
        {"row": each.task.replace("_", " "), "line": each.model,
         "chance": 100 * each.chance or None, **span(each.interval)}
        for own in found.values()
        for each in own
    ]  # fmt: skip
    if len({each["row"] for each in values}) > MOST_BARS:
        return
    caption = f"Score of each {kind} with its 95 % interval; red: guessing."
    to.chart(spans(values, "score %", bars=True, domain=[0, 100]), caption)
    spokes = [each for each in values if each["row"] != ALL]
    num = len({each["row"] for each in spokes})
    if num > 2 and len(spokes) == num * len(found):
        to.chart(radar(spokes), f"Score % of each {kind}; dashed: guessing.")


def by_topic(own: Sequence[TaskScores]) -> list[TaskScores]:
    """Return the total and each topic; nothing where topics are the tasks, or only one."""
    total = own[0]
    topics = sorted({score.topic for score in total.scores})
    pairs = {(score.topic, score.task) for score in total.scores}
    if len(topics) < 2 or len(topics) == len(pairs) == len(own) - 1:
        return []
    some = {topic: tuple(s for s in total.scores if s.topic == topic) for topic in topics}
    return [total, *(replace(total, task=t or "no topic", scores=s) for t, s in some.items())]


def add_first_prompt(to: ReportSection, item: Item, protocol: Protocol) -> None:
    """Add the first prompt of a suite, verbatim: turns, begun response, options."""
    is_written = protocol.method == "generate"
    request = request_of(item, 0, protocol) if is_written else option_requests(item, protocol)[0]
    more = {"plain text": request.text, "assistant (begun)": request.continuation}
    more |= {f"option {n}": f"{text!r}" for n, text in enumerate(request.options, 1)}
    added = [Turn(role, text) for role, text in more.items() if text]
    note = f"The first prompt, verbatim: {item.task}, item {item.id}, form {protocol.form}"
    note = note if is_written else f"{note}, likelihood of the options"
    to.conversation([*request.messages, *added], note)


def _add_differences(
    to: ReportSection, found: Groups, sealed: Artifact | None, student: str
) -> None:
    """Add differences, drawn and in numbers; sealed ones say what they show."""
    first = next(iter(found))
    others = [name for name in found if name != (student or first)]
    results = []
    for one, other in ((name, student) if student else (first, name) for name in others):
        some = differences(found[one], found[other])
        if not some:
            to.text(f"{other} and {one} have scores by different metrics: not compared.")
        results += [(f"{other} minus {one}", each) for each in some]
        if len(some) <= MOST_BARS and any(each.low is not None for each in some):
            to.chart(draw_differences(some), f"{other} minus {one}, with 95 % intervals.")
    more = {}
    declared = None if sealed is None else SealConfig.model_validate(sealed.record.config)
    if declared is not None and found[first][0].protocol.metric == declared.metric:
        smallest = declared.smallest_difference
        more["smallest of interest"] = [of_interest(each, smallest) for _, each in results]
    to.table(differences_table(results, more))


def score_rows(found: Groups) -> Iterator[tuple[dict[str, Any], set[str]]]:
    """Yield one row per task and model, and which of its rates are red.

    A rate is red if it could reverse the difference to the first model's score on the task.
    """
    first, *others = found.values()
    for own in first:
        same = (each for tasks in others for each in tasks
                if (each.suite, each.task) == (own.suite, own.task))  # fmt: skip
        for score in (own, *same):
            reds = red_rates(score, None if score is own else own)
            yield _score_row(score), {f"{name} %" for name in reds}


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


def samples_section(sampled: Artifacts, seen: Mapping[str, ItemOverlap] | None) -> ReportSection:
    """Several samples of each response: the mean, its error between samples, pass@k, majority."""
    return section("samples").rows(
        {**dict(list(_score_row(score).items())[:5]),
         "error between samples": f"{100 * figures.error:.2f}", "first sample %": figures.first,
         "pass@k %": ", ".join(f"{k}: {percent(value)}" for k, value in figures.pass_at.items()),
         "majority %": figures.majority,
         "variance of items": figures.variance and figures.variance.items,
         "variance of samples": figures.variance and figures.variance.samples}
        for name, artifact in sampled.items()
        for score in task_scores(name, artifact, seen)
        if (figures := score.samples) is not None
    )  # fmt: skip


def sweep_section(swept: Artifacts) -> ReportSection:
    """Accuracy of each model on each task under each system message, and the honest choice."""
    made, by_model = section("sweep"), dict[str, dict[str, list[TaskScores]]]()
    for name, artifact in swept.items():  # by `model.message`
        model, _, message = name.rpartition(".")
        by_model.setdefault(model, {})[message] = task_scores(model, artifact)
    for model, scores in by_model.items():
        tasks = sweep(scores)
        if any(each.task != ALL for each in tasks):
            chosen, best = best_per_task(tasks)
            made.text(
                f"{model}: macro average {percent(chosen)} % with a chosen message for each task, "
                f"{percent(best)} % with the best one on the test items."
            )
        rows = (
            {"task": f"{each.suite} {each.task}".replace("_", " "), "n": each.n,
             **{name: percent(value) for name, value in each.by_message.items()},
             "chosen %": each.chosen, "best on test %": each.best_on_test,
             "best": each.best if each.num_best == 1 else f"{each.num_best} messages tie"}
            for each in tasks
        )  # fmt: skip
        made.rows(rows, f"Accuracy % of {model}.")
    return made


def published_section(suites: Sequence[str]) -> list[ReportSection]:
    """The papers' figures on the suites, each with its protocol; they are paired with nothing."""
    made = section("published")
    for suite in suites:
        made.rows(published(suite), suite)
    return [made] if made.blocks else []
