"""Held-out items one by one: question, gold answer, and the answer of every model."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spyhop.report.html import ReportSection
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
    verdicts = {
        name: {
            row["id"]: row["correct"]
            for batch in artifact.batches(["id", "correct", "suite"])
            for row in batch.to_pylist()
            if row["suite"] not in hidden
        }
        for name, artifact in scores.items()
    }
    ids = _shown(verdicts.values())
    shown: dict[str, ShownItem] = {}
    with (folder / ITEMS).open("w", encoding="utf-8") as lines:
        for row in _rows(items, scores, hidden):
            answers = {
                name: {field: getattr(score, field) for field in ANSWER}
                for name, score in row.scores.items()
            }
            line = {**row.item.model_dump(), "answers": answers}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            if row.item.id in ids:
                shown[row.item.id] = row
    num = max((len(found) for found in verdicts.values()), default=0)
    section = ReportSection(
        "Items",
        f"{len(shown):,} of {num:,} items; those on which the models differ come first. All of "
        f"them are in {ITEMS} beside this page.",
    )
    section.items([shown[each] for each in ids if each in shown], list(scores))
    return section


def _shown(verdicts: Iterable[Mapping[str, bool]]) -> dict[str, None]:
    """Return the ids to show, in order: those first on which models differ."""
    said: dict[str, set[bool]] = {}
    for found in verdicts:
        for row_id, is_right in found.items():
            said.setdefault(row_id, set()).add(is_right)
    order = sorted(said, key=lambda row_id: len(said[row_id]) < 2)
    return dict.fromkeys(order[:MOST_ITEMS])


def _rows(
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
