"""Test items found in the training rows."""

from collections import defaultdict
from collections.abc import Mapping

from spyhop.evaluate import ItemOverlap
from spyhop.evaluate.rates import ALL
from spyhop.report.html import ReportSection, percent

NUM_EXAMPLES = 5


def seen_items(rows: list[ItemOverlap]) -> dict[str, ItemOverlap]:
    """Return the rows by the id of their item."""
    return {row.id: row for row in rows}


def contamination_section(seen: Mapping[str, ItemOverlap]) -> ReportSection:
    """How many items of each task the rows hold, and which ones."""
    section = ReportSection(
        "Test items in the training rows",
        "An item is in training whole if a row asks it word by word, and by 13 (or 8) words if a "
        "question or response shares that many in a row with it that at most ten items share. "
        "Eight words are often a form of words only: read the examples. What the base model has "
        "read before is not known.",
    )
    groups: dict[tuple[str, str], list[ItemOverlap]] = defaultdict(list)
    for row in seen.values():
        groups[row.suite, ALL].append(row)
        groups[row.suite, row.task].append(row)
    rows = []
    for (suite, task), found in sorted(groups.items(), key=lambda g: (g[0][0], g[0][1] != ALL)):
        counts = {
            "whole": sum(each.is_exact for each in found),
            "13 words": sum(each.has_long for each in found),
            "8 words": sum(each.has_any for each in found),
            "not checkable": sum(not each.is_checked for each in found),
        }
        if task == ALL or any(list(counts.values())[:3]):
            shown = {k: f"{num:,} ({percent(num / len(found))} %)" for k, num in counts.items()}
            rows.append({"suite": suite, "task": task, "items": len(found), **shown})
    caption = "A wider measure counts what a narrower one finds. Tasks without any are not listed."
    section.rows(rows, caption)
    section.rows(_examples(seen))
    return section


def _examples(seen: Mapping[str, ItemOverlap]) -> list[dict[str, str]]:
    kinds: dict[str, list[dict[str, str]]] = {"whole": [], "13 words": [], "8 words": []}
    for row in seen.values():
        if row.has_any:
            kind = "whole" if row.is_exact else "13 words" if row.long_run else "8 words"
            task, words = f"{row.suite} {row.task}", row.long_run or row.short_run
            kinds[kind].append({
                "found by": kind, "task": task, "item": row.id, "training row": row.row_id,
                "words": words,
            })  # fmt: skip
    return [row for rows in kinds.values() for row in rows[:NUM_EXAMPLES]]
