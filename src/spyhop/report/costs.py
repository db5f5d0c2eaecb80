"""The cost of a point: gains over the base by the dollars and tokens of the teacher's answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spyhop.evaluate import outcomes
from spyhop.report.html import ReportSection, section
from spyhop.statistics import Interval, paired_seed_difference
from spyhop.store import Artifact
from spyhop.store.artifact import load

READ, WRITTEN, USD = "prompt_tokens", "response_tokens", "usd"
NOMINAL_USD = {READ: 1e-6, WRITTEN: 4e-6}
"""Dollars of a token of teachers whose file states no price."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CostedStudent:
    """A student of an arm at one size: its gain, and the cost of its teacher's answers."""

    gains: Floats
    """Of each item, over the base; (items,)."""
    cost: Mapping[str, float]

    @property
    def tokens(self) -> float:
        """Tokens that teachers read and wrote."""
        return self.cost[READ] + self.cost[WRITTEN]

    @property
    def usd(self) -> float:
        """Dollars of the teachers; at nominal prices where they state none."""
        return self.cost[USD] or sum(price * self.cost[name] for name, price in NOMINAL_USD.items())


def costed(root: Path, student: Artifact, base: Artifact, scores: Artifact) -> CostedStudent:
    """Return a student's gains over the base on their common items, and its teacher's cost."""
    before, after = outcomes([base]), outcomes([scores])
    gains = [after[name] - before[name] for name in sorted(before.keys() & after.keys())]
    return CostedStudent(np.array(gains), teacher_cost(root, student))


def teacher_cost(root: Path, artifact: Artifact) -> dict[str, float]:
    """Return tokens and dollars of the teachers' answers that a student or its base was trained on.

    Replies that several artifacts share count for each of them; a filter's share is that of its
    rows. Answers that were dropped are paid for, too.
    """
    record = artifact.record
    found = {name: record.usage.get(name, 0.0) for name in (READ, WRITTEN, USD)}
    names = ("answers", "base", "rows", "chosen", "rejected")
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
        by: `usd` or `tokens`.
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
) -> ReportSection | None:
    """One line per arm with a teacher's answers, the best first; None if fewer than two have any.

    Args:
        arms: Students of each arm at growing sizes.
        over: What gains are over.
    """
    paid = {arm: some for arm, some in arms.items() if some and some[-1].tokens}
    if len(paid) < 2:
        return None
    prices = {name: 1e6 * price for name, price in NOMINAL_USD.items()}
    return section("costs", over=over, **prices).rows(
        {"arm": arm, "sizes": len(paid[arm]), "teacher's tokens": round(paid[arm][-1].tokens),
         "dollars": paid[arm][-1].usd, f"points over {over}": _mean(paid[arm][-1].gains),
         "points per million tokens": _mean(1e6 * item_slopes(paid[arm], "tokens")),
         "points per 1,000 dollars": _mean(1e3 * item_slopes(paid[arm], USD))}
        for arm in ranking(paid, looks=1)[0]
    )  # fmt: skip


def _mean(values: Floats) -> Interval:
    """Return the mean over items with Student's interval."""
    return paired_seed_difference(np.zeros(len(values)).tolist(), values.tolist()).difference
