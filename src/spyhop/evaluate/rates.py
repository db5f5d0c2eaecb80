"""Scores with what is needed to believe them, and which rates could reverse a difference.

Six rates belong to each score: its n and interval, extraction, replies cut by length, refused or
empty ones, and contaminated items (`evaluate.contamination`); failed calls are counted, too.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
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
FOLDS = 10
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
        return [score.id for score in self.firsts]

    @cached_property
    def values(self) -> np.ndarray:
        """Score of each item and sample, (items, samples)."""
        return np.reshape([score.value for score in self.scores], (-1, self.num_samples))

    @cached_property
    def means(self) -> np.ndarray:
        """Score of each item, the mean of its samples, (items,)."""
        return np.asarray(self.values.mean(axis=1))

    @cached_property
    def firsts(self) -> Sequence[Score]:
        """The first sample of each item."""
        return self.scores[:: self.num_samples]

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
        passages = [score.passage or score.id for score in self.firsts]
        num, is_binary = len(set(passages)), np.isin(self.means, (0, 1)).all()
        if num < 2 or (num == self.n and is_binary):
            return wilson(round(float(self.means.sum())), self.n)
        return cluster_interval(self.means, passages).of_scores()

    @cached_property
    def against_guessing(self) -> Literal["above", "near", "below"]:
        """Whether the right answers, of all samples, differ from guessing by an exact test."""
        right, chances = zip(*((score.correct, score.chance) for score in self.scores), strict=True)
        return near_chance(sum(right), len(right), chances).verdict

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
        names = sorted(set.intersection(*(set(score.metrics) for score in self.scores)))
        return {n: float(np.mean([score.metrics[n] for score in self.scores])) for n in names}

    def touched(self, rate: str) -> np.ndarray:
        """Return which responses a rate touches, (items, samples) of bool."""
        if rate == "no answer":
            found = [s.extracted is None or "tied" in s.metrics for s in self.scores]
        elif rate == "contaminated":
            overlaps = map((self.overlaps or {}).get, (score.id for score in self.scores))
            found = [each is not None and each.has_long for each in overlaps]
        else:
            endings = {"refused": ("refused", "empty")}.get(rate, (rate,))
            found = [score.ending in endings for score in self.scores]
        return np.reshape(found, (-1, self.num_samples))

    def rate(self, rate: str) -> float | None:
        """Return a rate's share of the responses; None for contamination that is unknown."""
        is_unknown = rate == "contaminated" and self.overlaps is None
        return None if is_unknown else float(self.touched(rate).mean())

    @cached_property
    def samples(self) -> "SampleFigures | None":
        """Figures of several samples per item; None with a single one."""
        if self.num_samples == 1:
            return None
        k, counts = self.num_samples, self.values.sum(axis=1).astype(int).tolist()
        is_binary = np.isin(self.values, (0, 1)).all()
        items = [self.scores[start : start + k] for start in range(0, len(self.scores), k)]
        votes = [([s.extracted for s in some], [s.correct for s in some]) for some in items]
        by_sample = self.values.mean(axis=0)
        return SampleFigures(
            first=float(by_sample[0]),
            error=float(by_sample.std(ddof=1)) / k**0.5,
            pass_at={n: pass_at_k(counts, k, n) for n in (1, k) if is_binary},
            majority=float(np.mean([majority_correct(*each) for each in votes])),
            variance=variance_split(self.values[None]) if self.n > 1 else None,
        )


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
    found = []
    for suite, task in sorted(groups, key=lambda group: (group[0], group[1] != ALL, group[1])):
        rows = tuple(groups[suite, task])
        samples = [score.sample_index for score in rows]
        num = 1 + max(samples)
        if samples != list(range(num)) * (len(rows) // num):
            raise InputError(f"{model}, {suite} {task}: items differ in their number of samples")
        found.append(TaskScores(model, suite, task, config.protocol(suite), rows, num, overlaps))
    return found


def chance_sentence(scores: Sequence[TaskScores]) -> str:
    """Say whether a model's results differ from guessing."""
    verdicts = [each.against_guessing for each in scores if each.task != ALL]
    above, below, num = verdicts.count("above"), verdicts.count("below"), len(verdicts)
    is_above = any(each.against_guessing == "above" for each in scores if each.task == ALL)
    is_above = is_above or near_chance(above, num, LUCK).verdict == "above"
    return (
        f"{scores[0].model}: above guessing on {above} of {num} tasks, "
        f"below it on {below}; luck alone would give about {LUCK * num:.1f} each."
        + ("" if is_above else " Not above chance: its scores say nothing about reasoning.")
    )


def macro_average(tasks: Sequence[TaskScores]) -> Interval:
    """Return the unweighted mean over a suite's tasks; its own total is the micro average."""
    return macro_interval([each.means.tolist() for each in tasks if each.task != ALL]).of_scores()


def could_reverse(
    first: np.ndarray, second: np.ndarray, in_first: np.ndarray, in_second: np.ndarray
) -> bool:
    """Return whether the items that a rate touches could reverse the sign of a difference.

    The difference is that of the means of two models' scores, (items,), second minus first; which
    of them are touched is (items,) of bool. Each touched score might be anything from 0 to 1, and
    takes the value that speaks most against the difference.
    """
    sign = 1.0 if float((second - first).mean()) >= 0 else -1.0
    worst_first = np.where(in_first, float(sign > 0), first)
    worst_second = np.where(in_second, float(sign < 0), second)
    return sign * float((worst_second - worst_first).mean()) < 0


def red_rates(score: TaskScores, other: TaskScores | None = None) -> list[str]:
    """Return the rates whose items could reverse a score's difference to another, or to a guess."""
    a, b = (slice(None), slice(None)) if other is None else common_items(other, score)
    first = np.array([each.chance for each in score.firsts]) if other is None else other.means[a]
    found: list[str] = []
    for rate in RATES:
        here = np.max(score.touched(rate), axis=1)[b]
        there = np.zeros_like(here) if other is None else np.max(other.touched(rate), axis=1)[a]
        found += [rate] if could_reverse(first, score.means[b], there, here) else []
    return found


def differences(first: Sequence[TaskScores], second: Sequence[TaskScores]) -> list[PairedResult]:
    """Compare two models task by task on their common items, second minus first.

    P-values of a suite's tasks are adjusted for their number (Holm); its total is a test of its
    own. Samples of an item are averaged. Tasks that the models were scored on by different metrics
    (an endpoint without log-probabilities has only `acc`) are not compared; tasks without common
    items are an error.
    """
    others = {(each.suite, each.task): each for each in first}
    by_suite: dict[str, list[PairedResult]] = defaultdict(list)
    for each in second:
        other = others.get((each.suite, each.task))
        if other is not None and each.metric_names == other.metric_names:
            a, b = common_items(other, each)
            passages, name = [each.firsts[n].passage for n in b], f"{each.suite} {each.task}"
            found = paired_result(name, other.means[a], each.means[b], passages)
            by_suite[each.suite].append(found)
    return [each for both in by_suite.values() for each in (*both[:1], *with_holm(both[1:]))]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptTask:
    """One task under every system message."""

    suite: str
    task: str
    n: int
    by_message: dict[str, float]
    """Score by the message's id."""
    chosen: float
    """Score where each tenth of the items is asked under the best message of the other nine."""
    best: str
    """The message of the highest score on these very items: the paper's choice."""
    num_best: int
    """Messages that tie for it."""

    @property
    def best_on_test(self) -> float:
        """Score under the message that was chosen on the test items: biased upwards."""
        return max(self.by_message.values())


def sweep(scores: Mapping[str, Sequence[TaskScores]]) -> list[SweptTask]:
    """Return every task under every system message, by the message's id.

    The Orca paper (arXiv:2306.02707, section 6.1) takes the message that is best on the test items
    themselves. Here it is chosen on other items than those it is scored on, and the paper's figure
    is beside it. A suite's total chooses one message for all tasks.
    """
    found = []
    for group in zip(*scores.values(), strict=True):
        first = group[0]
        if any(each.ids != first.ids or each.task != first.task for each in group):
            raise InputError(f"{first.suite} {first.task}: the messages were asked other items")
        values_MI = np.stack([each.means for each in group])
        means = dict(zip(scores, values_MI.mean(axis=1).tolist(), strict=True))
        ties = [name for name, mean in means.items() if mean == max(means.values())]
        passages = [score.passage or score.id for score in first.firsts]  # of one fold each
        folds_I = np.array([sha256(name.encode()).digest()[0] % FOLDS for name in passages])
        total = 0.0
        for fold in np.unique(folds_I):
            is_here = folds_I == fold
            others = values_MI[:, ~is_here]
            scored = others.mean(axis=1) if others.size else np.zeros(len(values_MI))
            is_best = np.isclose(scored, scored.max())  # messages that tie share the fold
            total += float(values_MI[is_best][:, is_here].mean(axis=0).sum())
        swept = SweptTask(
            suite=first.suite, task=first.task, n=first.n, by_message=means,
            chosen=total / first.n, best=ties[0], num_best=len(ties),
        )  # fmt: skip
        found.append(swept)
    return found


def best_per_task(tasks: Sequence[SweptTask]) -> tuple[float, float]:
    """Return macro averages over tasks with a message for each: chosen, and best on the test."""
    rows = [(each.chosen, each.best_on_test) for each in tasks if each.task != ALL]
    chosen, best = np.mean(rows, axis=0).tolist()
    return chosen, best


def common_items(first: TaskScores, second: TaskScores) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the common items in both."""
    places = {row_id: place for place, row_id in enumerate(first.ids)}
    pairs = [(places[row_id], n) for n, row_id in enumerate(second.ids) if row_id in places]
    if not pairs:
        raise InputError(f"{first.model} and {second.model} have no {first.task} items in common")
    a, b = np.array(pairs).T
    return a, b
