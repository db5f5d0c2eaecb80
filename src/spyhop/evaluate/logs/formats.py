"""Rows of each tool's JSON lines: spyhop's scores, lm-eval, AlpacaEval, arena-hard.

Sources: lm-eval 0.4.13 (`log_samples`), AlpacaEval 0.6 (`annotations.json`), arena-hard-auto 0.1
and 2.0 (`model_judgment`), as those tools write them.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from spyhop.schema import InputError
from spyhop.store.files import field

TOPICS = ("topic", "subject", "category", "subcategory", "subfield", "domain", "dataset", "cluster")
PASSAGES = ("passage", "context", "article", "paragraph", "story")
QUESTIONS = ("question", "query", "goal", "problem", "instruction", "input", "prompt", "sentence")
"""Names of fields under which data sets have the topic, the shared passage and the question."""
_LM_EVAL = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics",
    "doc_hash", "prompt_hash", "target_hash",
}  # fmt: skip
_POINTS = {
    "A>>B": 1.0, "A>B": 1.0, "B<A": 1.0, "B<<A": 1.0, "A=B": 0.5, "B=A": 0.5, "A<B": 0.0,
    "A<<B": 0.0, "B>A": 0.0, "B>>A": 0.0,
}  # fmt: skip
"""Points of the answer read first, by an arena-hard label."""
_JUDGED = re.compile(
    r"<\|User Prompt\|>\n?(.*?)\s*<\|The Start of Assistant A's Answer\|>"
    r"(?:.*?Start of Assistant B's Answer\|>\s*(.*?)\s*<\|The End of Assistant B)?",
    re.S,
)


@dataclass(slots=True)
class LogRow:
    """A scored answer, whichever tool wrote it."""

    task: str
    """Empty where neither the row nor the file's name says it."""
    item: str
    """What identifies the item's content; the same item of another log has the same."""
    values: Mapping[str, float | None]
    """Score by metric, the tool's first one first; None where a call or a verdict failed."""
    sample: int = 0
    prompt: str = ""
    """Digest of what the model was sent; empty where the log does not have it."""
    question: str = ""
    response: str = ""
    answer: str | None = None
    """The answer found in the response; None where there is no answer."""
    gold: str = ""
    topic: str = ""
    passage: str = ""
    """Id or digest of the text that several items share."""


Fields = Mapping[str, Any]
Parse = Callable[[Fields, str, str], LogRow]
"""A row from its fields, its place for messages, and the task that its file is named after."""


def digest(*texts: str) -> str:
    """Return a short digest of texts, whose boundaries count; empty if all are empty."""
    whole = "\0".join(texts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(whole).hexdigest()[:32] if any(texts) else ""


def first_text(fields: Fields, names: tuple[str, ...]) -> str:
    """Return the first of these fields that is a text, else an empty one."""
    return next((fields[name] for name in names if isinstance(fields.get(name), str)), "")


def _number(value: object, name: str, where: str) -> float:
    if not isinstance(value, int | float) or not isfinite(value):
        raise InputError(f"{where}: {name} = {value!r:.60} is not a finite number")
    return float(value)


def spyhop_row(row: Fields, where: str, task: str) -> LogRow:
    """Read a row of `scores-NAME.jsonl`, or of an artifact of scores."""
    suite, name = field(row, "suite", where), field(row, "task", where)
    scores = {field(row, "metric", where): row.get("value"), **(row.get("metrics") or {})}
    is_failed = row.get("ending") == "failed"
    question = row.get("question") or ""
    return LogRow(
        task=name if name == suite else f"{suite} {name}",
        item=row.get("item_digest") or field(row, "id", where),
        values={k: None if is_failed else _number(v, k, where) for k, v in scores.items()},
        sample=row.get("sample_index") or 0, prompt=row.get("prompt_digest") or digest(question),
        question=question, response=field(row, "response", where), answer=row.get("extracted"),
        gold=str(row.get("target", "")), topic=row.get("topic") or "",
        passage=row.get("passage") or "",
    )  # fmt: skip


def lm_eval_row(row: Fields, where: str, task: str) -> LogRow:
    """Read a row of `samples_TASK_DATE.jsonl`, one for each document and filter."""
    doc, responses = field(row, "doc", where, dict), field(row, "resps", where, list)
    calls = field(row, "arguments", where, (dict, list))
    sent = [_texts(call) for call in (calls.values() if isinstance(calls, dict) else calls)]
    options = [option.strip() for _, option in sent]
    names = row.get("metrics") or [key for key in row if key not in _LM_EVAL]
    mark = "" if (chosen := row.get("filter", "none")) == "none" else f",{chosen}"
    scores = {name: row[name] for name in names if isinstance(row.get(name), int | float)}
    if not scores:
        raise InputError(f"{where}: no metric is a number; it has {', '.join(names) or 'none'}")
    response, found, gold = _inner(responses), _inner(row.get("filtered_resps")), row.get("target")
    is_choice = isinstance(response, list) and isinstance(_inner(response), list)
    if is_choice:
        sums = [float(_inner(each)) for each in row["filtered_resps"]]
        found = options[sums.index(max(sums))] if len(sums) == len(options) else None
        is_number = str(gold).isdecimal() and int(str(gold)) < len(options)
        response, gold = "", options[int(str(gold))] if is_number else gold
    return LogRow(
        task=task,
        item=row.get("doc_hash") or digest(json.dumps(doc, sort_keys=True)),
        values={f"{name}{mark}": _number(value, name, where) for name, value in scores.items()},
        prompt=row.get("prompt_hash") or digest(*(prompt for prompt, _ in sent)),
        question=first_text(doc, QUESTIONS) or (sent[0][0] if sent else ""),
        response=str(_inner(response)),
        answer=None if found in (None, "[invalid]") else str(_inner(found)),
        gold=str(gold),
        topic=first_text(doc, TOPICS),
        passage=digest(first_text(doc, PASSAGES)),
    )


def _texts(call: object) -> tuple[str, str]:
    """Return prompt and continuation of a request; older versions log a list."""
    parts = list(call.values()) if isinstance(call, dict) else call
    texts = [part for part in parts if isinstance(part, str)] if isinstance(parts, list) else []
    return (*texts, "", "")[:2]  # type: ignore[return-value]


def _inner(value: Any) -> Any:  # noqa: ANN401 (plain data)
    """Return the first of a list, else the value."""
    return value[0] if isinstance(value, list) and value else value


def alpaca_row(row: Fields, where: str, task: str) -> LogRow:
    """Read an annotation of AlpacaEval: the points of `output_2` against `output_1`.

    `preference` is 1 or 2, or between them if it is a mean; a draw is coded 0 or 1.5.
    """
    instruction, points = field(row, "instruction", where), row.get("preference")
    if points is not None:
        points = _number(points, "preference", where)
        if points != 0 and not 1 <= points <= 2:
            raise InputError(f"{where}: preference = {points:g} is neither 0 nor from 1 to 2")
        points = points - 1 if points else 0.5
    return LogRow(
        task="alpaca_eval",
        item=digest(instruction),
        values={"win_rate": points},
        question=instruction,
        response=field(row, "output_2", where),
        answer=_side(points),
        topic=row.get("dataset") or "",
    )


def arena_row(row: Fields, where: str, task: str) -> LogRow:
    """Read a judgment of arena-hard: the model's points over both orders.

    In the first game the model's answer is read second, in the second game first. A question with
    a missing game has no points. A>>B counts as A>B.
    """
    games = field(row, "games", where, list)
    labels = [game["score"].strip().upper() for game in games if game and game.get("score")]
    if unknown := set(labels) - _POINTS.keys():
        raise InputError(f"{where}: unknown label {unknown.pop()!r}")
    points = None
    if len(games) == len(labels) == 2:
        points = (1 - _POINTS[labels[0]] + _POINTS[labels[1]]) / 2
    sent = (games[0].get("user_prompt") or games[0].get("prompt")) if games and games[0] else ""
    if isinstance(sent, list):  # messages, since version 2.0
        sent = "\n".join(str(turn.get("content")) for turn in sent if isinstance(turn, dict))
    item = str(row.get("uid") or field(row, "question_id", where))
    found = _JUDGED.search(str(sent))
    return LogRow(
        task="arena_hard",
        item=item,
        values={"win_rate": points},
        question=found[1] if found else item,
        response=(found and found[2]) or "",
        answer=_side(points),
        topic=first_text(row, TOPICS),
    )


def _side(points: float | None) -> str | None:
    return None if points is None else "win" if points > 0.5 else "loss" if points < 0.5 else "draw"


FORMATS: dict[str, tuple[str, str, Parse]] = {
    "spyhop": ("metric", "response", spyhop_row),
    "lm-eval": ("doc", "resps", lm_eval_row),
    "AlpacaEval": ("instruction", "preference", alpaca_row),
    "arena-hard": ("games", "judge", arena_row),
}
"""By tool: two fields that tell its rows, and the reader of a row."""
