"""Item by item: answers of every model, errors shared with the teacher, nearness to training."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spyhop.evaluate import ItemOverlap, outcomes
from spyhop.report.html import ReportSection, percent_interval, section
from spyhop.schema import Item, Score
from spyhop.statistics import (
    group_difference,
    paired_difference,
    seed_interval,
    wilson,
)
from spyhop.store import Artifacts, rows_of

ITEMS = "items.jsonl"
MOST_ITEMS = 300
"""Items on the page; all of them are in `items.jsonl` beside it."""
ANSWER = {"response", "extracted", "correct", "ending"}
"""Fields of a score that the file has."""
TEACHER, BASE = "teacher", "base"
QUARTERS = ("farthest, points", "second, points", "third, points", "nearest, points")
LEAST = 4
"""Items in each quarter of a task, at least, for the task to count."""


class ShownItem(NamedTuple):
    """An item with the answers of the models, by name."""

    item: Item
    scores: dict[str, Score]


def items_section(
    folder: Path,
    items: Artifacts,
    scores: Artifacts,
    hidden: Collection[str] = (),
) -> ReportSection:
    """Show items, those first on which models differ, and write all of them to `items.jsonl`.

    The page can be filtered by model and task, and each item has its own link. Items of hidden
    suites are in neither.
    """
    verdicts: dict[str, set[bool]] = defaultdict(set)
    for artifact in scores.values():
        for batch in artifact.batches(["id", "correct", "suite"]):
            for row in batch.to_pylist():
                if row["suite"] not in hidden:
                    verdicts[row["id"]].add(row["correct"])
    order = sorted(verdicts, key=lambda row_id: len(verdicts[row_id]) < 2)[:MOST_ITEMS]
    ids, shown = set(order), dict[str, ShownItem]()
    streams = {name: artifact.rows(Score) for name, artifact in scores.items()}
    waiting = {name: next(stream, None) for name, stream in streams.items()}
    with (folder / ITEMS).open("w", encoding="utf-8") as lines:
        for item in rows_of(items, Item):
            own: dict[str, Score] = {}
            for name, score in waiting.items():  # scores come in the items' order
                if score is not None and score.id == item.id:
                    own[name], waiting[name] = score, next(streams[name], None)
            if own and item.suite not in hidden:
                answers = {name: score.model_dump(include=ANSWER) for name, score in own.items()}
                line = {**item.model_dump(), "answers": answers}
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
                if item.id in ids:
                    shown[item.id] = ShownItem(item, own)
    found = section("items", shown=f"{len(shown):,}", num=f"{len(verdicts):,}", file=ITEMS)
    rows = [shown[row_id] for row_id in order if row_id in shown]
    tasks = list(dict.fromkeys(f"{row.item.suite} {row.item.task}" for row in rows))
    return found.add("items.html", rows=rows, models=list(scores), tasks=tasks)


def inherited_section(scores: Artifacts) -> list[ReportSection]:
    """Compare each model's wrong answers with the teacher's, on items that both answer wrongly.

    Chance is the share of equal answers if the model's wrong answers were dealt to these items in
    any other order, task by task. Empty without a teacher.
    """
    wrong = {
        name: {
            row.id: (row.task, row.extracted.strip().casefold())
            for row in artifact.rows(Score)
            if row.extracted and not row.correct
        }
        for name, artifact in scores.items()
        if TEACHER in scores
    }
    theirs = wrong.pop(TEACHER, {})
    made, rows = section("inherited"), []
    for name, own in wrong.items():
        ids = [row_id for row_id in theirs if row_id in own]
        if not ids:
            continue
        same = {row_id: own[row_id] == theirs[row_id] for row_id in ids}
        tasks = Counter(own[row_id][0] for row_id in ids)
        mine, other = (Counter(each[row_id] for row_id in ids) for each in (own, theirs))
        chance = sum(num * mine[answer] / tasks[answer[0]] for answer, num in other.items())
        interval = wilson(sum(same.values()), len(ids))
        shared = [row_id for row_id in ids if row_id in wrong.get(BASE, {})]
        row = {
            "model": name, "wrong, as the teacher is": len(ids), "same answer %": interval.value,
            "95 % interval": percent_interval(interval.low, interval.high),
            "chance %": chance / len(ids),
        }  # fmt: skip
        if name != BASE and shared:
            before = [float(wrong[BASE][row_id] == theirs[row_id]) for row_id in shared]
            after = [float(same[row_id]) for row_id in shared]
            found = paired_difference(before, after).difference
            row |= {
                "minus base, points": 100 * found.value,
                "its interval": percent_interval(found.low, found.high),
            }
        rows.append(row)
    return [made.rows(rows)] if rows else []


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
            means = {k: seed_interval(some) for k, some in gains.items()}
            more = group_difference(gains[QUARTERS[0]], gains[QUARTERS[-1]])
            rows.append({"": name, **means, "nearest minus farthest, points": more})
    num = sum(map(len, groups.values()))
    return [section("density", items=num, base=first).rows(rows)]
