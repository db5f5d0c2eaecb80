"""Scores with what is needed to believe them, and which rates could reverse a difference.

Six rates belong to each score: its n and interval, extraction, replies cut by length, refused or
empty ones, and contaminated items (`evaluate.contamination`); failed calls are counted, too.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from spyhop.evaluate.comparison import PairedResult, paired_result, with_holm
from spyhop.evaluate.contamination import ItemOverlap
from spyhop.evaluate.measure import MeasureConfig
from spyhop.evaluate.task import Protocol
from spyhop.schema import InputError, Score
from spyhop.statistics import (
    Interval,
    VarianceSplit,
    cluster_interval,
    macro_interval,
    majority_correct,
    near_chance,
    pass_at_k,
    variance_split,
    wilson,
)
from spyhop.store import Artifact

ALL = "all"
LUCK = 0.025
"""Share of tasks on which a model that guesses is found above guessing."""
RATES = ("no answer", "cut", "refused", "failed", "contaminated")
"""Rates by name; `refused` counts empty replies, too."""


@dataclass(frozen=True)
class TaskScores:
    """The scores of one model on one task, or on all tasks of a suite, sample by sample."""

    model: str
    suite: str
    task: str
    protocol: Protocol
    scores: tuple[Score, ...]
    """Item by item, then sample by sample; every item has as many."""
    num_samples: int
    overlaps: Mapping[str, ItemOverlap] | None = None
    """By the item's id, what the training rows contain of it; None where that is unknown."""

    @property
    def n(self) -> int:
        """Number of items."""
        return len(self.ids)

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the items, in order."""
        return [score.id for score in self.scores[:: self.num_samples]]

    @cached_property
    def values(self) -> np.ndarray:
        """Score of each item and sample, (items, samples)."""
        return _by_sample([score.value for score in self.scores], self.num_samples)

    @cached_property
    def chance(self) -> float:
        """Mean accuracy of a uniform guess."""
        return float(np.mean([score.chance for score in self.scores]))

    @cached_property
    def interval(self) -> Interval:
        """Mean over items with its interval.

        Items that share a passage are resampled together. Else it is Wilson's for right and wrong;
        several samples and other measures are resampled item by item.
        """
        firsts = self.scores[:: self.num_samples]
        means = self.values.mean(axis=1)
        passages = [score.passage or score.id for score in firsts]
        if len(set(passages)) < 2 or (
            len(set(passages)) == self.n and np.isin(means, (0, 1)).all()
        ):
            return wilson(round(float(means.sum())), self.n)
        return cluster_interval(means, passages)

    @cached_property
    def against_guessing(self) -> Literal["above", "near", "below"]:
        """Whether the right answers, of all samples, differ from guessing by an exact test."""
        right = sum(score.correct for score in self.scores)
        chances = [score.chance for score in self.scores]
        return near_chance(right, len(self.scores), chances).verdict

    @cached_property
    def strict(self) -> float | None:
        """Accuracy under the Orca paper's first capital letter; None for other answers."""
        found = [score.metrics["strict"] for score in self.scores if "strict" in score.metrics]
        return float(np.mean(found)) if found else None

    @property
    def metric_names(self) -> set[str]:
        """Names of the metrics that the items' values are of: one, but for damaged scores."""
        return {score.metric for score in self.scores}

    @property
    def metrics(self) -> dict[str, float]:
        """Mean of every metric that all items have."""
        names = set.intersection(*(set(score.metrics) for score in self.scores))
        return {
            name: float(np.mean([score.metrics[name] for score in self.scores]))
            for name in sorted(names)
        }

    def touched(self, rate: str) -> np.ndarray:
        """Return which items a rate touches, in any sample, (items,) of bool."""
        found = [_is_touched(rate, score, self.overlaps) for score in self.scores]
        return np.asarray(_by_sample(found, self.num_samples).any(axis=1))

    def rate(self, rate: str) -> float | None:
        """Return a rate's share of the responses; None for contamination that is unknown."""
        if rate == "contaminated" and self.overlaps is None:
            return None
        return float(np.mean([_is_touched(rate, score, self.overlaps) for score in self.scores]))

    @cached_property
    def samples(self) -> "SampleFigures | None":
        """Figures of several samples per item; None with a single one."""
        if self.num_samples == 1:
            return None
        k, counts = self.num_samples, self.values.sum(axis=1)
        is_binary = np.isin(self.values, (0, 1)).all()
        answers = [self.scores[start : start + k] for start in range(0, len(self.scores), k)]
        means = self.values.mean(axis=0)
        return SampleFigures(
            first=float(means[0]),
            error=float(means.std(ddof=1)) / k**0.5,
            pass_at={
                n: pass_at_k([int(num) for num in counts], k, n) for n in (1, k) if is_binary
            },
            majority=float(
                np.mean([
                    majority_correct([s.extracted for s in some], [s.correct for s in some])
                    for some in answers
                ])
            ),
            variance=variance_split(self.values[None]) if self.n > 1 else None,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFigures:
    """What several samples per item say."""

    first: float
    """Score of the first sample alone: the Orca paper's setting."""
    error: float
    """Between-sample standard error: of the mean over new samples of the same items."""
    pass_at: dict[int, float]
    """Probability that one of k samples is right, by k; only of right and wrong."""
    majority: float
    variance: VarianceSplit | None


def task_scores(
    model: str, scores: Artifact, overlaps: Mapping[str, ItemOverlap] | None = None
) -> list[TaskScores]:
    """Return a model's scores task by task, after each suite's own total."""
    groups: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for score in scores.rows(Score):
        groups[score.suite, ALL].append(score)
        groups[score.suite, score.task].append(score)
    if not groups:
        raise InputError(f"{scores}: no scores of {model}")
    config = MeasureConfig.model_validate(scores.record.config)
    order = sorted(groups, key=lambda group: (group[0], group[1] != ALL, group[1]))
    return [
        TaskScores(
            model=model,
            suite=suite,
            task=task,
            protocol=config.protocol(suite),
            scores=tuple(groups[suite, task]),
            num_samples=_num_samples(groups[suite, task], f"{model}, {suite} {task}"),
            overlaps=overlaps,
        )
        for suite, task in order
    ]


def chance_sentence(scores: Sequence[TaskScores]) -> str:
    """Say whether a model's results differ from guessing."""
    verdicts = [each.against_guessing for each in scores if each.task != ALL]
    above, below, num = verdicts.count("above"), verdicts.count("below"), len(verdicts)
    found = (
        f"{scores[0].model}: above guessing on {above} of {num} tasks, "
        f"below it on {below}; luck alone would give about {LUCK * num:.1f} each."
    )
    is_above = any(each.against_guessing == "above" for each in scores if each.task == ALL)
    if is_above or near_chance(above, num, LUCK).verdict == "above":
        return found
    return f"{found} Not above chance: its scores say nothing about reasoning."


def macro_average(tasks: Sequence[TaskScores]) -> Interval:
    """Return the unweighted mean over a suite's tasks; its own total is the micro average."""
    rows = [each for each in tasks if each.task != ALL]
    return macro_interval([each.values.mean(axis=1).tolist() for each in rows])


def could_reverse(
    first: np.ndarray, second: np.ndarray, in_first: np.ndarray, in_second: np.ndarray
) -> bool:
    """Return whether the items that a rate touches could reverse the sign of a difference.

    The difference is that of the means, second minus first. Each touched score might be anything
    from 0 to 1, and takes the value that speaks most against the difference.

    Args:
        first: Scores of a model, or of a uniform guess, (items,).
        second: Scores of another model on the same items.
        in_first: Which scores of `first` are touched, (items,) of bool.
        in_second: The same for `second`.
    """
    sign = 1.0 if float((second - first).mean()) >= 0 else -1.0
    worst_first = np.where(in_first, float(sign > 0), first)
    worst_second = np.where(in_second, float(sign < 0), second)
    return sign * float((worst_second - worst_first).mean()) < 0


def red_rates(score: TaskScores, other: TaskScores | None = None) -> list[str]:
    """Return the rates whose items could reverse the difference of a score that is shown.

    Args:
        score: Of one model.
        other: Of the model that it is compared with, on the same items. Default: a uniform guess.
    """
    if other is None:
        chances = [each.chance for each in score.scores[:: score.num_samples]]
        first, second = np.array(chances), score.values.mean(axis=1)
        return [
            rate
            for rate in RATES
            if could_reverse(first, second, np.zeros(score.n, dtype=bool), score.touched(rate))
        ]
    a, b = common_items(other, score)
    first, second = other.values.mean(axis=1)[a], score.values.mean(axis=1)[b]
    return [
        rate
        for rate in RATES
        if could_reverse(first, second, other.touched(rate)[a], score.touched(rate)[b])
    ]


def differences(first: Sequence[TaskScores], second: Sequence[TaskScores]) -> list[PairedResult]:
    """Compare two models task by task on their common items, second minus first.

    P-values of a suite's tasks are adjusted for their number (Holm); its total is a test of its
    own. Samples of an item are averaged. Tasks that the models were scored on by different metrics
    (an endpoint without log-probabilities has only `acc`) are not compared.

    Raises:
        InputError: If the models share no items of a task.
    """
    others = {(each.suite, each.task): each for each in first}
    found = []
    for suite in dict.fromkeys(each.suite for each in second):
        both = [
            _paired(others[suite, each.task], each)
            for each in second
            if each.suite == suite and each.metric_names == _metric_names(others, each)
        ]
        found += [*both[:1], *with_holm(both[1:])]
    return found


def _metric_names(others: Mapping[tuple[str, str], TaskScores], own: TaskScores) -> set[str]:
    other = others.get((own.suite, own.task))
    return set() if other is None else other.metric_names


def _paired(first: TaskScores, second: TaskScores) -> PairedResult:
    a, b = common_items(first, second)
    passages = [each.passage for each in second.scores[:: second.num_samples]]
    return paired_result(
        f"{second.suite} {second.task}",
        first.values.mean(axis=1)[a],
        second.values.mean(axis=1)[b],
        [passages[place] for place in b],
    )


def common_items(first: TaskScores, second: TaskScores) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the common items in both."""
    places = {row_id: place for place, row_id in enumerate(first.ids)}
    pairs = [(places[row_id], n) for n, row_id in enumerate(second.ids) if row_id in places]
    if not pairs:
        raise InputError(f"{first.model} and {second.model} have no {first.task} items in common")
    a, b = np.array(pairs).T
    return a, b


def _is_touched(rate: str, score: Score, overlaps: Mapping[str, ItemOverlap] | None) -> bool:
    if rate == "no answer":
        return score.extracted is None or "tied" in score.metrics
    if rate == "contaminated":
        found = (overlaps or {}).get(score.id)
        return found is not None and found.has_long
    wanted = {"refused": ("refused", "empty")}.get(rate, (rate,))
    return score.ending in wanted


def _by_sample(values: Iterable[float], num_samples: int) -> np.ndarray:
    return np.array(list(values)).reshape(-1, num_samples)


def _num_samples(scores: Sequence[Score], where: str) -> int:
    num = 1 + max(score.sample_index for score in scores)
    if [score.sample_index for score in scores] != list(range(num)) * (len(scores) // num):
        raise InputError(f"{where}: items differ in their number of samples")
    return num
