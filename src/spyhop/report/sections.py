"""Sections that any report is made of: data, samples, mask, training, probe, cost, audit."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from statistics import fmean
from typing import Any

from spyhop.evaluate import ItemOverlap
from spyhop.evaluate.audit import AUDIT
from spyhop.evaluate.rates import ALL
from spyhop.report.charts import curves, spans
from spyhop.report.html import ReportSection, percent
from spyhop.schema import Answer
from spyhop.statistics import wilson
from spyhop.store import Artifact
from spyhop.train import read_metrics, read_sample, read_speed
from spyhop.train.card import probe_figures
from spyhop.train.cost import FEWEST_STEPS
from spyhop.train.probe import Probed

CURVE_POINTS = 200
NUM_EXAMPLES, NUM_PROBED = 5, 4
AUDITS = "audits.json"
"""Of a report: the conclusion of each audit."""
NO_AUDIT = "Not made: no responses of base and student to the same items, or none of a teacher."
NO_JUDGE = (
    "No verdicts of a judge: what a reader would prefer is not known, the rest does not need it. "
    "Set `judge` in the recipe to a model's file (TOML) or folder, and run again: nothing else is "
    "made again."
)


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
    rows, moved = [], []
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
            if more := metrics.get("metrics"):
                means = {key: f"{fmean(some[-50:]):.3f}" for key, some in more.items()}
                moved.append({"student": name, **means})
        if steps < FEWEST_STEPS:
            section.text(f"{name}: {steps} training steps are too few to learn from.")
        tail = tail[-min(50, max(1, len(tail) // 10)) :]
        rows.append({
            "student": name, "steps": steps, "tokens": seen,
            "last loss": f"{sum(tail) / len(tail):.3f}", "held out, last": held_out,
            "seconds": round(sum(read_speed(stage)["seconds"] for stage in stages)),
        })  # fmt: skip
    section.rows(rows)
    section.rows(moved, "Means of the last 50 steps. Gains: nats of a response over the reference.")
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


def probe_section(probes: Mapping[str, Artifact]) -> ReportSection:
    """Responses that ended, messages that were followed, and some of what was said."""
    section = ReportSection(
        "Probe",
        "Greedy answers to prompts of the training rows, alone and under system messages that no "
        "row has and that a rule can check.",
    )
    ended, followed, seen = [], [], dict[str, list[str]]()
    for name, artifact in probes.items():
        counts = artifact.record.counts
        whole, failed = counts.get("stopped", 0), counts.get("failed", 0)
        total = whole + counts.get("cut", 0)
        share = wilson(whole, total) if total else None
        ended.append({
            "student": name, "responses": total, "ended by themselves %, 95 % interval": share,
            "failed": failed,
        })  # fmt: skip
        seen[name] = [k.removeprefix("seen/") for k, n in counts.items() if k[:5] == "seen/" and n]
        for message, follows, unasked, num in probe_figures(counts):
            if message not in seen[name] and num:
                met = {"met unasked %": unasked / num}
                followed.append({
                    "student": name, "system message": message, "n": num,
                    "followed %, 95 % interval": wilson(follows, num), **met,
                })  # fmt: skip
    room = next(iter(probes.values())).record.config["max_new_tokens"]
    section.rows(ended, f"The others were cut at {room:,} tokens.")
    section.rows(followed)
    for name, artifact in probes.items():
        if seen[name]:
            known = ", ".join(seen[name])
            section.text(f"{name}: not asked, since training rows have them: {known}.")
        for row in _probed(artifact):
            how = "ended" if row.ending == "whole" else row.ending
            note = f"{name}, {row.message or 'no system message'}, {how}"
            turns = [turn.model_dump() for turn in row.messages]
            said = {"role": "assistant", "content": row.response}
            section.conversation([*turns, said], f"{note}, {row.response_tokens} tokens")
    return section


def _probed(probe: Artifact) -> Iterator[Probed]:
    """Some prompts without a message, and the first one under each message."""
    yield from islice((row for row in probe.rows(Probed) if not row.message), NUM_PROBED)
    shown: set[str] = set()
    for row in probe.rows(Probed):
        if row.message and row.message not in shown:
            shown.add(row.message)
            yield row


def cost_section(**groups: Mapping[str, Artifact]) -> ReportSection:
    """Requests, tokens and dollars of each model that answered or was measured."""
    section = ReportSection(
        "Requests, tokens, dollars",
        "As the runs that made these rows counted them; recorded answers and models in this "
        "process cost no dollars.",
    )
    rows, total = [], Counter[str]()
    for kind, group in groups.items():
        for name, artifact in group.items():
            model = (
                next((row.model for row in artifact.rows(Answer)), "") if kind == "answers" else ""
            )
            rows.append({"for": kind, "name": name, "model": model, **_cost(artifact.record.usage)})
            total.update(artifact.record.usage)
    section.rows([*rows, {"for": "all", **_cost(total)}])
    return section


def _cost(usage: Mapping[str, float]) -> dict[str, str]:
    names = {"requests": "requests", "prompt_tokens": "tokens in", "response_tokens": "tokens out"}
    counts = {title: f"{round(usage.get(name, 0)):,}" for name, title in names.items()}
    return counts | {"dollars": f"{usage.get('usd', 0):,.4f}"}


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


def sentences(audits: Mapping[str, Artifact]) -> dict[str, str]:
    """Return each audit's conclusion by judge."""
    return {name: _audit(each)["sentence"] for name, each in audits.items()}


def audit_section(audits: Mapping[str, Artifact] | None) -> ReportSection:
    """Say what a student's gain over its base is, under each judge, with every interval drawn."""
    section = ReportSection("Imitation audit: reasoning or style?")
    for name, artifact in (audits or {}).items():
        _add_audit(section, name, _audit(artifact))
    if not audits:
        section.text(NO_AUDIT)
    return section


def _audit(artifact: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(artifact.file(AUDIT).read_text(encoding="utf-8"))
    return found


def _add_audit(section: ReportSection, judge: str, found: Mapping[str, Any]) -> None:
    section.text(f"Judge: {judge}. {found['sentence']}")
    if not found["n"]:
        return
    gains = {
        name: gain and {part: round(100 * gain[part], 1) + 0.0 for part in ("value", "low", "high")}
        for name, gain in found["gains"].items()
    }
    drawn = [{"row": name, **gain} for name, gain in gains.items() if gain]
    caption = f"Student minus base in points, with 95 % intervals, on {found['n']:,} items."
    section.chart(spans(drawn, "points", reference=0), caption)
    section.rows(
        {
            "gain": name,
            "points": f"{gain['value']:+.1f}" if gain else "",
            "95 % interval": f"{gain['low']:.1f} to {gain['high']:.1f}"
            if gain
            else "cannot be separated",
        }
        for name, gain in gains.items()
    )
    judged = (
        f"The judge compared {found['num_judged']:,} items in both orders: "
        f"{100 * found['missing']:.1f} % of the verdicts are missing, and on "
        f"{100 * found['flips']:.0f} % of the items the two orders disagree. Preference runs "
        "from -100 (always the base) to 100. The judge's rewards are measured on these verdicts, "
        "and their uncertainty is part of the intervals."
    )
    section.text(judged if found["num_judged"] else NO_JUDGE)
    models = ("base", "student", "teacher")
    section.rows(
        (
            {"form": name} | {m: f"{mean:.2f}" for m, mean in zip(models, means, strict=True)}
            for name, means in found["form"].items()
        ),
        "Means; 1 is a doubling of the count, or for overlap a quarter of the word pairs.",
    )
