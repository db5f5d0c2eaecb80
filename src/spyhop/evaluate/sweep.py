"""Which system message to ask under: accuracy by task and message, and an honest choice.

The Orca paper (arXiv:2306.02707, section 6.1) takes the message that is best on the test items
themselves. Here the message is chosen on other items than those it is scored on, and the paper's
figure stands beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from spyhop.evaluate.rates import ALL, TaskScores
from spyhop.schema import InputError

FOLDS = 10


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
    """Return every task under every message; a suite's total chooses one message for all tasks."""
    found = []
    for group in zip(*scores.values(), strict=True):
        first = group[0]
        if any(each.ids != first.ids or each.task != first.task for each in group):
            raise InputError(f"{first.suite} {first.task}: the messages were asked other items")
        values_MI = np.stack([each.means for each in group])
        means = dict(zip(scores, values_MI.mean(axis=1).tolist(), strict=True))
        ties = [name for name, mean in means.items() if mean == max(means.values())]
        passages = [score.passage or score.id for score in first.firsts]
        found.append(
            SweptTask(
                suite=first.suite, task=first.task, n=first.n, by_message=means,
                chosen=_cross_validated(values_MI, passages), best=ties[0], num_best=len(ties),
            )
        )  # fmt: skip
    return found


def best_per_task(tasks: Sequence[SweptTask]) -> tuple[float, float]:
    """Return macro averages over tasks with a message for each: chosen, and best on the test."""
    rows = [(each.chosen, each.best_on_test) for each in tasks if each.task != ALL]
    if not rows:
        raise ValueError("a macro average of no tasks")
    chosen, best = np.mean(rows, axis=0).tolist()
    return chosen, best


def _cross_validated(values_MI: np.ndarray, passages: Sequence[str]) -> float:
    """Return the mean score under the message that is best on the other folds; ties share it.

    Items that share a passage are in one fold.
    """
    folds_I = np.array([sha256(name.encode()).digest()[0] % FOLDS for name in passages])
    total = 0.0
    for fold in np.unique(folds_I):
        is_here = folds_I == fold
        others = values_MI[:, ~is_here]
        means = others.mean(axis=1) if others.size else np.zeros(len(values_MI))
        is_best = np.isclose(means, means.max())
        total += float(values_MI[is_best][:, is_here].mean(axis=0).sum())
    return total / int(values_MI.shape[1])
