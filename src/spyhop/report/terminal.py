"""The results of an experiment with arms as a short table for a terminal."""

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from spyhop.report.arm_figures import ALL, points, verdict
from spyhop.statistics import Interval


def arms_table(results: Path) -> Table:
    """Return one line per setting and arm, and one for guessing."""
    rows = [row for row in json.loads(results.read_text()) if row["seed"] == ALL]
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("accuracy %", "95 % interval", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("by family", overflow="fold")
    for setting in dict.fromkeys(row["setting"] for row in rows):
        found = [row for row in rows if row["setting"] == setting]
        for arm in dict.fromkeys(row["arm"] for row in found):
            _add_arm(table, setting, [row for row in found if row["arm"] == arm])
        first = [row for row in found if row["arm"] == found[0]["arm"]]
        whole = next(row for row in first if row["family"] == ALL)
        guess = f"{100 * whole['chance']:.1f}"
        table.add_row(f"{setting} guessing", guess, "", "", _families(first, "chance"), style="dim")
    return table


def comparison_lines(comparisons: Path) -> list[str]:
    """Return a sentence for each comparison of two arms over all families, whatever it shows."""
    return [
        f"{row['setting']}: {row['second']} against {row['first']}: "
        f"{points(_interval(row))} points ({verdict(_interval(row))})"
        for row in json.loads(comparisons.read_text())
        if row["family"] == ALL
    ]


def audit_lines(audits: Path) -> list[str]:
    """Return the conclusion of each imitation audit, if the experiment has some."""
    found = json.loads(audits.read_text(encoding="utf-8")) if audits.exists() else {}
    return [f"Imitation audit, judge {name}: {sentence}" for name, sentence in found.items()]


def _interval(row: dict[str, Any]) -> Interval:
    return Interval(value=row["difference"], low=row["low"], high=row["high"], level=0.95)


def _add_arm(table: Table, setting: str, rows: list[dict[str, Any]]) -> None:
    whole = next(row for row in rows if row["family"] == ALL)
    table.add_row(
        f"{setting} {whole['arm']}",
        f"{100 * whole['accuracy']:.1f}",
        f"{100 * whole['low']:.1f} to {100 * whole['high']:.1f}",
        f"{whole['tokens']:,}",
        _families(rows, "accuracy"),
    )


def _families(rows: list[dict[str, Any]], figure: str) -> str:
    return " ".join(
        f"{row['family']} {100 * row[figure]:.0f}" for row in rows if row["family"] != ALL
    )
