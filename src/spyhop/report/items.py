"""Held-out items one by one: question, gold answer, and the answer of every model."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spyhop.report.html import ReportSection, section
from spyhop.schema import Item, Score
from spyhop.store import Artifact

ITEMS = "items.jsonl"
MOST_ITEMS = 300
"""Items on the page; all of them are in `items.jsonl` beside it."""
ANSWER = ("response", "extracted", "correct", "ending")
"""Fields of a score that the file has."""


@dataclass(slots=True)
class ShownItem:
    """An item with the answers of the models, by name."""

    item: Item
    scores: dict[str, Score] = field(default_factory=dict)


def items_section(
    folder: Path,
    items: Mapping[str, Artifact],
    scores: Mapping[str, Artifact],
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
    return found.items([shown[row_id] for row_id in order if row_id in shown], list(scores))


def _joined(
    items: Mapping[str, Artifact], scores: Mapping[str, Artifact], hidden: Collection[str]
) -> Iterator[ShownItem]:
    """Join items and scores, which come in the items' order."""
    streams = {name: artifact.rows(Score) for name, artifact in scores.items()}
    waiting = {name: next(stream, None) for name, stream in streams.items()}
    for artifact in items.values():
        for item in artifact.rows(Item):
            row = ShownItem(item)
            for name, score in waiting.items():
                if score is not None and score.id == item.id:
                    row.scores[name] = score
                    waiting[name] = next(streams[name], None)
            if row.scores and item.suite not in hidden:
                yield row
