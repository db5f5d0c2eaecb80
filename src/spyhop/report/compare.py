"""Models compared on the same items, pair by pair."""

from collections import defaultdict
from collections.abc import Mapping

from spyhop.report.html import Table, percent, percent_interval
from spyhop.schema import Score
from spyhop.statistics import paired_difference
from spyhop.store import Artifact


def comparison_table(scores: Mapping[str, Artifact], student: str) -> Table:
    """Return each suite's difference of the student to every other model."""
    right = {name: _right(artifact) for name, artifact in scores.items()}
    rows = []
    for suite, own in right[student].items():
        for name, other in right.items():
            if name == student:
                continue
            both = sorted(own.keys() & other[suite].keys())
            found = paired_difference([other[suite][n] for n in both], [own[n] for n in both])
            gap = found.difference
            rows.append(
                [
                    suite,
                    f"{student} minus {name}",
                    f"{len(both):,}",
                    f"{100 * gap.value:+.1f}",
                    percent_interval(gap.low, gap.high),
                    f"{found.p_value:.3g}",
                    percent(sum(own[n] != other[suite][n] for n in both) / len(both)),
                ]
            )
    headings = ["suite", "models", "n", "difference %", "95 % interval", "p", "items that differ %"]
    caption = "On the same items: Tango's interval for paired shares, and McNemar's exact test."
    return Table(headings, rows, caption)


def _right(scores: Artifact) -> dict[str, dict[str, bool]]:
    found: dict[str, dict[str, bool]] = defaultdict(dict)
    for row in scores.rows(Score):
        found[row.suite][row.id] = row.correct
    return found
