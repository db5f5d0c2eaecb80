"""Gains by how densely training questions lie about the items: near transfer or far transfer?"""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from spyhop.evaluate import outcomes
from spyhop.evaluate.contamination import ItemOverlap
from spyhop.report.html import ReportSection, section
from spyhop.statistics import Interval, group_difference, seed_interval
from spyhop.store import Artifacts

QUARTERS = ("farthest, points", "second, points", "third, points", "nearest, points")
LEAST = 4
"""Items in each quarter of a task, at least, for the task to count."""


def density_section(scores: Artifacts, seen: Mapping[str, ItemOverlap]) -> list[ReportSection]:
    """Compare gains over the first model between quarters of density, ranked within each task.

    Items that share 13 words with a training row are not counted. Empty with fewer than two models,
    or without training questions.
    """
    tasks: dict[tuple[str, str], list[ItemOverlap]] = defaultdict(list)
    for row in seen.values():
        if not row.has_long:
            tasks[row.suite, row.task].append(row)
    groups: dict[str, list[ItemOverlap]] = {name: [] for name in QUARTERS}
    for found in tasks.values():
        ranked = sorted(found, key=lambda row: (row.density, row.id))
        if len(ranked) >= LEAST * len(QUARTERS) and ranked[-1].density:
            for name, part in zip(QUARTERS, np.array_split(np.arange(len(ranked)), 4), strict=True):
                groups[name] += [ranked[place] for place in part]
    (first, before), *others = ((name, outcomes([each])) for name, each in scores.items())
    if not (others and all(groups.values())):
        return []
    near = {name: float(np.mean([row.density for row in some])) for name, some in groups.items()}
    rows: list[dict[str, object]] = [{"": "mean similarity, 0 to 1", **near}]
    for name, own in others:
        gains = {
            quarter: [own[r.id] - before[r.id] for r in some if r.id in own and r.id in before]
            for quarter, some in groups.items()
        }
        if min(map(len, gains.values())) > 1:
            means: dict[str, Interval] = {k: seed_interval(some) for k, some in gains.items()}
            more = group_difference(gains[QUARTERS[0]], gains[QUARTERS[-1]])
            rows.append({"": name, **means, "nearest minus farthest, points": more})
    num = sum(map(len, groups.values()))
    return [section("density", items=num, base=first).rows(rows)]
