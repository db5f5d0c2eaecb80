"""Held-out items one by one: question, gold answer, and the answer of every model."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from spyhop.report.html import ReportSection, section
from spyhop.schema import Item, Score
from spyhop.store import Artifacts, rows_of

ITEMS = "items.jsonl"
MOST_ITEMS = 300
"""Items on the page; all of them are in `items.jsonl` beside it."""
ANSWER = ("response", "extracted", "correct", "ending")
"""Fields of a score that the file has."""


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
    with (folder / ITEMS).open("w", encoding="utf-8") as lines:
        for each in _joined(items, scores, hidden):
            answers = {
                name: score.model_dump(include=set(ANSWER)) for name, score in each.scores.items()
            }
            line = {**each.item.model_dump(), "answers": answers}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            if each.item.id in ids:
                shown[each.item.id] = each
    found = section("items", shown=f"{len(shown):,}", num=f"{len(verdicts):,}", file=ITEMS)
    rows = [shown[row_id] for row_id in order if row_id in shown]
    tasks = list(dict.fromkeys(f"{row.item.suite} {row.item.task}" for row in rows))
    return found.add("items.html", rows=rows, models=list(scores), tasks=tasks)


def _joined(items: Artifacts, scores: Artifacts, hidden: Collection[str]) -> Iterator[ShownItem]:
    """Join items and scores, which come in the items' order."""
    streams = {name: artifact.rows(Score) for name, artifact in scores.items()}
    waiting = {name: next(stream, None) for name, stream in streams.items()}
    for item in rows_of(items, Item):
        row = ShownItem(item, {})
        for name, score in waiting.items():
            if score is not None and score.id == item.id:
                row.scores[name] = score
                waiting[name] = next(streams[name], None)
        if row.scores and item.suite not in hidden:
            yield row
