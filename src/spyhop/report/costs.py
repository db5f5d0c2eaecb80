"""The cost of a point: gains by training tokens, and by the tokens and dollars spent on rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spyhop.evaluate import outcomes
from spyhop.report.html import ReportSection, section
from spyhop.schema import Score
from spyhop.statistics import Interval, paired_seed_difference
from spyhop.store import Artifact
from spyhop.store.artifact import load

READ, WRITTEN, USD = "prompt_tokens", "response_tokens", "usd"
NOMINAL_USD = {READ: 1e-6, WRITTEN: 4e-6}
"""Dollars of a token of teachers whose file states no price."""
PAID = (
    "tokens read and written",
    "points per million tokens",
    "dollars",
    "points per 1,000 dollars",
)
"""Columns on the models that wrote or rated the rows."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CostedStudent:
    """A student of an arm at one size: its gain, and the cost of its training rows."""

    gains: Floats
    """Of each item, over the base or over guessing; (items,)."""
    cost: Mapping[str, float]
    """Of the models that wrote the rows or rated them."""
    trained: float = 0.0
    """Tokens that the student was trained on."""

    @property
    def tokens(self) -> float:
        """Tokens that these models read and wrote."""
        return self.cost[READ] + self.cost[WRITTEN]

    @property
    def usd(self) -> float:
        """Dollars of these models; at nominal prices where they state none."""
        return self.cost[USD] or sum(price * self.cost[name] for name, price in NOMINAL_USD.items())


def costed(
    root: Path, student: Artifact, scores: Artifact, base: Artifact | None, trained: float
) -> CostedStudent:
    """Return a student's gains, over the base on their common items or over guessing, and cost."""
    after = outcomes([scores])
    if base is None:
        before = {score.id: score.chance for score in scores.rows(Score)}
    else:
        before = outcomes([base])
    gains = [after[name] - before[name] for name in sorted(before.keys() & after.keys())]
    return CostedStudent(np.array(gains), teacher_cost(root, student), trained)


def mean_student(seeds: Sequence[CostedStudent]) -> CostedStudent:
    """Return the mean of an arm's seeds, item by item."""
    cost = {name: float(np.mean([each.cost[name] for each in seeds])) for name in seeds[0].cost}
    gains = np.mean([each.gains for each in seeds], axis=0)
    return CostedStudent(gains, cost, float(np.mean([each.trained for each in seeds])))


def teacher_cost(root: Path, artifact: Artifact) -> dict[str, float]:
    """Return tokens and dollars of the replies behind a student's training rows, and its base's.

    They are a teacher's answers, or the instructions and ratings of web pairs. Replies that several
    artifacts share count for each of them; a filter's share is that of its rows. Answers that were
    dropped are paid for, too.
    """
    record = artifact.record
    found = {name: record.usage.get(name, 0.0) for name in (READ, WRITTEN, USD)}
    names = ("answers", "base", "rows", "pairs", "rated", "chosen", "rejected")
    keys = (each.key for name in names for each in record.inputs.get(name, []))
    for key in dict.fromkeys(keys):
        for made in filter(None, map(load, root.glob(f"*-{key}"))):
            is_part = record.stage == "augment.filter_answers"
            share = artifact.num_rows / max(1, made.num_rows) if is_part else 1.0
            for name, amount in teacher_cost(root, made).items():
                found[name] += share * amount
    if f"asked/{WRITTEN}" in record.counts:
        asked = {name: float(record.counts[f"asked/{name}"]) for name in (READ, WRITTEN)}
        found[USD] *= sum(asked.values()) / max(1.0, found[READ] + found[WRITTEN])
        found |= asked
    return found


def item_slopes(sizes: Sequence[CostedStudent], by: str) -> Floats:
    """Return each item's gain per unit of cost: least squares through the base, at no cost.

    Args:
        sizes: One arm at one size or several, all on the same items.
        by: `usd`, `tokens` or `trained`.
    """
    costs = np.array([getattr(each, by) for each in sizes])
    return np.asarray(costs @ np.stack([each.gains for each in sizes]) / (costs @ costs))


def ranking(arms: Mapping[str, Sequence[CostedStudent]], looks: int) -> tuple[list[str], bool]:
    """Return the arms by points per dollar, best first, and whether that order is resolved.

    Resolved: each arm differs from the next one by a paired t-test over items, at the level 0.05
    over all neighbours and all `looks` at growing sizes (Bonferroni).
    """
    slopes = {arm: item_slopes(sizes, USD).tolist() for arm, sizes in arms.items()}
    order = sorted(slopes, key=lambda arm: -sum(slopes[arm]))
    tests = [paired_seed_difference(slopes[b], slopes[a]) for a, b in pairwise(order)]
    return order, all(each.p_value < 0.05 / len(tests) / looks for each in tests)


def point_cost_section(
    arms: Mapping[str, Sequence[CostedStudent]], over: str
) -> list[ReportSection]:
    """One line per arm that cost anything, the best per dollar first; empty if fewer than two did.

    Args:
        arms: Students of each arm at growing sizes.
        over: What gains are over.
    """
    some = {arm: sizes for arm, sizes in arms.items() if sizes and sizes[-1].trained}
    paid = {arm: sizes for arm, sizes in some.items() if sizes[-1].tokens}
    if len(some) < 2:
        return []
    prices = {name: 1e6 * price for name, price in NOMINAL_USD.items()}
    order = ranking(paid, looks=1)[0] if paid else []
    rows = (
        {"arm": arm, "sizes": len(some[arm]), f"points over {over}": _mean(some[arm][-1].gains),
         "training tokens": round(some[arm][-1].trained),
         "points per million training tokens": _mean(1e6 * item_slopes(some[arm], "trained")),
         **(_paid(paid[arm]) if arm in paid else dict.fromkeys(PAID) if paid else {})}
        for arm in [*order, *(arm for arm in some if arm not in paid)]
    )  # fmt: skip
    return [section("costs", over=over, **prices).rows(rows)]


def _paid(sizes: Sequence[CostedStudent]) -> dict[str, object]:
    each = (round(sizes[-1].tokens), _mean(1e6 * item_slopes(sizes, "tokens")),
            sizes[-1].usd, _mean(1e3 * item_slopes(sizes, USD)))  # fmt: skip
    return dict(zip(PAID, each, strict=True))


def _mean(values: Floats) -> Interval:
    """Return the mean over items with Student's interval."""
    return paired_seed_difference(np.zeros(len(values)).tolist(), values.tolist()).difference
