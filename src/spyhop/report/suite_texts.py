"""Texts of a suite: its first prompt as sent, and items on which two models differ."""

from collections.abc import Mapping, Sequence
from itertools import islice

from spyhop.evaluate import Protocol, TaskScores
from spyhop.evaluate.asking import option_requests, request_of, user_turn
from spyhop.evaluate.comparison import Disagreement
from spyhop.evaluate.logs import LogRow
from spyhop.report.html import ReportSection, Turn
from spyhop.schema import Item, Score

NUM_ROWS = 3
"""Disagreements of each pair of models and side."""
Pairs = dict[str, tuple[Score, Score]]


def add_first_prompt(section: ReportSection, item: Item, protocol: Protocol) -> None:
    """Add the first prompt of a suite, verbatim: turns, begun response, options."""
    is_written = protocol.method == "generate"
    request = request_of(item, 0, protocol) if is_written else option_requests(item, protocol)[0]
    more = {"plain text": request.text, "assistant (begun)": request.continuation}
    more |= {f"option {n}": f"{text!r}" for n, text in enumerate(request.options, 1)}
    added = [Turn(role, text) for role, text in more.items() if text]
    note = f"The first prompt, verbatim: {item.task}, item {item.id}, form {protocol.form}"
    note = note if is_written else f"{note}, likelihood of the options"
    section.conversation([*request.messages, *added], note)


def disagreeing(first: TaskScores, second: TaskScores) -> tuple[Pairs, Pairs]:
    """Return items on which the second is better, and on which it is worse, by their ids.

    Those of the lowest ids, which are digests: a fixed random sample.
    """
    own, others = ({score.id: score for score in each.firsts} for each in (first, second))
    pairs = {name: (own[name], others[name]) for name in sorted(own.keys() & others.keys())}
    better = ((name, pair) for name, pair in pairs.items() if pair[1].value > pair[0].value)
    worse = ((name, pair) for name, pair in pairs.items() if pair[1].value < pair[0].value)
    return dict(islice(better, NUM_ROWS)), dict(islice(worse, NUM_ROWS))


def add_disagreements(
    section: ReportSection, totals: Sequence[TaskScores], items: Mapping[str, Item]
) -> None:
    """Add a few items on which the first model and another differ, either way round."""
    first, *others = totals
    for other in others:
        for place, pairs in enumerate(disagreeing(first, other)):
            better, worse = (first, other) if place else (other, first)
            rows = [
                Disagreement(
                    task=one.task.replace("_", " "),
                    first_value=one.value,
                    second_value=two.value,
                    first=_log_row(one, items[name], first.protocol),
                    second=_log_row(two, items[name], other.protocol),
                )
                for name, (one, two) in pairs.items()
                if name in items
            ]
            if rows:
                section.text(f"{better.model} is better than {worse.model}: a fixed random sample.")
                section.disagreements(rows, (first.model, other.model))


def _log_row(score: Score, item: Item, protocol: Protocol) -> LogRow:
    return LogRow(
        task=score.task,
        item=score.id,
        values={score.metric: score.value},
        question=user_turn(item, protocol),
        response=score.response,
        answer=score.extracted,
        gold=score.target,
        topic=score.topic,
    )
