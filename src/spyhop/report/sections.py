"""Sections that any report is made of: data, samples, the loss mask, training, scores."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from spyhop.lazy import Lazy
from spyhop.models.local import load_tokenizer, saved_format
from spyhop.render import Renderer
from spyhop.report.html import PALETTE, Section, Table, percent, percent_interval
from spyhop.schema import Answer, Score
from spyhop.statistics import near_chance, wilson
from spyhop.store import Artifact
from spyhop.train.tune import METRICS

if TYPE_CHECKING:
    import altair as alt
else:
    alt = Lazy("altair")

NUM_MASKED_ROWS = 3
CURVE_POINTS = 200


def samples_section(answers: Sequence[Artifact]) -> Section:
    """One row for each system message, and how often each message stands in the data."""
    section = Section("Training rows", "One row for each system message, as the model reads it.")
    first: dict[str, Answer] = {}
    num_rows: dict[tuple[str, str], int] = defaultdict(int)
    for artifact in answers:
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


def mask_section(student: Artifact, answers: Sequence[Artifact]) -> Section:
    """Rows as tokens, with the loss mask in colour."""
    section = Section(
        "What is trained on",
        "Each box is a token; the loss is taken on the green ones only: the response and its end.",
    )
    renderer = Renderer(load_tokenizer(student.path), saved_format(student.path))
    rows = islice(
        (row for each in answers for row in each.rows(Answer) if not row.error),
        NUM_MASKED_ROWS,
    )
    for row in rows:
        (encoded,) = renderer.encode([row.messages])
        pieces = [
            (renderer.tokenizer.decode([token]), bool(is_target))
            for token, is_target in zip(encoded.ids.tolist(), encoded.is_target, strict=True)
        ]
        num_targets = int(encoded.is_target.sum())
        section.masked(pieces, f"{num_targets} of {len(pieces)} tokens are targets; row {row.id}")
    return section


def data_section(artifacts: Sequence[Artifact]) -> Section:
    """What went in, what was left out and why."""
    section = Section("Data")
    section.table(
        Table(
            ["artifact", "rows", "counts", "dropped"],
            [
                [
                    artifact.path.name,
                    artifact.num_rows or "",
                    _counts(artifact.record.counts),
                    _counts(artifact.record.dropped) or "none",
                ]
                for artifact in artifacts
            ],
        )
    )
    return section


def training_section(students: Sequence[tuple[str, Artifact]]) -> Section:
    """Loss per target token over the tokens seen."""
    section = Section("Training")
    points: list[dict[str, Any]] = []
    rows = []
    for name, student in students:
        metrics = json.loads((student.path / METRICS).read_text())
        losses, tokens = metrics["losses"], metrics["tokens"]
        points += _curve(name, losses, tokens)
        tail = losses[-50:]
        rows.append(
            [
                name,
                metrics["steps"],
                f"{tokens:,}",
                f"{sum(tail) / len(tail):.3f}",
                f"{student.record.seconds:.0f}",
            ]
        )
    section.table(Table(["student", "steps", "tokens", "last loss", "seconds"], rows))
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


def scores_section(scores: Sequence[tuple[str, Artifact]]) -> Section:
    """Accuracy of each model on each task, with what is needed to believe it."""
    section = Section("Scores")
    verdicts: dict[str, list[str]] = defaultdict(list)
    rows = []
    for name, artifact in scores:
        for group, found in sorted(_by_task(artifact.rows(Score)).items()):
            row, verdict = _score_row(name, group, found)
            rows.append(row)
            if group[1] != "all":
                verdicts[name].append(verdict)
    for name, found_verdicts in verdicts.items():
        section.text(_chance_sentence(name, found_verdicts))
    headings = [
        "model",
        "suite",
        "task",
        "n",
        "answered %",
        "accuracy %",
        "95 % interval",
        "chance %",
        "against guessing",
    ]
    rows.sort(key=lambda row: (row[1], row[2], row[0]))
    section.table(
        Table(
            headings,
            rows,
            "Wilson intervals over items; an exact test against "
            "guessing. No answer found counts as wrong.",
        )
    )
    return section


def _score_row(name: str, group: tuple[str, str], found: list[Score]) -> tuple[list[Any], str]:
    correct, n = sum(score.correct for score in found), len(found)
    interval = wilson(correct, n)
    test = near_chance(correct, n, [score.chance for score in found])
    answered = sum(score.extracted is not None for score in found) / n
    row = [
        name,
        *group,
        n,
        percent(answered),
        percent(interval.value),
        percent_interval(interval.low, interval.high),
        percent(test.chance),
        test.verdict,
    ]
    return row, test.verdict


def _by_task(scores: Iterable[Score]) -> dict[tuple[str, str], list[Score]]:
    groups: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for score in scores:
        groups[score.suite, score.task].append(score)
        groups[score.suite, "all"].append(score)
    return groups


def _chance_sentence(name: str, verdicts: list[str]) -> str:
    above = verdicts.count("above")
    expected = 0.025 * len(verdicts)
    start = f"{name}: above guessing on {above} of {len(verdicts)} tasks"
    if above <= max(1, 2 * expected):
        return (
            f"{start}, where luck alone would give about {expected:.1f}. "
            "These scores cannot be told from chance; they say nothing about reasoning."
        )
    return f"{start} (luck alone: about {expected:.1f}); below it on {verdicts.count('below')}."


def _curve(name: str, losses: list[float], tokens: int) -> list[dict[str, Any]]:
    width = max(1, len(losses) // CURVE_POINTS)
    return [
        {
            "student": name,
            "tokens": tokens * min(start + width, len(losses)) / len(losses),
            "loss": sum(losses[start : start + width]) / len(losses[start : start + width]),
        }
        for start in range(0, len(losses), width)
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {num:,}" for name, num in counts.items())
