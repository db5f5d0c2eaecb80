"""Generate teacher answers: one row per sample of a prompt."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from spyhop.models import Model, Reply, Sampling
from spyhop.models.script import Ask, Failures, Script, play
from spyhop.schema import Answer, Config, Message, Prompt, RecipeError
from spyhop.stage import Calls, Context, Estimate, stage
from spyhop.store import Artifact

PROMPT_TOKENS = 150
RESPONSE_TOKENS = 150
"""Planning figures for collections of unknown length."""
RETRIED_FRAC = 0.02
"""Planning figure: share of rows that a `retry` policy requests twice."""

Policy = Literal["keep", "drop"]
RetryPolicy = Literal["retry", "keep", "drop"]
Check = Callable[[str], bool]


class Outcomes(Config):
    """Policies for replies that are not a whole, valid answer.

    `keep` writes the row with its `outcome`, `drop` drops and counts it, `retry` requests the
    answer once more. A good second reply has the outcome `mended`; a second reply with a defect
    follows the policy of that defect (`retry` then keeps it). If the second call fails, the first
    reply is kept. Training uses whole responses only, so `keep` is safe.
    """

    refused: Policy = "keep"
    """A content filter stopped the response before its first word, or the model refused."""
    cut: RetryPolicy = "keep"
    """The response reached `max_new_tokens`, or a filter stopped it halfway; a retry allows more
    tokens."""
    empty: RetryPolicy = "keep"
    """The response is white space only."""
    unparsable: RetryPolicy = "keep"
    """Responses that are not JSON of `sampling.json_schema`, if that is set. A retry of an empty or
    unparsable response is another sample, since many servers repeat themselves at temperature 0."""
    failed: Policy = "keep"
    """The call failed permanently."""
    more_room: float = Field(2.0, gt=1.0)
    """Token limit of the retry of a cut response, in multiples of `max_new_tokens`."""


class AnswerConfig(Config):
    """Sampling of the teacher, and policies for its replies."""

    sampling: Sampling = Sampling()
    outcomes: Outcomes = Outcomes()
    reasoning: Policy = "keep"
    """Whether rows keep the thoughts of a reasoning model; they are billed either way."""
    num_samples: int = Field(1, ge=1)
    """Samples per prompt, one row each; the ids are `<id>`, `<id>.1`, `<id>.2`, ..."""


def plan_answer(config: AnswerConfig, prompts: Estimate, teacher: Estimate) -> Estimate:
    """One request per sample of a prompt, and a few more for `retry` policies."""
    rows, outcomes, room = prompts.rows * config.num_samples, config.outcomes, config.sampling
    prompt_tokens = prompts.row_tokens or PROMPT_TOKENS
    response_tokens = min(RESPONSE_TOKENS, room.max_new_tokens)
    is_retried = "retry" in (outcomes.cut, outcomes.empty, outcomes.unparsable)
    requests = rows + math.ceil(rows * RETRIED_FRAC * is_retried)
    again_tokens = _more_room(config).max_new_tokens if outcomes.cut == "retry" else 0
    most_tokens = room.max_new_tokens + max(again_tokens, room.max_new_tokens * is_retried)
    calls = Calls(
        requests=requests,
        prompt_tokens=round(requests * prompt_tokens),
        response_tokens=requests * response_tokens,
        most_response_tokens=rows * most_tokens,
        further_prompt_tokens=round((rows * (1 + is_retried) - requests) * prompt_tokens),
    )
    return Estimate(rows=rows, row_tokens=prompt_tokens + response_tokens, calls={"teacher": calls})


@stage(version=3, writes=Answer, plan=plan_answer)
def answer(
    ctx: Context, config: AnswerConfig, *, prompts: Artifact, teacher: Model
) -> Iterator[Answer]:
    """Yield one row per sample of a prompt, in order; a failed call is a row with its error.

    Counts: `ending/<ending>` of every row, `outcome/<outcome>` of rows with one, `retried/<defect>`
    and, of these, `retried/<defect>/mended`.
    """
    is_valid = json_check(config.sampling.json_schema)
    teacher.check_samples(config.num_samples, config.sampling)
    scripts = (
        _ask(ctx, config, prompt, sample, teacher, is_valid)
        for prompt in prompts.rows(Prompt)
        for sample in range(config.num_samples)
    )
    yield from finish(ctx, scripts, teacher)


@dataclass(frozen=True, slots=True)
class Finished:
    """The resulting row of a script."""

    row: Answer
    drop: str = ""
    """Why to drop the row; empty to keep it."""


def finish(ctx: Context, scripts: Iterable[Script[Finished]], *models: Model) -> Iterator[Answer]:
    """Play scripts, count and drop rows as their results say, and yield the others.

    The first model's failures are checked at the end.
    """
    failures = Failures(models[0].label, ctx.runtime.max_error_frac)
    for result in play(scripts, *models):
        row = result.row
        failures.see(row.error)
        ctx.count(f"ending/{row.ending}")
        if row.outcome:
            ctx.count(f"outcome/{row.outcome}")
        if result.drop:
            ctx.drop(row, result.drop)
        else:
            yield row
    failures.check()


def answer_row(prompt: Prompt, reply: Reply, model: str, **changes: object) -> Answer:
    """Return a prompt and its reply as a row; `changes` adds or replaces columns."""
    turns = list(prompt.messages)
    if reply.error is None:
        turns.append(Message(role="assistant", content=reply.text))
    asked = ("id", "query_id", "collection", "task", "system_id", "target")
    said = ("finish_reason", "ending", "prompt_tokens", "response_tokens", "reasoning",
            "log_probability", "error")  # fmt: skip
    values = {name: getattr(prompt, name) for name in asked}
    values |= {name: getattr(reply, name) for name in said}
    return Answer.model_validate({**values, "messages": turns, "model": model, **changes})


def json_check(schema: dict[str, Any] | None) -> Check:
    """Return a test whether a text is JSON of a schema; without a schema, every text passes.

    References to other schemas are never fetched.
    """
    if schema is None:
        return lambda text: True
    from jsonschema import SchemaError  # type: ignore[import-untyped]
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise RecipeError(f"sampling.json_schema is not a JSON schema: {error.message}") from None
    validator = kind(schema, registry=Registry())

    def is_valid(text: str) -> bool:
        try:
            return bool(validator.is_valid(json.loads(text, parse_constant=_refuse)))
        except Unresolvable as error:
            raise RecipeError(f"sampling.json_schema: {error}") from None
        except (ValueError, RecursionError):
            return False

    return is_valid


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _ask(
    ctx: Context, config: AnswerConfig, prompt: Prompt, sample: int, teacher: Model, is_valid: Check
) -> Script[Finished]:
    (reply,) = yield [Ask(teacher, prompt.messages, config.sampling, sample)]
    outcome = defect = _defect(reply, is_valid)
    policies = dict(config.outcomes)
    if policies.get(defect) == "retry":
        room = _more_room(config) if defect == "cut" else config.sampling
        other = sample if defect == "cut" else sample + config.num_samples
        (second,) = yield [Ask(teacher, prompt.messages, room, other)]
        ctx.count(f"retried/{defect}")
        if second.error is None:
            reply, outcome = second, _defect(second, is_valid) or "mended"
            ctx.count(f"retried/{defect}/mended", int(outcome == "mended"))
    row = answer_row(
        prompt,
        reply,
        teacher.label,
        id=f"{prompt.id}.{sample}" if sample else prompt.id,
        reasoning=reply.reasoning if config.reasoning == "keep" else "",
        sample_index=sample,
        outcome=outcome,
    )
    return Finished(row, drop=outcome if policies.get(outcome) == "drop" else "")


def _more_room(config: AnswerConfig) -> Sampling:
    tokens = math.ceil(config.sampling.max_new_tokens * config.outcomes.more_room)
    return config.sampling.model_copy(update={"max_new_tokens": tokens})


def _defect(reply: Reply, is_valid: Check) -> str:
    """Return why a reply is not a whole, valid answer; empty if it is one."""
    if reply.ending != "whole":
        return reply.ending
    return "" if is_valid(reply.text) else "unparsable"
