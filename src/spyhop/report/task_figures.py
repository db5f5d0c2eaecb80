"""Scores of one model, task by task: accuracy, interval, answered share, and chance."""

from collections import defaultdict
from dataclasses import dataclass

from spyhop.schema import Score
from spyhop.statistics import Interval, near_chance, wilson
from spyhop.store import Artifact

ALL = "all"
LUCK = 0.025
"""Share of tasks on which a model that guesses is found above guessing."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A model's result on one task, or on all tasks of a suite."""

    model: str
    suite: str
    task: str
    n: int
    interval: Interval
    answered: float
    """Share of responses in which an answer was found."""
    chance: float
    verdict: str
    """`above`, `near` or `below` guessing, by an exact test."""


def task_results(model: str, scores: Artifact) -> list[TaskResult]:
    """Return the results of every task, after each suite's own total."""
    groups: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for score in scores.rows(Score):
        groups[score.suite, ALL].append(score)
        groups[score.suite, score.task].append(score)
    order = sorted(groups, key=lambda group: (group[0], group[1] != ALL, group[1]))
    return [_result(model, *group, groups[group]) for group in order]


def chance_sentence(results: list[TaskResult]) -> str:
    """Say whether a model's results can be told from guessing at all."""
    tasks = [result for result in results if result.task != ALL]
    verdicts = [result.verdict for result in tasks]
    above, below, by_luck = verdicts.count("above"), verdicts.count("below"), LUCK * len(tasks)
    totals = [result.verdict for result in results if result.task == ALL]
    found = (
        f"{results[0].model}: above guessing on {above} of {len(tasks)} tasks, "
        f"below it on {below}; luck alone would give about {by_luck:.1f} each."
    )
    if "above" in totals or near_chance(above, len(tasks), LUCK).verdict == "above":
        return found
    return f"{found} Not above chance: its scores say nothing about reasoning."


def _result(model: str, suite: str, task: str, found: list[Score]) -> TaskResult:
    correct, n = sum(score.correct for score in found), len(found)
    test = near_chance(correct, n, [score.chance for score in found])
    answered = sum(score.extracted is not None for score in found) / n
    return TaskResult(
        model, suite, task, n, wilson(correct, n), answered, test.chance, test.verdict
    )
