"""Errors that a student inherits: wrong answers that are its teacher's own."""

from collections import Counter

from spyhop.report.html import ReportSection, percent_interval, section
from spyhop.schema import Score
from spyhop.statistics import paired_difference, wilson
from spyhop.store import Artifacts

TEACHER, BASE = "teacher", "base"


def inherited_section(scores: Artifacts) -> list[ReportSection]:
    """Compare each model's wrong answers with the teacher's, on items that both answer wrongly.

    Chance is the share of equal answers if the model's wrong answers were dealt to these items in
    any other order, task by task. Empty without a teacher.
    """
    wrong = {
        name: {
            row.id: (row.task, row.extracted.strip().casefold())
            for row in artifact.rows(Score)
            if row.extracted and not row.correct
        }
        for name, artifact in scores.items()
        if TEACHER in scores
    }
    theirs = wrong.pop(TEACHER, {})
    made, rows = section("inherited"), []
    for name, own in wrong.items():
        ids = [row_id for row_id in theirs if row_id in own]
        if not ids:
            continue
        same = {row_id: own[row_id] == theirs[row_id] for row_id in ids}
        tasks = Counter(own[row_id][0] for row_id in ids)
        mine, other = (Counter(each[row_id] for row_id in ids) for each in (own, theirs))
        chance = sum(num * mine[answer] / tasks[answer[0]] for answer, num in other.items())
        interval = wilson(sum(same.values()), len(ids))
        shared = [row_id for row_id in ids if row_id in wrong.get(BASE, {})]
        row = {
            "model": name, "wrong, as the teacher is": len(ids), "same answer %": interval.value,
            "95 % interval": percent_interval(interval.low, interval.high),
            "chance %": chance / len(ids),
        }  # fmt: skip
        if name != BASE and shared:
            before = [float(wrong[BASE][row_id] == theirs[row_id]) for row_id in shared]
            after = [float(same[row_id]) for row_id in shared]
            found = paired_difference(before, after).difference
            row |= {
                "minus base, points": 100 * found.value,
                "its interval": percent_interval(found.low, found.high),
            }
        rows.append(row)
    return [made.rows(rows)] if rows else []
