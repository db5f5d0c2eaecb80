"""Judge responses by a model: pairs in both orders, or single responses by a grade.

A tenth of the questions is judged twice, so that the judge's own variance is known. A verdict that
cannot be read is missing. The judge is asked through the journal like every model, so a run that
was stopped asks for no verdict again.
"""

from collections.abc import Iterator, Mapping, Sequence
from heapq import nsmallest
from itertools import combinations
from math import ceil
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from spyhop.models import Model, Sampling
from spyhop.models.script import Ask, Failures, Script, play
from spyhop.schema import Config, InputError, Message, Question, Response, Verdict, prompt_turns
from spyhop.settings import read_toml
from spyhop.stage import CHARS_PER_TOKEN, Calls, Context, Estimate, Estimates, stage
from spyhop.store import Artifact, Artifacts, number_of, row_id
from spyhop.store.rows import read_rows
from spyhop.text.template import fill
from spyhop.text.verdict import Reading, Winner, read_grade, read_grades, read_winner

Form = Literal["pairwise", "graded_pairs", "scored"]
Case = Literal["general", "reference", "turns", "turns_reference"]
"""A question, one with a reference answer, and the same for a later turn of a conversation."""
CASES: tuple[Case, ...] = get_args(Case)
OWN = Path(__file__).with_name("prompts") / "judge.toml"
"""Our own prompts, by form and case."""
RESPONSE_TOKENS, REASON_TOKENS, QUESTION_TOKENS = 300, 150, 60
"""Planning figures."""
EQUAL = "equal responses"
"""Reason of a tie that no judge was asked for."""
READERS = {"pairwise": read_winner, "graded_pairs": read_grades, "scored": read_grade}
SWAPPED: dict[Winner, Winner] = {"a": "b", "b": "a", "tie": "tie"}


class JudgePrompt(Config):
    """Prompt of a judge; `{...}` are replaced.

    Fields: `{question}` and `{reference}` are those of the judged turn, `{answer}` is the response
    and `{context}` the conversation before it; of a pair `{answer_a}`, `{answer_b}`, `{context_a}`
    and `{context_b}`. `{question_2}`, `{answer_a_2}`, `{answer_2}` and `{ref_answer_2}` are
    those of the second turn, and so on.
    """

    system_message: str = ""
    """System message; an empty one is not sent."""
    user: str
    """User turn. What all judgements of a question share comes first, so that endpoints can cache
    it: question and reference before the responses."""


class JudgeConfig(Config):
    """Prompts and protocol of a judge."""

    form: Form = "pairwise"
    """Form of judging. `pairwise`: which of two responses is better. `graded_pairs`: both are
    graded in one reply, as Vicuna's and Orca's judges do. `scored`: one is graded alone."""
    prompts: dict[Case, JudgePrompt] = Field(default_factory=dict)
    """Prompts by case: `general`, `reference` (with a correct answer), `turns` (a later turn) and
    `turns_reference`. Unset ones are spyhop's own."""
    reference: str = ""
    """Name of the model that all others are compared with; default: every pair of models."""
    orders: Literal["both", "ab", "ba"] = "both"
    """Orders in which a judge reads a pair. `ab`: the reference (or the earlier model) first."""
    repeat_frac: float = Field(0.1, ge=0, le=1)
    """Share of the questions that are judged twice, to measure the judge's own variance."""
    attempts: int = Field(2, ge=1)
    """Most replies to ask for where a reply has no readable verdict. Raise it to ask again for the
    missing verdicts of a finished run; no other verdict is asked for again."""
    sampling: Sampling = Sampling(max_new_tokens=1024, temperature=0.2)
    """Default: that of the published reviews of Vicuna's answers."""

    @model_validator(mode="before")
    @classmethod
    def _whole_prompts(cls, values: Any) -> Any:  # noqa: ANN401 (plain data)
        """Hold every prompt as its whole text, so that it is part of the identity."""
        form = values.get("form", "pairwise") if isinstance(values, dict) else None
        given = values.get("prompts", {}) if form in get_args(Form) else None
        if not isinstance(given, dict):
            return values
        return {**values, "prompts": {**read_toml(OWN)[str(form)], **given}}

    @model_validator(mode="after")
    def _shows_responses(self) -> "JudgeConfig":
        fields = ("{answer",) if self.form == "scored" else ("{answer_a", "{answer_b")
        for case, prompt in self.prompts.items():
            if missing := [each for each in fields if each not in prompt.user]:
                raise ValueError(f"prompts.{case}.user does not contain {missing[0]}}}")
        return self


def read_prompts(path: Path, form: Form) -> dict[Case, JudgePrompt]:
    """Return the prompts of a form from a published file.

    Known are FastChat's `judge_prompts.jsonl` (`type`, `category`, `system_prompt`,
    `prompt_template`) and the older `prompt.jsonl` of the Vicuna reviews, which grades pairs. The
    case is read from the fields, since FastChat calls a mathematics prompt `general`.
    """
    found: dict[Case, JudgePrompt] = {}
    for where, row in read_rows(path):
        kind = "pairwise" if row.get("type") == "pairwise" else "scored"
        category = row.get("category")
        if form != (kind if "type" in row else "graded_pairs") or category == "coding":
            continue
        system, user = row.get("system_prompt"), row.get("prompt_template")
        if not isinstance(system, str) or not isinstance(user, str):
            raise InputError(f"{where}: needs the texts system_prompt and prompt_template")
        defaults = row.get("defaults")
        for name, text in (defaults if isinstance(defaults, dict) else {}).items():
            user = user.replace(f"{{{name}}}", str(text))
        if form == "graded_pairs":
            user = user.replace("{answer_1}", "{answer_a}").replace("{answer_2}", "{answer_b}")
        has_reference = "{ref_answer" in user or category == "math"
        case = CASES[2 * ("_2}" in user) + has_reference]
        found.setdefault(case, JudgePrompt(system_message=system, user=user))
    if "general" not in found:
        raise InputError(f"{path}: no general prompt of the form {form!r} in this file")
    return found


def plan_judge(
    config: JudgeConfig, questions: Estimate, answers: Estimates, judge: Estimate
) -> Estimate:
    """Count the judgements of every pair (or model) and turn, in their orders, and second ones."""
    num_turns = sum(questions.parts) or questions.rows
    num = num_turns * len(_pairs(config, list(answers))) * len(_orders(config))
    rows, again = round(num * (1 + config.repeat_frac)), config.attempts - 1
    texts = max(len(each.system_message) + len(each.user) for each in config.prompts.values())
    response = max((each.row_tokens for each in answers.values()), default=0) or RESPONSE_TOKENS
    shown = QUESTION_TOKENS + response * (1 if config.form == "scored" else 2)
    asked, most = round(rows * (texts / CHARS_PER_TOKEN + shown)), config.sampling.max_new_tokens
    calls = Calls(
        requests=rows, prompt_tokens=asked, response_tokens=rows * min(REASON_TOKENS, most),
        most_response_tokens=rows * most, further_prompt_tokens=asked * again,
        further_response_tokens=rows * most * again,
    )  # fmt: skip
    return Estimate(rows=rows, calls={"judge": calls})


@stage(version=1, writes=Verdict, plan=plan_judge, shows_names=True)
def judge(
    ctx: Context, config: JudgeConfig, *, questions: Artifact, answers: Artifacts, judge: Model
) -> Iterator[Verdict]:
    """Yield the verdicts on every question and turn, in order; equal responses are a tie unasked.

    Counts: `winner/a`, `winner/b`, `winner/tie`, `graded`, `equal`, `missing/<reason>`,
    `repeated`.
    """
    pairs = _pairs(config, list(answers))
    responses = {name: read_responses(artifact) for name, artifact in answers.items()}
    failures = Failures(judge.label, ctx.runtime.max_error_frac)
    ids = [row_id for batch in questions.batches(["id"]) for row_id in batch["id"].to_pylist()]
    num_twice = ceil(config.repeat_frac * len(ids))
    twice = set(nsmallest(num_twice, ids, key=lambda each: number_of(f"0/judged twice/{each}")))
    scripts = (
        _verdicts(config, judge, question, turn, pair, responses, 1 + (question.id in twice))
        for question in read_questions(questions)
        for turn in range(1, len(question.turns) + 1)
        for pair in pairs
    )
    num_read = 0
    for verdicts in play(scripts, judge):
        for verdict in verdicts:
            num_read += int(verdict.missing != "no_response")
            failures.see(verdict.error)
            ctx.count("equal", int(verdict.reason == EQUAL))
            ctx.count("repeated", verdict.repeat)
            ending = f"winner/{verdict.winner}" if verdict.winner else "graded"
            ctx.count(f"missing/{verdict.missing}" if verdict.missing else ending)
            yield verdict
    failures.check()
    if not num_read:
        raise InputError(
            f"{questions.name}: no question has responses of both models of a pair; the ids of "
            "answers must be those of the questions"
        )


def read_questions(questions: Artifact) -> Iterator[Question]:
    """Yield questions; an item is one of a single turn, a prompt has the turns of its user."""
    for row in (row for batch in questions.batches() for row in batch.to_pylist()):
        yield Question(
            id=row["id"],
            suite=row.get("suite") or row.get("collection", ""),
            topic=row.get("topic") or row.get("task", ""),
            turns=row.get("turns") or _turns(row, "user") or [row["question"]],
            references=row.get("references") or [],
        )


def read_responses(answers: Artifact) -> dict[str, Response]:
    """Return responses by the question's id; of several samples the first one counts.

    Failed calls are no responses.
    """
    found: dict[str, Response] = {}
    for row in (row for batch in answers.batches() for row in batch.to_pylist()):
        if row["ending"] != "failed" and row["id"] not in found:
            turns = row.get("turns") or _turns(row, "assistant") or [row.get("response", "")]
            known = {name: row.get(name) or "" for name in ("model", "origin")}
            found[row["id"]] = Response(id=row["id"], turns=turns, ending=row["ending"], **known)
    return found


def _turns(row: Mapping[str, Any], role: str) -> list[str]:
    return [turn["content"] for turn in row.get("messages", ()) if turn["role"] == role]


def _pairs(config: JudgeConfig, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs to judge; single models are pairs with nothing."""
    if config.form == "scored":
        return [(name, "") for name in names]
    if not config.reference:
        return list(combinations(names, 2))
    if config.reference not in names:
        raise InputError(f"reference {config.reference!r}: not among {', '.join(names)}")
    return [(config.reference, name) for name in names if name != config.reference]


def _orders(config: JudgeConfig) -> tuple[Literal["", "ab", "ba"], ...]:
    if config.form == "scored":
        return ("",)
    return ("ab", "ba") if config.orders == "both" else (config.orders,)


def with_reading(row: Verdict, found: Reading, reply: str) -> Verdict:
    """Return a verdict as a judge's reply states it, in the models' order."""
    winner, grades = found.winner, found.grades
    if row.order == "ba":
        winner, grades = SWAPPED[winner] if winner else None, grades[::-1]
    score, score_b = (*grades, None, None)[:2]
    update = {"winner": winner, "score": score, "score_b": score_b, "missing": found.missing}
    return row.model_copy(update={**update, "reason": reply})


def _verdicts(
    config: JudgeConfig,
    judge: Model,
    question: Question,
    turn: int,
    pair: tuple[str, str],
    responses: Mapping[str, Mapping[str, Response]],
    times: int,
) -> Script[list[Verdict]]:
    """Ask for all verdicts on one turn of a question together, each of them `times`.

    Where a reply has none, another sample is asked for.
    """
    sides = [responses[name].get(question.id) for name in pair if name]
    shown = [side.turns for side in sides if side is not None and len(side.turns) >= turn]
    name, (a, b) = judge.label, pair
    rows = [
        Verdict(
            id=row_id(question.id, a, b, order, str(turn), str(repeat), name),
            item_id=question.id, judge=name, a=a, b=b, order=order, turn=turn, repeat=repeat,
            suite=question.suite, topic=question.topic,
        )
        for order in _orders(config)
        for repeat in range(times)
    ]  # fmt: skip
    if len(shown) < len(sides):
        return [row.model_copy(update={"missing": "no_response"}) for row in rows]
    is_equal = len({tuple(turns[:turn]) for turns in shown}) == 1
    if is_equal and config.form == "pairwise":
        return [row.model_copy(update={"winner": "tie", "reason": EQUAL}) for row in rows]
    due, read, attempt = list(range(len(rows))), READERS[config.form], 0
    prompts = {
        order: _prompt(config, question, turn, shown[:: -1 if order == "ba" else 1])
        for order in _orders(config)
    }
    while due and attempt < config.attempts:
        replies = yield [
            Ask(judge, prompts[rows[n].order], config.sampling, rows[n].repeat + 2 * attempt)
            for n in due
        ]
        for n, reply in zip(due, replies, strict=True):
            is_whole = reply.ending == "whole"
            reading = read(reply.text) if is_whole else Reading(missing=reply.ending)
            verdict = with_reading(rows[n], reading, reply.text)
            rows[n] = verdict.model_copy(update={"error": reply.error})
        due = [n for n in due if rows[n].missing and rows[n].error is None]
        attempt += 1
    return rows


def _prompt(
    config: JudgeConfig, question: Question, turn: int, shown: Sequence[list[str]]
) -> list[Message]:
    """Return the prompt about responses, given by their turns in the order of showing."""
    references = question.references
    reference = references[turn - 1] if len(references) >= turn else ""
    values = {"question": question.turns[turn - 1], "reference": reference}
    values |= {f"question_{n}": text for n, text in enumerate(question.turns, 1)}
    values |= {f"ref_answer_{n}": text for n, text in enumerate(references, 1)}
    suffixes = ("",) if len(shown) == 1 else ("_a", "_b")
    for suffix, turns in zip(suffixes, shown, strict=True):
        values[f"answer{suffix}"] = turns[turn - 1]
        values |= {f"answer{suffix}_{n}": text for n, text in enumerate(turns, 1)}
        before = zip(question.turns[: turn - 1], turns, strict=False)
        values[f"context{suffix}"] = "\n\n".join(
            f"User: {asked}\n\nAssistant: {said}" for asked, said in before
        )
    prompt = config.prompts[CASES[2 * (turn > 1) + bool(reference)]]
    return prompt_turns(fill(prompt.user, **values), prompt.system_message)
