"""Rows of each tool's JSON lines: spyhop's scores, lm-eval, AlpacaEval, arena-hard.

Sources: lm-eval 0.4.13 (`log_samples`), AlpacaEval 0.6 (`annotations.json`), arena-hard-auto 0.1
and 2.0 (`model_judgment`), as those tools write them.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from spyhop.evaluate.logs.row import (
    PASSAGES,
    QUESTIONS,
    TOPICS,
    LogRow,
    digest,
    first_text,
    need,
    number,
)
from spyhop.schema import InputError

Fields = Mapping[str, Any]
Parse = Callable[[Fields, str, str], LogRow]
"""A row from its fields, its place for messages, and the task that its file is named after."""
_BATTLES = {
    "A>>B": 1.0, "A>B": 1.0, "A=B": 0.5, "B=A": 0.5, "A<B": 0.0, "A<<B": 0.0,
    "B>>A": 0.0, "B>A": 0.0, "B<A": 1.0, "B<<A": 1.0,
}  # fmt: skip
"""Points of the answer read first, by an arena-hard label."""
_ASKED = re.compile(r"<\|User Prompt\|>\n?(.*?)\s*<\|The Start of Assistant A's Answer\|>", re.S)
_SHOWN = re.compile(r"Start of Assistant B's Answer\|>\s*(.*?)\s*<\|The End of Assistant B", re.S)


def spyhop_row(row: Fields, where: str, task: str) -> LogRow:
    """Read a row of `scores-NAME.jsonl`, or of an artifact of scores."""
    suite, name = need(row, "suite", str, where), need(row, "task", str, where)
    values: dict[str, float | None] = {need(row, "metric", str, where): row["value"]}
    values |= dict(row.get("metrics") or {})
    is_failed = row.get("ending") == "failed"
    question = row.get("question") or ""
    return LogRow(
        task=name if name == suite else f"{suite} {name}",
        item=row.get("item_digest") or need(row, "id", str, where),
        values={
            metric: None if is_failed else number(value, metric, where)
            for metric, value in values.items()
        },
        sample=row.get("sample_index") or 0,
        prompt=row.get("prompt_digest") or (digest(question) if question else ""),
        question=question,
        response=need(row, "response", str, where),
        answer=row.get("extracted"),
        gold=str(row.get("target", "")),
        topic=row.get("topic") or "",
        passage=row.get("passage") or "",
    )


def lm_eval_row(row: Fields, where: str, task: str) -> LogRow:
    """Read a row of `samples_TASK_DATE.jsonl`, one for each document and filter."""
    doc = need(row, "doc", dict, where)
    responses = need(row, "resps", list, where)
    calls = need(row, "arguments", (dict, list), where)
    prompts = [_arguments(call) for call in (calls.values() if isinstance(calls, dict) else calls)]
    names = row.get("metrics") or [key for key in row if key not in _LM_EVAL]
    chosen = row.get("filter", "none")
    mark = "" if chosen == "none" else f",{chosen}"
    values = {
        f"{name}{mark}": number(row[name], name, where)
        for name in names
        if isinstance(row.get(name), int | float)
    }
    if not values:
        raise InputError(
            f"{where}: no metric is a number; found: {', '.join(names) or 'no metric'}"
        )
    is_choice = bool(responses) and isinstance(_inner(responses[0]), list)
    filtered = row.get("filtered_resps") or [None]
    asked = prompts[0][0] if prompts else ""
    passage = first_text(doc, PASSAGES)
    return LogRow(
        task=task,
        item=row.get("doc_hash") or digest(json.dumps(doc, sort_keys=True)),
        values=values,
        prompt=row.get("prompt_hash") or digest(*(prompt for prompt, _ in prompts)),
        question=first_text(doc, QUESTIONS) or asked,
        response="" if is_choice else str(_inner(responses[0])) if responses else "",
        answer=_likeliest(filtered, prompts) if is_choice else _text(filtered[0]),
        gold=_gold(row, [option for _, option in prompts] if is_choice else []),
        topic=first_text(doc, TOPICS),
        passage=digest(passage) if passage else "",
    )


_LM_EVAL = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics",
    "doc_hash", "prompt_hash", "target_hash",
}  # fmt: skip


def _arguments(call: object) -> tuple[str, str]:
    """Return prompt and continuation of a request; older versions log a list."""
    parts = list(call.values()) if isinstance(call, dict) else call
    texts = [part for part in parts if isinstance(part, str)] if isinstance(parts, list) else []
    return (*texts, "", "")[:2]  # type: ignore[return-value]


def _inner(response: Any) -> Any:  # noqa: ANN401 (a text, or a log-probability with a flag)
    """Return the first repeat of a request's responses."""
    return response[0] if isinstance(response, list) and response else response


def _text(value: object) -> str | None:
    """Return a filtered answer; lm-eval writes `[invalid]` where a pattern found none."""
    value = _inner(value)
    return None if value is None or value == "[invalid]" else str(value)


def _likeliest(scored: list[Any], prompts: list[tuple[str, str]]) -> str | None:
    """Return the option of the highest log-probability."""
    try:
        sums = [float(each[0]) for each in scored]
    except (TypeError, ValueError, IndexError):
        return None
    options = [option for _, option in prompts]
    return options[sums.index(max(sums))].strip() if len(sums) == len(options) else None


def _gold(row: Fields, options: list[str]) -> str:
    """Return the gold answer; for multiple choice the option's text, where its number is logged."""
    target = str(row.get("target", ""))
    is_number = target.isdecimal() and int(target) < len(options)
    return options[int(target)].strip() if is_number else target


def alpaca_row(row: Fields, where: str, task: str) -> LogRow:
    """Read an annotation of AlpacaEval: the points of `output_2` against `output_1`.

    `preference` is 1 or 2, or between them if it is a mean; a draw is coded 0 or 1.5.
    """
    instruction = need(row, "instruction", str, where)
    preference = row.get("preference")
    points: float | None = None
    if preference is not None:
        preference = number(preference, "preference", where)
        if preference != 0 and not 1 <= preference <= 2:
            raise InputError(f"{where}: preference = {preference:g} is neither 0 nor from 1 to 2")
        points = preference - 1 if preference else 0.5
    return LogRow(
        task="alpaca_eval",
        item=digest(instruction),
        values={"win_rate": points},
        question=instruction,
        response=need(row, "output_2", str, where),
        answer=None if points is None else _side(points),
        gold=str(row.get("generator_1", "")),
        topic=row.get("dataset") or "",
    )


def arena_row(row: Fields, where: str, task: str) -> LogRow:
    """Read a judgment of arena-hard: the model's points over both orders.

    In the first game the model's answer is read second, in the second game first. A question with
    a missing game has no points. A>>B counts as A>B.
    """
    games = need(row, "games", list, where)
    item = row.get("uid") or need(row, "question_id", str, where)
    texts = [_judge_prompt(game) for game in games]
    points: float | None = None
    if len(games) == 2 and all(game and game.get("score") for game in games):
        try:
            first, second = (_BATTLES[game["score"].strip().upper()] for game in games)
        except KeyError as error:
            raise InputError(f"{where}: unknown label {error}") from None
        points = (1 - first + second) / 2
    question, response = (_found(mark, texts) for mark in (_ASKED, _SHOWN))
    return LogRow(
        task="arena_hard",
        item=item,
        values={"win_rate": points},
        question=question or item,
        response=response,
        answer=None if points is None else _side(points),
        gold=str(row.get("baseline") or ""),
        topic=first_text(row, ("category", "cluster")),
    )


def _side(points: float) -> str:
    return "win" if points > 0.5 else "loss" if points < 0.5 else "draw"


def _judge_prompt(game: Any) -> str:  # noqa: ANN401 (plain data)
    """Return what the judge was sent: one text (0.1), or messages (2.0)."""
    if not isinstance(game, dict):
        return ""
    found = game.get("user_prompt") or game.get("prompt") or ""
    if isinstance(found, list):
        return "\n".join(str(turn.get("content")) for turn in found if isinstance(turn, dict))
    return str(found)


def _found(pattern: re.Pattern[str], texts: list[str]) -> str:
    match = pattern.search(texts[0]) if texts else None
    return match[1] if match else ""


FORMATS: dict[str, tuple[str, str, Parse]] = {
    "spyhop": ("metric", "response", spyhop_row),
    "lm-eval": ("doc", "resps", lm_eval_row),
    "AlpacaEval": ("instruction", "preference", alpaca_row),
    "arena-hard": ("games", "judge", arena_row),
}
"""By tool: two fields that tell its rows, and the reader of a row."""
