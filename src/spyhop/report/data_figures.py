"""Figures of the data: the mixture, system messages and lengths, copies, test items."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from spyhop.lazy import Lazy
from spyhop.report.html import PALETTE, Section, Table, percent
from spyhop.schema import Answer
from spyhop.store import Artifact
from spyhop.store.artifact import DROPPED

if TYPE_CHECKING:
    import altair as alt
else:
    alt = Lazy("altair")

NUM_EXAMPLES = 5
NUM_CHARS = 240


def mixture_section(data: Sequence[Artifact]) -> Section:
    """What was found and drawn of each collection, and what was left out before anyone was asked.

    Args:
        data: The stages from readers to clean queries, in order.
    """
    section = Section("Mixture", "What the prompts are made of.")
    rows = []
    for artifact in data:
        counts = artifact.record.counts
        found = _under(counts, "found/") or _under(counts, "task/")
        drawn = _under(counts, "drawn/")
        rows.append(
            [
                _title(artifact),
                len(found) or "",
                f"{sum(found.values()):,}" if found else "",
                f"{artifact.num_rows:,}",
                f"{min(drawn.values()):,} to {max(drawn.values()):,}" if drawn else "",
            ]
        )
    headings = ["step", "tasks", "rows found", "rows given", "rows of a task"]
    section.table(Table(headings, rows))
    for artifact in data:
        if artifact.record.dropped:
            _dropped(section, artifact)
    return section


def dropped_table(artifact: Artifact) -> Table:
    """Return the reasons why rows were left out, with their numbers."""
    dropped = artifact.record.dropped
    return Table(
        [f"dropped by {_title(artifact)}", "rows", "% of rows"],
        [
            [reason, f"{num:,}", percent(num / (artifact.num_rows + sum(dropped.values())))]
            for reason, num in dropped.items()
        ],
    )


def _dropped(section: Section, artifact: Artifact) -> None:
    dropped = artifact.record.dropped
    section.table(dropped_table(artifact))
    shown: Counter[str] = Counter()
    examples = []
    for reason, row in _drops(artifact):
        shown[reason] += 1
        if shown[reason] <= NUM_EXAMPLES:
            like = row.get("kept_id") or f"{row.get('suite', '')} {row.get('item_id', '')}"
            examples.append([reason, row["id"], like, _short(row.get("words") or row["query"])])
        elif min(shown.values()) > NUM_EXAMPLES and len(shown) == len(dropped):
            break
    caption = "Examples; `spyhop show NODE --dropped` lists more."
    section.table(
        Table(["reason", "row", "like", "words in common, or the row"], examples, caption)
    )


def messages_section(answers: Sequence[tuple[str, Artifact]]) -> Section:
    """How long the responses are under each system message, as the Orca paper's Figure 9.

    Args:
        answers: Who answered, and the answers.
    """
    section = Section(
        "Response length",
        "Words of the responses under each system message: the middle half, and the median.",
    )
    values: list[dict[str, Any]] = []
    for name, artifact in answers:
        lengths: dict[str, list[int]] = defaultdict(list)
        for row in artifact.rows(Answer):
            if row.error is None:
                lengths[row.system_id].append(len(row.messages[-1].content.split()))
        for system_id, found in lengths.items():
            found.sort()
            low, middle, high = (
                found[int(share * (len(found) - 1))] for share in (0.25, 0.5, 0.75)
            )
            values.append(
                {"who": name, "message": system_id, "n": len(found),
                 "low": low, "middle": middle, "high": high}
            )  # fmt: skip
    values.sort(key=lambda each: (_order(each["message"]), each["who"]))
    headings = ["system message", "answered by", "n", "lower quarter", "median", "upper quarter"]
    keys = ("message", "who", "n", "low", "middle", "high")
    section.table(Table(headings, [[each[key] for key in keys] for each in values]))
    if values:
        section.chart(_lengths_chart(values), "Words; middle half and median.")
    return section


def _lengths_chart(values: list[dict[str, Any]]) -> alt.TopLevelMixin:
    order = list(dict.fromkeys(each["message"] for each in values))
    base = alt.Chart(alt.Data(values=values))
    y = alt.Y("message:N", title="system message", sort=order)
    color = alt.Color("who:N", title=None, scale=alt.Scale(range=list(PALETTE)))
    offset = alt.YOffset("who:N")
    bars = base.mark_bar(opacity=0.5).encode(
        x=alt.X("low:Q", title="words"), x2="high:Q", y=y, yOffset=offset, color=color
    )
    ticks = base.mark_tick(thickness=2, color="#1c2b33").encode(x="middle:Q", y=y, yOffset=offset)
    return alt.layer(bars, ticks).properties(width=480)


def _order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (1 << 30, name)


def _title(artifact: Artifact) -> str:
    stage = artifact.record.stage.split(".")[-1]
    config = artifact.record.config
    table = config.get("table") or {}
    collection = table.get("collection") or config.get("collection")
    inputs = ", ".join(each.name for some in artifact.record.inputs.values() for each in some)
    return f"{stage} {collection}" if collection else f"{stage} ({_short(inputs, 60)})"


def _under(counts: dict[str, int], prefix: str) -> dict[str, int]:
    return {name: num for name, num in counts.items() if name.startswith(prefix)}


def _drops(artifact: Artifact) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in sorted((artifact.path / DROPPED).glob("part-*.parquet")):
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(batch_size=256):
                for each in batch.to_pylist():
                    yield each["reason"], json.loads(each["row"])


def _short(text: str, num_chars: int = NUM_CHARS) -> str:
    return text if len(text) <= num_chars else f"{text[: num_chars - 3]}..."
