"""Figures of the data: the mixture, system messages and lengths, rounds, searched messages."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from spyhop.collect import MessageRate
from spyhop.evaluate import compare
from spyhop.report.charts import ACCENT, axis, chart, layer, names, spans
from spyhop.report.html import ReportSection, prose, section
from spyhop.report.sections import add_dropped
from spyhop.schema import Answer
from spyhop.statistics import Interval, wilson
from spyhop.store import Artifact, Artifacts


def mixture_section(data: Artifacts) -> ReportSection:
    """Rows found, drawn and dropped for each collection, before any model was asked."""
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
    made = add_dropped(section("mixture").rows(rows), data)
    for name, artifact in data.items():
        near = sum(_under(artifact.record.counts, "near/"))
        if near and not artifact.record.dropped.get("near"):
            made.text(prose("near_copies", near=f"{near:,}", name=name))
    return made


def messages_section(answers: Artifacts) -> ReportSection:
    """How often each system message is used, and how long the responses to it are.

    As the Orca paper's Figures 6 and 9.
    """
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
    made = section("messages").rows(
        {"system message": each["row"], "answered by": each["line"], "n": each["n"],
         "lower quarter": each["low"], "median": each["value"], "upper quarter": each["high"]}
        for each in values
    )  # fmt: skip
    if values:
        made.chart(_shares_chart(num_rows), "Share of the prompts of a collection, %.")
        made.chart(spans(values, "words"), "Words; middle half and median.")
    return made


def _shares_chart(num_rows: Counter[tuple[str, str]]) -> dict[str, Any]:
    totals: Counter[str] = Counter()
    for (collection, _), num in num_rows.items():
        totals[collection] += num
    values = [
        {"collection": collection, "message": message, "share": 100 * num / totals[collection]}
        for (collection, message), num in num_rows.items()
    ]
    order = sorted({message for _, message in num_rows}, key=_order)
    x = names("message", title="system message", axis={"labelAngle": 0}) | {"sort": order}
    place = {"x": x, "y": names("collection")}
    scale = {"range": [0.04, 0.6], "domain": [0, 50], "clamp": True}
    shade = {"opacity": axis("share", scale=scale, legend=None)}
    return chart(
        values,
        layer("rect", {**place, **shade}, color=ACCENT),
        layer("text", {**place, "text": axis("share", format=".1f")}, fontSize=10),
        width={"step": 40},
        height={"step": 28},
    )


def rounds_section(
    draws: Artifacts,
    promotions: Artifacts,
    scores: Artifacts,
) -> ReportSection:
    """Each round against the best student before it and against its control, and its strata.

    `draws` are by the student's name, those of controls end in `-random`. A round with the draw of
    an earlier one did not run: the loop had stopped.
    """
    made, seen = section("orca_rounds"), dict[str, str]()
    rows, strata = list[dict[str, Any]](), list[dict[str, Any]]()
    for name, by in promotions.items():
        if first := seen.get(draws[name].key):
            made.text(f"{name} did not run: {first} was not promoted.")
            continue
        seen[draws[name].key] = name
        found = json.loads(by.file("promotion.json").read_text())
        gain = Interval(*(found[end] for end in ("difference", "low", "high")))
        control = compare([scores[f"{name}-random"]], [scores[name]])[0]
        rows.append({
            "round": name, "new queries": draws[name].num_rows, "n": found["num_items"],
            "points over the best before": gain, "p": f"{found['p_value']:.2g}",
            "points over the control": control.difference, "control's p": f"{control.p_value:.2g}",
            "": "promoted" if found["chosen"] == "after" else "not promoted: the loop stops",
        })  # fmt: skip
        strata += _strata(name, draws[name], draws[f"{name}-random"])
    return made.rows(rows).rows(strata, "Errors on development queries, and the queries drawn.")


def _strata(name: str, drawn: Artifact, control: Artifact) -> Iterator[dict[str, Any]]:
    """Yield a row for each stratum, the most frequent errors first."""
    counts, random = drawn.record.counts, control.record.counts
    names = [key.partition("/")[2] for key in counts if key.startswith("left/")]
    figures = {
        each: [counts.get(f"{kind}/{each}", 0) for kind in ("dev", "wrong")] for each in names
    }
    for stratum, (asked, wrong) in sorted(
        figures.items(), key=lambda pair: -pair[1][1] / max(1, pair[1][0])
    ):
        yield {
            "round": name, "stratum": stratum, "development queries": asked,
            "wrong %": wilson(wrong, asked) if asked else None,
            "left in the pool": counts[f"left/{stratum}"],
            "drawn": counts.get(f"drawn/{stratum}", 0),
            "drawn at random": random.get(f"drawn/{stratum}", 0),
        }  # fmt: skip


def search_section(searched: Artifact) -> ReportSection:
    """Verified answers per query and per token under each message, the best of a family first."""
    rows = sorted(
        searched.rows(MessageRate),
        key=lambda row: (row.family, not row.is_best, -row.num_right / max(1, row.tokens)),
    )
    return section("searched").rows(
        {"family": row.family, "message": row.system_id, "queries": row.num_asked,
         "verified %": wilson(row.num_right, row.num_asked) if row.num_asked else None,
         "verified per 1,000 tokens": 1000 * row.num_right / max(1, row.tokens),
         "": "still best" if row.is_best else "dropped"}
        for row in rows
    )  # fmt: skip


def _order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (1 << 30, name)


def _under(counts: dict[str, int], prefix: str) -> list[int]:
    return [num for name, num in counts.items() if name.startswith(prefix)]
