"""Sections that any report is made of: data, samples, the loss mask, training, scores."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from spyhop.evaluate import ItemOverlap, differences, task_scores
from spyhop.lazy import alt
from spyhop.report.comparison import differences_table
from spyhop.report.contamination import SHARED_HEADINGS, shared_cells
from spyhop.report.html import PALETTE, ReportSection, Table, percent, percent_interval
from spyhop.report.task_figures import ALL, TaskResult, chance_sentence, task_results
from spyhop.schema import Answer
from spyhop.store import Artifact
from spyhop.train import read_metrics, read_sample, read_speed
from spyhop.train.cost import FEWEST_STEPS

CURVE_POINTS = 200
AGAINST_GUESSING = {
    "above": "above guessing",
    "below": "below guessing",
    "near": "not shown to differ from guessing",
}


def samples_section(answers: Mapping[str, Artifact]) -> ReportSection:
    """One row for each system message, and the share of each message."""
    section = ReportSection(
        "Training rows", "One row for each system message, as the model reads it."
    )
    first: dict[str, Answer] = {}
    num_rows: dict[tuple[str, str], int] = defaultdict(int)
    for artifact in answers.values():
        for row in artifact.rows(Answer):
            num_rows[row.collection, row.system_id] += 1
            if row.error is None:
                first.setdefault(row.system_id, row)
    totals: dict[str, int] = defaultdict(int)
    for (collection, _), num in num_rows.items():
        totals[collection] += num
    section.table(
        Table(
            ["collection", "system message", "rows", "share %"],
            [
                [collection, system_id, num, percent(num / totals[collection])]
                for (collection, system_id), num in sorted(num_rows.items())
            ],
        )
    )
    for system_id, row in sorted(first.items()):
        note = f"system message {system_id}, task {row.task}, answered by {row.model}, row {row.id}"
        section.conversation([turn.model_dump() for turn in row.messages], note)
    return section


def mask_section(student: Artifact) -> ReportSection:
    """Rows as tokens, with the loss mask in colour, as the training wrote them."""
    section = ReportSection(
        "What is trained on",
        "Each box is a token; the loss is taken on the green ones only: the response and its end.",
    )
    for row in read_sample(student.path):
        pieces = [(piece.text, piece.is_supervised) for piece in row.pieces if piece.text]
        num = f"{row.num_supervised} of {len(row.pieces)} tokens are supervised"
        section.masked(pieces, f"{num}; row {row.row_id}")
    return section


def data_section(**groups: Mapping[str, Artifact]) -> ReportSection:
    """Rows, counts and dropped rows of each input, by kind and name."""
    section = ReportSection("Data")
    section.table(
        Table(
            ["", "name", "rows", "counts", "dropped"],
            [
                [
                    kind.replace("_", " "),
                    name,
                    artifact.num_rows or "",
                    _counts(artifact.record.counts),
                    _counts(artifact.record.dropped) or "no row",
                ]
                for kind, group in groups.items()
                for name, artifact in group.items()
            ],
        )
    )
    return section


def training_section(students: Mapping[str, Sequence[Artifact]]) -> ReportSection:
    """Loss per target token over the tokens seen; a student's phases follow each other."""
    section = ReportSection("Training")
    points: list[dict[str, Any]] = []
    rows = []
    for name, stages in students.items():
        seen, steps, held_out = 0, 0, ""
        for metrics in (read_metrics(stage) for stage in stages):
            points += _curve(name, metrics["losses"], seen, metrics["tokens"])
            for step, loss in metrics.get("held_out", []):
                place = seen + metrics["tokens"] * step / max(1, metrics["steps"])
                points.append({"student": f"{name}, held out", "tokens": place, "loss": loss})
                held_out = f"{loss:.3f}"
            seen, steps, tail = (
                seen + metrics["tokens"],
                steps + metrics["steps"],
                metrics["losses"],
            )
        if steps < FEWEST_STEPS:
            section.text(f"{name}: {steps} training steps are too few to learn from.")
        seconds = sum(read_speed(stage)["seconds"] for stage in stages)
        tail = tail[-min(50, max(1, len(tail) // 10)) :]
        last = sum(tail) / len(tail)
        rows.append([name, steps, f"{seen:,}", f"{last:.3f}", held_out, f"{seconds:.0f}"])
    heads = ["student", "steps", "tokens", "last loss", "held out, last", "seconds"]
    section.table(Table(heads, rows))
    chart = (
        alt.Chart(alt.Data(values=points))
        .mark_line(strokeWidth=1.6)
        .encode(
            x=alt.X("tokens:Q", title="tokens seen"),
            y=alt.Y("loss:Q", title="loss per target token"),
            color=alt.Color("student:N", title=None, scale=alt.Scale(range=list(PALETTE))),
        )
        .properties(width=720, height=260)
    )
    section.chart(chart, "Training loss, mean over neighbouring steps.")
    return section


def student_differences(scores: Mapping[str, Artifact], student: str) -> Table:
    """Each suite's difference of the student to every other model."""
    totals = {
        name: [each for each in task_scores(name, artifact) if each.task == ALL]
        for name, artifact in scores.items()
    }
    return differences_table(
        (f"{student} minus {name}", each)
        for name, other in totals.items()
        if name != student
        for each in differences(other, totals[student])
    )


def scores_section(
    scores: Mapping[str, Artifact],
    seen: Mapping[str, ItemOverlap] | None = None,
    student: str = "",
) -> ReportSection:
    """Accuracy of each model on each task, with what is needed to believe it.

    Args:
        scores: Answers to the items, by the name of the model.
        seen: By the id of the item, what the training rows hold of it.
        student: The model that the others are compared with, if any.
    """
    section = ReportSection("Scores")
    found: list[TaskResult] = []
    for name, artifact in scores.items():
        results = task_results(name, artifact, seen)
        section.text(chance_sentence(results))
        found += _without_repeats(results)
    if student:
        section.table(student_differences(scores, student))
    headings = ["task", "model", "n", "answered %", "accuracy %, 95 % interval", "chance %"]
    headings += ["against guessing", *(SHARED_HEADINGS if seen is not None else ())]
    rows = [
        [
            f"{each.suite} {each.task}".replace("_", " "),
            each.model,
            each.n,
            percent(each.answered),
            f"{percent(each.interval.value)} "
            f"({percent_interval(each.interval.low, each.interval.high)})",
            percent(each.chance),
            AGAINST_GUESSING[each.verdict],
            *shared_cells(each),
        ]
        for each in sorted(found, key=lambda each: (each.suite, each.task != ALL, each.task))
    ]
    caption = "Wilson intervals; an exact test against guessing; no answer found counts as wrong."
    section.table(Table(headings, rows, caption))
    return section


def _without_repeats(results: Sequence[TaskResult]) -> list[TaskResult]:
    """Drop the only task of a suite: the suite's own line says the same."""
    num = Counter(each.suite for each in results)
    return [each for each in results if each.task == ALL or num[each.suite] > 2]


def _curve(name: str, losses: list[float], before: int, tokens: int) -> list[dict[str, Any]]:
    width = max(1, len(losses) // CURVE_POINTS)
    return [
        {
            "student": name,
            "tokens": before + tokens * min(start + width, len(losses)) / len(losses),
            "loss": sum(losses[start : start + width]) / len(losses[start : start + width]),
        }
        for start in range(0, len(losses), width)
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {num:,}" for name, num in counts.items())
