"""Figures of an experiment with arms: accuracies, differences, and what may be said of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from spyhop.report.html import cell as shown
from spyhop.schema import Config, Score
from spyhop.statistics import (
    Comparison,
    Interval,
    paired_difference,
    paired_seed_difference,
    seed_interval,
    seed_item_difference,
    wilson,
)
from spyhop.store import Artifacts
from spyhop.train import read_metrics, read_speed

ALL = "all"
NO_DIFFERENCE = "no difference shown"


class ArmRun(Config):
    """Setting, arm and seed of one scores artifact."""

    setting: str
    arm: str
    seed: int
    phases: tuple[str, ...]
    """Names of its training phases among the page's `students`, in order."""
    share: float = 1.0
    """Share of the training after which it was measured."""


class ArmPair(Config):
    """Two arms to compare on the same items; the difference is second minus first."""

    first: str
    second: str


class Cell(NamedTuple):
    """An accuracy: of one arm on one family (or all), for one seed (or all)."""

    n: int
    interval: Interval
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One scores artifact, item by item in their fixed order."""

    run: ArmRun
    scores: tuple[Score, ...]
    tokens: int
    """Tokens the student has seen when it was measured, all its stages together."""
    seconds: float
    """Training time, all stages together."""

    def correct(self, family: str) -> npt.NDArray[np.int64]:
        """Right (1) or wrong (0) for each item of a family, or of all; (items,)."""
        return np.array([int(s.correct) for s in self.scores if family in (ALL, s.task)])

    def cell(self, family: str) -> Cell:
        """Return the accuracy on a family, with an interval over items."""
        right = self.correct(family)
        return Cell(len(right), wilson(int(right.sum()), len(right)), self.tokens, self.seconds)


class Experiment:
    """All measurements of one setting."""

    def __init__(
        self,
        name: str,
        measured: Sequence[Measured],
        titles: Mapping[str, str],
        pairs: Sequence[ArmPair],
    ) -> None:
        self.name = name
        self._titles = titles
        self._final = [each for each in measured if each.run.share == 1.0]
        followed = {each.run.arm for each in measured if each.run.share < 1.0}
        self.curve = [each for each in measured if each.run.arm in followed]
        self.arms = list(dict.fromkeys(each.run.arm for each in self._final))
        self.pairs = [pair for pair in pairs if {pair.first, pair.second} <= set(self.arms)]
        self.seeds = sorted({each.run.seed for each in self._final})
        self._items = self._final[0].scores
        self.families = list(dict.fromkeys(score.task for score in self._items))
        self.num_items = len(self._items)

    def title(self, arm: str) -> str:
        """Return what an arm is called."""
        return self._titles.get(arm, arm)

    def chance(self, family: str = ALL) -> float:
        """Accuracy of a uniform guess."""
        return float(np.mean([s.chance for s in self._items if family in (ALL, s.task)]))

    def of(self, arm: str) -> list[Measured]:
        """Return the final measurements of an arm, in the order of seeds."""
        found = [each for each in self._final if each.run.arm == arm]
        return sorted(found, key=lambda each: each.run.seed)

    def cell(self, arm: str, family: str) -> Cell:
        """Return an accuracy over all seeds, with an interval over items and seeds.

        The seeds share their items, so two sources of chance remain: Wilson's interval over the
        items of one seed, and the t-interval over seeds. The wider limit of both is given.
        """
        found, grid = self.of(arm), self._grid(arm, family)
        num_items, value = grid.shape[1], float(grid.mean())
        limits = [wilson(round(value * num_items), num_items)]
        if len(found) > 1:
            limits.append(seed_interval(grid.mean(axis=1).tolist()))
        low, high = min(each.low for each in limits), max(each.high for each in limits)
        interval = Interval(value=value, low=max(0.0, low), high=min(1.0, high))
        tokens, seconds = np.mean([(each.tokens, each.seconds) for each in found], axis=0)
        return Cell(grid.size, interval, round(tokens), float(seconds))

    def responses(self, arm: str) -> tuple[float, float, float]:
        """Return shares of responses with an answer and with an end, and their mean tokens."""
        found = [
            (score.extracted is not None, score.ending == "whole", score.response_tokens)
            for each in self.of(arm)
            for score in each.scores
        ]
        answered, ended, tokens = np.mean(found, axis=0)
        return float(answered), float(ended), float(tokens)

    def not_above_guessing(self, arm: str) -> list[str]:
        """Return the families in which the arm's interval reaches down to guessing."""
        lows = {family: self.cell(arm, family).interval.low for family in self.families}
        return [family for family, low in lows.items() if low <= self.chance(family)]

    def results(self) -> Iterator[dict[str, Any]]:
        """Yield every arm's accuracy as plain data, per family, over all seeds and for each."""
        for arm, family in product(self.arms, (ALL, *self.families)):
            cells: dict[str | int, Cell] = {ALL: self.cell(arm, family)}
            cells |= {each.run.seed: each.cell(family) for each in self.of(arm)}
            for seed, (n, found, tokens, seconds) in cells.items():
                yield {
                    "setting": self.name, "arm": arm, "family": family, "seed": seed, "n": n,
                    "accuracy": found.value, "low": found.low, "high": found.high,
                    "chance": self.chance(family), "tokens": tokens, "seconds": round(seconds, 1),
                }  # fmt: skip

    def difference(self, pair: ArmPair, family: str = ALL) -> Comparison:
        """Return second minus first, paired by item, and by seed where there are several.

        With one seed: Tango's interval and McNemar's exact test over items. With several: an
        interval over seeds and items at once, and the paired t-test over seeds.
        """
        first, second = self._grid(pair.first, family), self._grid(pair.second, family)
        if len(first) == 1:
            return paired_difference(first[0], second[0])
        test = paired_seed_difference(first.mean(axis=1).tolist(), second.mean(axis=1).tolist())
        return Comparison(difference=seed_item_difference(first, second), p_value=test.p_value)

    def _grid(self, arm: str, family: str) -> npt.NDArray[np.int64]:
        """Right or wrong, (seeds, items)."""
        return np.stack([each.correct(family) for each in self.of(arm)])


def read_measured(
    runs: Mapping[str, ArmRun], scores: Artifacts, students: Artifacts
) -> dict[str, list[Measured]]:
    """Return the measurements by setting, in the order of the scores."""
    measured: dict[str, list[Measured]] = {}
    for name, artifact in scores.items():
        run = runs[name]
        stages = [students[phase] for phase in run.phases]
        tokens = round(run.share * sum(read_metrics(stage)["tokens"] for stage in stages))
        seconds = run.share * sum(read_speed(stage)["seconds"] for stage in stages)
        each = Measured(run, tuple(artifact.rows(Score)), tokens, seconds)
        measured.setdefault(run.setting, []).append(each)
    return measured


def points(interval: Interval) -> str:
    """Return a difference of shares in percentage points, with its interval."""
    return str(shown(interval, "points"))


def verdict(interval: Interval) -> str:
    """Return whether a difference differs from zero."""
    if interval.low > 0:
        return "better"
    return "worse" if interval.high < 0 else NO_DIFFERENCE
