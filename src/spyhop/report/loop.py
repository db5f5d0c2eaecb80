"""Sections of the closed loop: Orca's rounds, and the search for system messages."""

import json
from collections.abc import Iterator
from typing import Any

from spyhop.collect import MessageRate
from spyhop.evaluate import compare
from spyhop.report.html import ReportSection, section
from spyhop.statistics import Interval, wilson
from spyhop.store import Artifact, Artifacts


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
