"""Sections that any report is made of: data, samples, mask, training, probe, cost, audit."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from statistics import fmean
from typing import Any

from spyhop.evaluate import ItemOverlap
from spyhop.evaluate.audit import AUDIT
from spyhop.evaluate.rates import ALL
from spyhop.report.charts import curves, spans
from spyhop.report.html import ReportSection, Turn, percent, prose, section, short
from spyhop.schema import Answer
from spyhop.statistics import wilson
from spyhop.store import Artifact, Artifacts, rows_of
from spyhop.train import read_metrics, read_sample, read_speed
from spyhop.train.cost import FEWEST_STEPS
from spyhop.train.probe import Probed
from spyhop.train.release import probe_figures

CURVE_POINTS = 200
NUM_EXAMPLES, NUM_PROBED, NUM_DROPPED = 5, 4, 3
EXAMPLE_CHARS = 300
OVERLAPS = {"whole": "is_exact", "13 words": "has_long", "8 words": "has_any"}
"""Kinds of overlap with training rows, the narrowest first, and their fields."""
AUDITED = ("base", "student", "teacher")
AUDITS = "audits.json"
"""Of a report: the conclusion of each audit."""


def rows_section(answers: Artifacts) -> ReportSection:
    """One row for each system message, and the share of each message."""
    found = section("rows")
    first: dict[str, Answer] = {}
    num_rows, totals = Counter[tuple[str, str]](), Counter[str]()
    for row in rows_of(answers, Answer):
        num_rows[row.collection, row.system_id] += 1
        totals[row.collection] += 1
        if row.error is None:
            first.setdefault(row.system_id, row)
    found.rows(
        {"collection": name, "system message": system_id, "rows": num,
         "share %": num / totals[name]}
        for (name, system_id), num in sorted(num_rows.items())
    )  # fmt: skip
    for system_id, row in sorted(first.items()):
        note = f"system message {system_id}, task {row.task}, answered by {row.model}, row {row.id}"
        found.conversation(row.messages, note)
    return found


def mask_section(student: Artifact) -> ReportSection:
    """Rows as tokens, with the loss mask in colour, as the training wrote them."""
    found = section("mask")
    for row in read_sample(student.path):
        pieces = [(piece.text, piece.is_supervised) for piece in row.pieces if piece.text]
        num = f"{row.num_supervised} of {len(row.pieces)} tokens are supervised"
        found.add("masked.html", pieces=pieces, note=f"{num}; row {row.row_id}")
    return found


def data_section(**groups: Artifacts) -> ReportSection:
    """Rows, counts and dropped rows of each input, by kind and name."""
    return section("data").rows(
        {"": kind.replace("_", " "), "name": name, "rows": artifact.num_rows or None,
         "counts": counted(artifact.record.counts),
         "dropped": counted(artifact.record.dropped) or "no row"}
        for kind, group in groups.items()
        for name, artifact in group.items()
    )  # fmt: skip


def counted(counts: Mapping[str, int]) -> str:
    """Return names with their numbers."""
    return ", ".join(f"{name} {num:,}" for name, num in counts.items())


def add_dropped(found: ReportSection, steps: Artifacts) -> ReportSection:
    """Add, for each step that dropped rows, the reasons with their numbers and first rows."""
    for name, artifact in steps.items():
        dropped = artifact.record.dropped
        total = artifact.num_rows + sum(dropped.values())
        examples: dict[str, list[str]] = defaultdict(list)
        for reason, row in artifact.dropped():
            if len(examples[reason]) < NUM_DROPPED:
                examples[reason].append(_in_short(json.loads(row)))
            elif all(len(examples[each]) >= min(NUM_DROPPED, num) for each, num in dropped.items()):
                break
        found.rows(
            {f"dropped by {name}": reason, "rows": num, "% of rows": num / total,
             "examples": "\n".join(examples[reason])}
            for reason, num in sorted(dropped.items(), key=lambda pair: -pair[1])
        )  # fmt: skip
    return found


def _in_short(row: Mapping[str, Any]) -> str:
    """Return where a dropped row came from, which row or item it is like, and its text."""
    like = row.get("kept_id") or f"{row.get('suite') or ''} {row.get('item_id', '')}".strip()
    place = row.get("url") or row.get("origin") or row.get("id")
    known = next((row[key] for key in ("words", "query", "text") if row.get(key)), None)
    text = " ".join(str(known or json.dumps(row, ensure_ascii=False)).split())
    headings = row.get("headings")
    title = " > ".join(map(str, headings)) if isinstance(headings, list) else ""
    parts = [place, title, like and f"like {like}", text]
    return ": ".join(short(str(part), EXAMPLE_CHARS) for part in parts if part)


def training_section(students: Mapping[str, Sequence[Artifact]]) -> ReportSection:
    """Loss per target token over the tokens seen; a student's phases follow each other."""
    found = section("training")
    points: list[dict[str, Any]] = []
    rows, moved = [], []
    for name, stages in students.items():
        seen, steps, held_out, tail = 0, 0, "", [0.0]
        for metrics in (read_metrics(stage) for stage in stages):
            tokens, tail = metrics["tokens"], metrics["losses"]
            width = max(1, len(tail) // CURVE_POINTS)
            for start in range(0, len(tail), width):
                losses = tail[start : start + width]
                place = seen + tokens * (start + len(losses)) / len(tail)
                points.append({"line": name, "x": place, "y": sum(losses) / len(losses)})
            for step, loss in metrics.get("held_out", []):
                place = seen + tokens * step / max(1, metrics["steps"])
                points.append({"line": f"{name}, held out", "x": place, "y": loss})
                held_out = f"{loss:.3f}"
            seen, steps = seen + tokens, steps + metrics["steps"]
            if more := metrics.get("metrics"):
                means = {key: f"{fmean(some[-50:]):.3f}" for key, some in more.items()}
                moved.append({"student": name, **means})
        if steps < FEWEST_STEPS:
            found.text(f"{name}: {steps} training steps are too few to learn from.")
        tail = tail[-min(50, max(1, len(tail) // 10)) :]
        rows.append({
            "student": name, "steps": steps, "tokens": seen,
            "last loss": f"{sum(tail) / len(tail):.3f}", "held out, last": held_out,
            "seconds": round(sum(read_speed(stage)["seconds"] for stage in stages)),
        })  # fmt: skip
    chart = curves(points, "tokens seen", "loss per target token")
    found.rows(rows)
    found.rows(moved, "Means of the last 50 steps; gains are nats of a response over the reference")
    return found.chart(chart, "Training loss, mean over neighbouring steps.")


def probe_section(probes: Artifacts) -> ReportSection:
    """Responses that ended, messages that were followed, and some of what was said."""
    found = section("probe")
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
        followed += [
            {"student": name, "system message": message, "n": num,
             "followed %, 95 % interval": wilson(follows, num), "met unasked %": unasked / num}
            for message, follows, unasked, num in probe_figures(counts)
            if message not in seen[name] and num
        ]  # fmt: skip
    room = next(iter(probes.values())).record.config["max_new_tokens"]
    found.rows(ended, f"The others were cut at {room:,} tokens.").rows(followed)
    for name, artifact in probes.items():
        if seen[name]:
            known = ", ".join(seen[name])
            found.text(f"{name}: not asked, since training rows have them: {known}.")
        shown: dict[str, list[Probed]] = {"": []}  # some without a message, one under each
        for row in artifact.rows(Probed):
            if len(some := shown.setdefault(row.message, [])) < (1 if row.message else NUM_PROBED):
                some.append(row)
        for row in chain(*shown.values()):
            how = "ended" if row.ending == "whole" else row.ending
            message = row.message or "no system message"
            note = f"{name}, {message}, {how}, {row.response_tokens} tokens"
            found.conversation([*row.messages, Turn("assistant", row.response)], note)
    return found


def cost_section(**groups: Artifacts) -> ReportSection:
    """Requests, tokens and dollars of each model that answered or was measured."""
    rows, total = [], Counter[str]()
    for kind, group in groups.items():
        for name, artifact in group.items():
            answered = artifact.rows(Answer) if kind == "answers" else iter(())
            model = next((row.model for row in answered), "")
            rows.append({"for": kind, "name": name, "model": model, **_cost(artifact.record.usage)})
            total.update(artifact.record.usage)
    return section("cost").rows([*rows, {"for": "all", **_cost(total)}])


def _cost(usage: Mapping[str, float]) -> dict[str, str]:
    names = {"requests": "requests", "prompt_tokens": "tokens in", "response_tokens": "tokens out"}
    counts = {title: f"{round(usage.get(name, 0)):,}" for name, title in names.items()}
    return counts | {"dollars": f"{usage.get('usd', 0):,.4f}"}


def contamination_section(seen: Mapping[str, ItemOverlap]) -> ReportSection:
    """How many items of each task the rows hold, and which ones."""
    groups: dict[tuple[str, str], list[ItemOverlap]] = defaultdict(list)
    examples: dict[str, list[dict[str, str]]] = {kind: [] for kind in OVERLAPS}
    for row in seen.values():
        groups[row.suite, ALL].append(row)
        groups[row.suite, row.task].append(row)
        for kind in [kind for kind, found in OVERLAPS.items() if getattr(row, found)][:1]:
            examples[kind].append({
                "found by": kind, "task": f"{row.suite} {row.task}", "item": row.id,
                "training row": row.row_id, "words": row.long_run or row.short_run,
            })  # fmt: skip
    rows = []
    for (suite, task), some in sorted(groups.items(), key=lambda g: (g[0][0], g[0][1] != ALL)):
        counts = {kind: sum(getattr(each, found) for each in some)
                  for kind, found in OVERLAPS.items()}  # fmt: skip
        if task == ALL or any(counts.values()):
            counts["not checkable"] = sum(not each.is_checked for each in some)
            shown = {k: f"{num:,} ({percent(num / len(some))} %)" for k, num in counts.items()}
            rows.append({"suite": suite, "task": task, "items": len(some), **shown})
    caption = "A wider measure counts what a narrower one finds. Tasks without any are not listed."
    first = [row for of_kind in examples.values() for row in of_kind[:NUM_EXAMPLES]]
    return section("contamination").rows(rows, caption).rows(first)


def sentences(audits: Artifacts) -> dict[str, str]:
    """Return each audit's conclusion by judge."""
    return {name: _audit(each)["sentence"] for name, each in audits.items()}


def audit_section(audits: Artifacts | None) -> ReportSection:
    """Say what a student's gain over its base is, under each judge, with every interval drawn."""
    made = section("audit")
    for judge, artifact in (audits or {}).items():
        found = _audit(artifact)
        made.text(f"Judge: {judge}. {found['sentence']}")
        if found["n"]:
            _add_gains(made, found)
    return made if audits else made.text(prose("no_audit"))


def _audit(artifact: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(artifact.file(AUDIT).read_text(encoding="utf-8"))
    return found


def _add_gains(to: ReportSection, found: Mapping[str, Any]) -> None:
    gains = {
        name: gain and {end: round(100 * gain[end], 1) + 0.0 for end in ("value", "low", "high")}
        for name, gain in found["gains"].items()
    }
    drawn = [{"row": name, **gain} for name, gain in gains.items() if gain]
    caption = f"Student minus base in points, with 95 % intervals, on {found['n']:,} items."
    to.chart(spans(drawn, "points", reference=0), caption)
    to.rows(
        {"gain": name, "points": f"{gain['value']:+.1f}" if gain else "", "95 % interval":
         f"{gain['low']:.1f} to {gain['high']:.1f}" if gain else "cannot be separated"}
        for name, gain in gains.items()
    )  # fmt: skip
    num = found["num_judged"]
    judged = prose("judged", num=num, **{name: 100 * found[name] for name in ("missing", "flips")})
    to.text(judged if num else prose("no_judge"))
    rows = (
        {"form": name, **{model: f"{mean:.2f}" for model, mean in zip(AUDITED, means, strict=True)}}
        for name, means in found["form"].items()
    )
    to.rows(
        rows, "Means; 1 is a doubling of the count, or for overlap a quarter of the word pairs."
    )
