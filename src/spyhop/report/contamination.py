"""What the training rows hold of the test items: a rate beside each score, and the rows."""

from collections import defaultdict
from collections.abc import Mapping

from spyhop.evaluate import ItemOverlap
from spyhop.report.html import ReportSection, Table, percent
from spyhop.report.task_figures import ALL, TaskResult

SHARED_HEADINGS = (
    "in training % (whole / 13 / 8 words)",
    "accuracy % (n) without 13 words",
    "accuracy % (n) without any",
)
NUM_EXAMPLES = 5


def seen_items(rows: list[ItemOverlap]) -> dict[str, ItemOverlap]:
    """Return the rows by the id of their item."""
    return {row.id: row for row in rows}


def shared_cells(result: TaskResult) -> list[str]:
    """Return the cells under `SHARED_HEADINGS`; none where nothing was looked for."""
    found = result.shared
    if found is None:
        return []
    rates = " / ".join(percent(share) for share in (found.exact, found.long, found.short))
    without = _accuracy(found.without_long, found.num_without_long)
    return [rates, without, _accuracy(found.clean, found.num_clean)]


def _accuracy(share: float | None, num: int) -> str:
    return "n/a" if share is None else f"{percent(share)} ({num})"


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
        counts = [
            sum(each.is_exact for each in found),
            sum(each.has_long for each in found),
            sum(each.has_any for each in found),
            sum(not each.is_checked for each in found),
        ]
        if task == ALL or any(counts[:3]):
            told = [f"{num:,} ({percent(num / len(found))} %)" for num in counts]
            rows.append([suite, task, f"{len(found):,}", *told])
    headings = ["suite", "task", "items", "whole", "13 words", "8 words", "not checkable"]
    caption = "A wider measure counts what a narrower one finds. Tasks without any are not listed."
    section.table(Table(headings, rows, caption))
    if examples := _examples(seen):
        section.table(Table(["found by", "task", "item", "training row", "words"], examples))
    return section


def _examples(seen: Mapping[str, ItemOverlap]) -> list[list[str]]:
    kinds: dict[str, list[list[str]]] = {"whole": [], "13 words": [], "8 words": []}
    for row in seen.values():
        if not row.has_any:
            continue
        kind = "whole" if row.is_exact else "13 words" if row.long_run else "8 words"
        words = row.long_run or row.short_run
        kinds[kind].append([kind, f"{row.suite} {row.task}", row.id, row.row_id, words])
    return [row for rows in kinds.values() for row in rows[:NUM_EXAMPLES]]
