"""Judge responses by a model: pairs in both orders, or single responses by a grade.

A tenth of the questions is judged twice, so that the judge's own variance is known. A verdict that
cannot be read is missing. The judge is asked through the journal like every model, so a run that
was stopped asks for no verdict again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import combinations
from math import ceil
from typing import Any, Literal, get_args

import pyarrow as pa
from pydantic import Field, model_validator

from spyhop.evaluate.judge_prompts import Case, Form, JudgePrompt, own_prompts
from spyhop.models import Model, Reply, Sampling
from spyhop.models.script import Ask, Failures, Script, play
from spyhop.schema import (
    Answer,
    Config,
    InputError,
    Item,
    Message,
    Prompt,
    Question,
    Response,
    Row,
    Score,
    Verdict,
    prompt_turns,
)
from spyhop.stage import CHARS_PER_TOKEN, Calls, Context, Estimate, stage
from spyhop.store import Artifact, number_of, row_id
from spyhop.text.template import fill
from spyhop.text.verdict import Reading, Winner, read_grade, read_grades, read_winner

RESPONSE_TOKENS, REASON_TOKENS, QUESTION_TOKENS = 300, 150, 60
"""Planning figures."""
EQUAL = "equal responses"
"""Reason of a tie that no judge was asked for."""


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
        return {**values, "prompts": {**own_prompts(str(form)), **given}}

    @model_validator(mode="after")
    def _shows_responses(self) -> "JudgeConfig":
        fields = ("{answer",) if self.form == "scored" else ("{answer_a", "{answer_b")
        for case, prompt in self.prompts.items():
            if missing := [each for each in fields if each not in prompt.user]:
                raise ValueError(f"prompts.{case}.user does not contain {missing[0]}}}")
        return self


def plan_judge(
    config: JudgeConfig, questions: Estimate, answers: Mapping[str, Estimate], judge: Estimate
) -> Estimate:
    """Count the judgements of every pair (or model) in their orders, and the second ones.

    Further calls are those after replies without a verdict.
    """
    num = len(_pairs(config, list(answers)))
    is_pair = config.form != "scored"
    orders = 2 if is_pair and config.orders == "both" else 1
    rows = round(questions.rows * num * orders * (1 + config.repeat_frac))
    texts = max(len(each.system_message) + len(each.user) for each in config.prompts.values())
    response = max((each.row_tokens for each in answers.values()), default=0) or RESPONSE_TOKENS
    asked = texts / CHARS_PER_TOKEN + QUESTION_TOKENS + response * (2 if is_pair else 1)
    room = config.sampling.max_new_tokens
    again = config.attempts - 1
    calls = Calls(
        requests=rows,
        prompt_tokens=round(rows * asked),
        response_tokens=rows * min(REASON_TOKENS, room),
        most_response_tokens=rows * room,
        further_prompt_tokens=round(rows * asked * again),
        further_response_tokens=rows * room * again,
    )
    return Estimate(rows=rows, calls={"judge": calls})


@stage(version=1, writes=Verdict, plan=plan_judge, shows_names=True)
def judge(
    ctx: Context,
    config: JudgeConfig,
    *,
    questions: Artifact,
    answers: Mapping[str, Artifact],
    judge: Model,
) -> Iterator[Verdict]:
    """Yield the verdicts on every question and turn, in order; equal responses are a tie unasked.

    Args:
        ctx: As for every stage.
        config: Prompts and protocol.
        questions: Rows of `Question`, or of `Item` or `Prompt`.
        answers: By the model's name, rows of `Response`, `Answer` or `Score` with the questions'
            ids.
        judge: The model that judges.

    Counts: `winner/a`, `winner/b`, `winner/tie`, `graded`, `equal`, `missing/<reason>`,
    `repeated`.

    Raises:
        InputError: If there is no pair to judge, or no question has a response.
        ModelError: If more than `max_error_frac` of the judge's calls failed.
    """
    pairs = _pairs(config, list(answers))
    responses = {name: read_responses(artifact) for name, artifact in answers.items()}
    failures = Failures(judge.label, ctx.runtime.max_error_frac)
    judging = _Judging(config, judge, _repeated(config, questions))
    scripts = (
        judging.about(question, turn, pair, responses)
        for question in read_questions(questions)
        for turn in range(1, len(question.turns) + 1)
        for pair in pairs
    )
    num_read = 0
    for verdicts in play(scripts, judge):
        for verdict in verdicts:
            num_read += int(verdict.missing != "no_response")
            failures.see(verdict.error)
            _count(ctx, verdict)
            yield verdict
    failures.check()
    if not num_read:
        raise InputError(
            f"{questions.name}: no question has responses of both models of a pair; the ids of "
            "answers must be those of the questions"
        )


def read_questions(questions: Artifact) -> Iterator[Question]:
    """Yield questions; an item or prompt is a question of one turn (or the user's turns)."""
    kind = _kind(questions, {"turns": Question, "messages": Prompt, "question": Item})
    for row in questions.rows(kind):
        if isinstance(row, Question):
            yield row
        elif isinstance(row, Prompt):
            turns = [turn.content for turn in row.messages if turn.role == "user"]
            yield Question(id=row.id, suite=row.collection, topic=row.task, turns=turns)
        elif isinstance(row, Item):
            topic = row.topic or row.task
            yield Question(id=row.id, suite=row.suite, topic=topic, turns=[row.question])


def read_responses(answers: Artifact) -> dict[str, Response]:
    """Return responses by the question's id; of several samples the first one counts.

    Failed calls are no responses.
    """
    kind = _kind(answers, {"turns": Response, "messages": Answer, "response": Score})
    found: dict[str, Response] = {}
    for row in answers.rows(kind):
        if isinstance(row, Answer):
            turns = [turn.content for turn in row.messages if turn.role == "assistant"]
            row = Response(id=row.id, model=row.model, turns=turns, ending=row.ending)
        elif isinstance(row, Score):
            row = Response(id=row.id, turns=[row.response], ending=row.ending)
        assert isinstance(row, Response)
        if row.ending != "failed":
            found.setdefault(row.id, row)
    return found


def _kind(artifact: Artifact, kinds: Mapping[str, type[Row]]) -> type[Row]:
    """Return the type of an artifact's rows by the first of these columns that it has."""
    empty = pa.RecordBatch.from_pylist([])
    columns = next(artifact.batches(), empty).schema.names
    for column, kind in kinds.items():
        if column in columns:
            return kind
    if not artifact.num_rows:
        return next(iter(kinds.values()))
    raise InputError(f"{artifact.name}: rows of {', '.join(columns)}; one of {list(kinds)} needed")


def _pairs(config: JudgeConfig, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs to judge; single models are pairs with nothing."""
    if config.form == "scored":
        return [(name, "") for name in names]
    if not config.reference:
        return list(combinations(names, 2))
    if config.reference not in names:
        raise InputError(f"reference {config.reference!r}: not among {', '.join(names)}")
    return [(config.reference, name) for name in names if name != config.reference]


def _repeated(config: JudgeConfig, questions: Artifact) -> frozenset[str]:
    """Return the questions that are judged twice: a fixed sample, at least one."""
    ids = [row_id for batch in questions.batches(["id"]) for row_id in batch["id"].to_pylist()]
    num = ceil(config.repeat_frac * len(ids))
    return frozenset(nsmallest(num, ids, key=lambda each: number_of(f"0/judged twice/{each}")))


def _count(ctx: Context, verdict: Verdict) -> None:
    if verdict.missing:
        ctx.count(f"missing/{verdict.missing}")
    elif verdict.winner is not None:
        ctx.count(f"winner/{verdict.winner}")
    else:
        ctx.count("graded")
    ctx.count("repeated", int(verdict.repeat > 0))
    ctx.count("equal", int(verdict.reason == EQUAL))


@dataclass(frozen=True, slots=True)
class _Judging:
    config: JudgeConfig
    judge: Model
    repeated: frozenset[str]
    """Ids of the questions that are judged twice."""

    def about(
        self,
        question: Question,
        turn: int,
        pair: tuple[str, str],
        responses: Mapping[str, Mapping[str, Response]],
    ) -> Script[list[Verdict]]:
        """Ask for all verdicts on one turn of a question, together."""
        sides = [responses[name].get(question.id) for name in pair if name]
        shown = [side.turns for side in sides if side is not None and len(side.turns) >= turn]
        rows = [
            Verdict(
                id=row_id(question.id, *pair, order, str(turn), str(repeat), self.judge.label),
                item_id=question.id,
                judge=self.judge.label,
                a=pair[0],
                b=pair[1],
                order=order,
                turn=turn,
                repeat=repeat,
                suite=question.suite,
                topic=question.topic,
            )
            for order in self._orders()
            for repeat in range(2 if question.id in self.repeated else 1)
        ]
        if len(shown) < len(sides):
            return [row.model_copy(update={"missing": "no_response"}) for row in rows]
        if (
            len(shown) == 2
            and shown[0][:turn] == shown[1][:turn]
            and self.config.form == "pairwise"
        ):
            return [row.model_copy(update={"winner": "tie", "reason": EQUAL}) for row in rows]
        return (yield from self._ask(question, turn, shown, rows))

    def _ask(
        self, question: Question, turn: int, shown: Sequence[list[str]], rows: list[Verdict]
    ) -> Script[list[Verdict]]:
        """Ask for each verdict; where a reply has none, ask again with another sample."""
        due, found = list(range(len(rows))), list(rows)
        for attempt in range(self.config.attempts):
            asks = [
                Ask(
                    self.judge,
                    self._messages(question, turn, shown[:: -1 if rows[n].order == "ba" else 1]),
                    self.config.sampling,
                    rows[n].repeat + 2 * attempt,
                )
                for n in due
            ]
            replies = yield asks
            for n, reply in zip(due, replies, strict=True):
                found[n] = self._read(rows[n], reply)
            due = [n for n in due if found[n].missing and found[n].error is None]
            if not due:
                break
        return found

    def _orders(self) -> tuple[Literal["", "ab", "ba"], ...]:
        if self.config.form == "scored":
            return ("",)
        return ("ab", "ba") if self.config.orders == "both" else (self.config.orders,)

    def _messages(self, question: Question, turn: int, shown: Sequence[list[str]]) -> list[Message]:
        has_reference = bool(_reference(question, turn))
        case: Case = "reference" if has_reference else "general"
        if turn > 1:
            case = "turns_reference" if has_reference else "turns"
        prompt = self.config.prompts[case]
        text = fill(prompt.user, **_fields(question, turn, shown))
        return prompt_turns(text, prompt.system_message)

    def _read(self, row: Verdict, reply: Reply) -> Verdict:
        """Read a reply; what was cut, refused or failed states no verdict."""
        common = {"reason": reply.text, "error": reply.error}
        if reply.ending != "whole":
            return row.model_copy(update={**common, "missing": reply.ending})
        found = self._reading(reply.text)
        if found.missing:
            return row.model_copy(update={**common, "missing": found.missing})
        grades = found.grades[::-1] if row.order == "ba" else found.grades
        if not grades:
            swapped: dict[Winner | None, Winner] = {"a": "b", "b": "a", "tie": "tie"}
            winner = swapped[found.winner] if row.order == "ba" else found.winner
            return row.model_copy(update={**common, "winner": winner})
        if len(grades) == 1:
            return row.model_copy(update={**common, "score": grades[0]})
        best: Winner = "tie" if grades[0] == grades[1] else "a" if grades[0] > grades[1] else "b"
        both = {"score": grades[0], "score_b": grades[1], "winner": best}
        return row.model_copy(update={**common, **both})

    def _reading(self, text: str) -> Reading:
        if self.config.form == "pairwise":
            return read_winner(text)
        if self.config.form == "scored":
            return read_grade(text)
        return read_grades(text)


def _fields(question: Question, turn: int, shown: Sequence[list[str]]) -> dict[str, str]:
    """Return the values of a prompt's fields."""
    values = {"question": question.turns[turn - 1]}
    values |= {f"question_{n}": text for n, text in enumerate(question.turns, 1)}
    values |= {f"ref_answer_{n}": text for n, text in enumerate(question.references, 1)}
    values["reference"] = _reference(question, turn)
    suffixes = ("",) if len(shown) == 1 else ("_a", "_b")
    for suffix, turns in zip(suffixes, shown, strict=True):
        values[f"answer{suffix}"] = turns[turn - 1]
        values |= {f"answer{suffix}_{n}": text for n, text in enumerate(turns, 1)}
        before = zip(question.turns[: turn - 1], turns, strict=False)
        values[f"context{suffix}"] = "\n\n".join(
            f"User: {asked}\n\nAssistant: {said}" for asked, said in before
        )
    return values


def _reference(question: Question, turn: int) -> str:
    return question.references[turn - 1] if len(question.references) >= turn else ""
