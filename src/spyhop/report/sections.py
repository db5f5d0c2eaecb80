"""Sections that any report is made of: data, samples, the loss mask, training."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spyhop.report.charts import curves
from spyhop.report.html import ReportSection
from spyhop.schema import Answer
from spyhop.store import Artifact
from spyhop.train import read_metrics, read_sample, read_speed
from spyhop.train.cost import FEWEST_STEPS

CURVE_POINTS = 200


def rows_section(answers: Mapping[str, Artifact]) -> ReportSection:
    """One row for each system message, and the share of each message."""
    section = ReportSection(
        "Training rows", "One row for each system message, as the model reads it."
    )
    first: dict[str, Answer] = {}
    num_rows, totals = Counter[tuple[str, str]](), Counter[str]()
    for artifact in answers.values():
        for row in artifact.rows(Answer):
            num_rows[row.collection, row.system_id] += 1
            totals[row.collection] += 1
            if row.error is None:
                first.setdefault(row.system_id, row)
    section.rows(
        {"collection": name, "system message": system_id, "rows": num,
         "share %": num / totals[name]}
        for (name, system_id), num in sorted(num_rows.items())
    )  # fmt: skip
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
    section.rows(
        {
            "": kind.replace("_", " "),
            "name": name,
            "rows": artifact.num_rows or None,
            "counts": _counts(artifact.record.counts),
            "dropped": _counts(artifact.record.dropped) or "no row",
        }
        for kind, group in groups.items()
        for name, artifact in group.items()
    )
    return section


def dropped_rows(name: str, artifact: Artifact) -> Iterator[dict[str, Any]]:
    """Yield the reasons why a step dropped rows, with their numbers."""
    dropped = artifact.record.dropped
    for reason, num in dropped.items():
        share = num / (artifact.num_rows + sum(dropped.values()))
        yield {f"dropped by {name}": reason, "rows": num, "% of rows": share}


def training_section(students: Mapping[str, Sequence[Artifact]]) -> ReportSection:
    """Loss per target token over the tokens seen; a student's phases follow each other."""
    section = ReportSection("Training")
    points: list[dict[str, Any]] = []
    rows = []
    for name, stages in students.items():
        seen, steps, held_out, tail = 0, 0, "", [0.0]
        for metrics in (read_metrics(stage) for stage in stages):
            points += _curve(name, metrics["losses"], seen, metrics["tokens"])
            for step, loss in metrics.get("held_out", []):
                place = seen + metrics["tokens"] * step / max(1, metrics["steps"])
                points.append({"line": f"{name}, held out", "x": place, "y": loss})
                held_out = f"{loss:.3f}"
            seen, steps = seen + metrics["tokens"], steps + metrics["steps"]
            tail = metrics["losses"]
        if steps < FEWEST_STEPS:
            section.text(f"{name}: {steps} training steps are too few to learn from.")
        tail = tail[-min(50, max(1, len(tail) // 10)) :]
        rows.append({
            "student": name, "steps": steps, "tokens": seen,
            "last loss": f"{sum(tail) / len(tail):.3f}", "held out, last": held_out,
            "seconds": round(sum(read_speed(stage)["seconds"] for stage in stages)),
        })  # fmt: skip
    section.rows(rows)
    chart = curves(points, "tokens seen", "loss per target token")
    section.chart(chart, "Training loss, mean over neighbouring steps.")
    return section


def _curve(name: str, losses: list[float], before: int, tokens: int) -> list[dict[str, Any]]:
    width = max(1, len(losses) // CURVE_POINTS)
    return [
        {
            "line": name,
            "x": before + tokens * min(start + width, len(losses)) / len(losses),
            "y": sum(losses[start : start + width]) / len(losses[start : start + width]),
        }
        for start in range(0, len(losses), width)
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {num:,}" for name, num in counts.items())
