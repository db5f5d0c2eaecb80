"""Scores of one model, task by task: accuracy, interval, answered share, and chance."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spyhop.evaluate import ItemOverlap
from spyhop.schema import Score
from spyhop.statistics import Interval, near_chance, wilson
from spyhop.store import Artifact

ALL = "all"
LUCK = 0.025
"""Share of tasks on which a model that guesses is found above guessing."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Share of items found in the training rows, and the accuracy on the others."""

    exact: float
    long: float
    short: float
    """Shares of the items that are found whole, by a long run of words, by a short one; each
    counts what the one before it finds."""
    num_without_long: int
    without_long: float | None
    """Accuracy on the items that neither the question nor a long run gives away; None without
    such items."""
    num_clean: int
    clean: float | None
    """The same without short runs either."""


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
    shared: Shared | None = None
    """None where the training rows were not looked through."""


def task_results(
    model: str, scores: Artifact, seen: Mapping[str, ItemOverlap] | None = None
) -> list[TaskResult]:
    """Return the results of every task, after each suite's own total.

    Args:
        model: Its name.
        scores: Its answers to the items.
        seen: By the id of the item, what the training rows hold of it.
    """
    groups: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for score in scores.rows(Score):
        groups[score.suite, ALL].append(score)
        groups[score.suite, score.task].append(score)
    order = sorted(groups, key=lambda group: (group[0], group[1] != ALL, group[1]))
    return [_result(model, *group, groups[group], seen) for group in order]


def chance_sentence(results: list[TaskResult]) -> str:
    """Say whether a model's results differ from guessing."""
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


def _result(
    model: str, suite: str, task: str, found: list[Score], seen: Mapping[str, ItemOverlap] | None
) -> TaskResult:
    correct, n = sum(score.correct for score in found), len(found)
    test = near_chance(correct, n, [score.chance for score in found])
    answered = sum(score.extracted is not None for score in found) / n
    shared = None if seen is None else _shared(found, seen)
    return TaskResult(
        model, suite, task, n, wilson(correct, n), answered, test.chance, test.verdict, shared
    )


def _shared(found: list[Score], seen: Mapping[str, ItemOverlap]) -> Shared:
    matches = [seen[score.id] for score in found]
    pairs = list(zip(found, matches, strict=True))
    without_long = [score.correct for score, match in pairs if not match.has_long]
    clean = [score.correct for score, match in pairs if not match.has_any]
    n = len(found)
    return Shared(
        exact=sum(match.is_exact for match in matches) / n,
        long=1 - len(without_long) / n,
        short=1 - len(clean) / n,
        num_without_long=len(without_long),
        without_long=_mean(without_long),
        num_clean=len(clean),
        clean=_mean(clean),
    )


def _mean(found: Sequence[bool]) -> float | None:
    return sum(found) / len(found) if found else None
