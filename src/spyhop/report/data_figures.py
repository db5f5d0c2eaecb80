"""Figures of the data: the mixture, system messages and lengths, copies, test items."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from spyhop.lazy import alt
from spyhop.report.html import PALETTE, ReportSection, Table, percent
from spyhop.schema import Answer
from spyhop.store import Artifact

NUM_EXAMPLES = 5
NUM_CHARS = 240


def mixture_section(data: Mapping[str, Artifact]) -> ReportSection:
    """Rows found, drawn and dropped for each collection, before any model was asked."""
    section = ReportSection("Mixture", "What the prompts are made of.")
    rows = []
    for name, artifact in data.items():
        counts = artifact.record.counts
        found = _under(counts, "found/") or _under(counts, "task/")
        drawn = _under(counts, "drawn/")
        rows.append(
            [
                name,
                len(found) or "",
                f"{sum(found.values()):,}" if found else "",
                f"{artifact.num_rows:,}",
                f"{min(drawn.values()):,} to {max(drawn.values()):,}" if drawn else "",
            ]
        )
    headings = ["step", "tasks", "rows found", "rows given", "rows of a task"]
    section.table(Table(headings, rows))
    for name, artifact in data.items():
        if artifact.record.dropped:
            _dropped(section, name, artifact)
        near = sum(_under(artifact.record.counts, "near/").values())
        if near and not artifact.record.dropped.get("near"):
            section.text(
                f"{near:,} of the rows given by {name} are near copies of others of "
                'their task, and stay; near_copies = "drop" drops them.'
            )
    return section


def dropped_table(name: str, artifact: Artifact) -> Table:
    """Return the reasons why a step dropped rows, with their numbers."""
    dropped = artifact.record.dropped
    return Table(
        [f"dropped by {name}", "rows", "% of rows"],
        [
            [reason, f"{num:,}", percent(num / (artifact.num_rows + sum(dropped.values())))]
            for reason, num in dropped.items()
        ],
    )


def _dropped(section: ReportSection, name: str, artifact: Artifact) -> None:
    dropped = artifact.record.dropped
    section.table(dropped_table(name, artifact))
    shown: Counter[str] = Counter()
    examples = []
    for reason, row in _drops(artifact):
        shown[reason] += 1
        if shown[reason] <= NUM_EXAMPLES:
            like = row.get("kept_id") or f"{row.get('suite', '')} {row.get('item_id', '')}"
            examples.append([reason, row["id"], like, _short(row.get("words") or row["query"])])
        elif min(shown.values()) > NUM_EXAMPLES and len(shown) == len(dropped):
            break
    caption = "Examples; `spyhop show STEP --dropped` lists more."
    section.table(
        Table(["reason", "row", "like", "words in common, or the row"], examples, caption)
    )


def messages_section(answers: Mapping[str, Artifact]) -> ReportSection:
    """How often each system message is used, and how long the responses to it are.

    As the Orca paper's Figures 6 and 9.
    """
    section = ReportSection(
        "System messages and response length",
        "The share of each system message in each collection, and the words of the responses "
        "under it: the middle half, and the median.",
    )
    values: list[dict[str, Any]] = []
    num_rows: Counter[tuple[str, str]] = Counter()
    for name, artifact in answers.items():
        lengths: dict[str, list[int]] = defaultdict(list)
        for row in artifact.rows(Answer):
            num_rows[row.collection, row.system_id] += 1
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
        section.chart(_shares_chart(num_rows), "Share of the prompts of a collection, %.")
        section.chart(_lengths_chart(values), "Words; middle half and median.")
    return section


def _shares_chart(num_rows: Counter[tuple[str, str]]) -> alt.TopLevelMixin:
    totals: Counter[str] = Counter()
    for (collection, _), num in num_rows.items():
        totals[collection] += num
    values = [
        {"collection": collection, "message": message, "share": 100 * num / totals[collection]}
        for (collection, message), num in num_rows.items()
    ]
    order = sorted({message for _, message in num_rows}, key=_order)
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X("message:N", title="system message", sort=order, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("collection:N", title=None),
    )
    scale = alt.Scale(range=["#f4f8fa", PALETTE[0]], domain=[0, 50], clamp=True)
    squares = base.mark_rect().encode(color=alt.Color("share:Q", scale=scale, legend=None))
    is_dark = alt.condition("datum.share > 30", alt.value("white"), alt.value("#1c2b33"))
    texts = base.mark_text(fontSize=10).encode(
        text=alt.Text("share:Q", format=".1f"), color=is_dark
    )
    return alt.layer(squares, texts).properties(width=alt.Step(40), height=alt.Step(28))


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


def _under(counts: dict[str, int], prefix: str) -> dict[str, int]:
    return {name: num for name, num in counts.items() if name.startswith(prefix)}


def _drops(artifact: Artifact) -> Iterator[tuple[str, dict[str, Any]]]:
    for reason, row in artifact.dropped():
        yield reason, json.loads(row)


def _short(text: str, num_chars: int = NUM_CHARS) -> str:
    return text if len(text) <= num_chars else f"{text[: num_chars - 3]}..."
