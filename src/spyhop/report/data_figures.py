"""Figures of the data: the mixture, system messages and lengths, copies, test items."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from spyhop.report.charts import INK, PALETTE, axis, chart, layer, names, spans
from spyhop.report.html import ReportSection
from spyhop.report.sections import dropped_rows
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
        rows.append({
            "step": name, "tasks": len(found) or None, "rows found": sum(found) or None,
            "rows given": artifact.num_rows,
            "rows of a task": f"{min(drawn):,} to {max(drawn):,}" if drawn else "",
        })  # fmt: skip
    section.rows(rows)
    for name, artifact in data.items():
        if artifact.record.dropped:
            _dropped(section, name, artifact)
        near = sum(_under(artifact.record.counts, "near/"))
        if near and not artifact.record.dropped.get("near"):
            section.text(
                f"{near:,} of the rows given by {name} are near copies of others of "
                'their task, and stay; near_copies = "drop" drops them.'
            )
    return section


def _dropped(section: ReportSection, name: str, artifact: Artifact) -> None:
    dropped = artifact.record.dropped
    section.rows(dropped_rows(name, artifact))
    shown: Counter[str] = Counter()
    examples = []
    for reason, line in artifact.dropped():
        row = json.loads(line)
        shown[reason] += 1
        if shown[reason] <= NUM_EXAMPLES:
            like = row.get("kept_id") or f"{row.get('suite', '')} {row.get('item_id', '')}"
            text = row.get("words") or row["query"]
            short = text if len(text) <= NUM_CHARS else f"{text[: NUM_CHARS - 3]}..."
            examples.append({
                "reason": reason, "row": row["id"], "like": like,
                "words in common, or the row": short,
            })  # fmt: skip
        elif min(shown.values()) > NUM_EXAMPLES and len(shown) == len(dropped):
            break
    section.rows(examples, "Examples; `spyhop show STEP --dropped` lists more.")


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
            quarters = (found[int(share * (len(found) - 1))] for share in (0.25, 0.5, 0.75))
            figures = dict(zip(("low", "value", "high"), quarters, strict=True))
            values.append({"row": system_id, "line": name, "n": len(found), **figures})
    values.sort(key=lambda each: (_order(each["row"]), each["line"]))
    section.rows(
        {"system message": each["row"], "answered by": each["line"], "n": each["n"],
         "lower quarter": each["low"], "median": each["value"], "upper quarter": each["high"]}
        for each in values
    )  # fmt: skip
    if values:
        section.chart(_shares_chart(num_rows), "Share of the prompts of a collection, %.")
        section.chart(spans(values, "words"), "Words; middle half and median.")
    return section


def _shares_chart(num_rows: Counter[tuple[str, str]]) -> dict[str, Any]:
    totals: Counter[str] = Counter()
    for (collection, _), num in num_rows.items():
        totals[collection] += num
    values = [
        {"collection": collection, "message": message, "share": 100 * num / totals[collection]}
        for (collection, message), num in num_rows.items()
    ]
    order = sorted({message for _, message in num_rows}, key=_order)
    x = names("message", title="system message", axis={"labelAngle": 0})
    place = {"x": {**x, "sort": order}, "y": names("collection")}
    scale = {"range": ["#f4f8fa", PALETTE[0]], "domain": [0, 50], "clamp": True}
    shade = {"condition": {"test": "datum.share > 30", "value": "white"}, "value": INK}
    return chart(
        values,
        layer("rect", {**place, "color": axis("share", scale=scale, legend=None)}),
        layer("text", {**place, "text": axis("share", format=".1f"), "color": shade}, fontSize=10),
        width={"step": 40},
        height={"step": 28},
    )


def _order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (1 << 30, name)


def _under(counts: dict[str, int], prefix: str) -> list[int]:
    return [num for name, num in counts.items() if name.startswith(prefix)]
