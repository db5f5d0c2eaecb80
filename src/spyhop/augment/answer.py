"""Ask a model every prompt, and keep each reply as a row."""

from collections.abc import Iterator

from pydantic import Field

from spyhop.models import Model, Reply, Request, Sampling
from spyhop.schema import Answer, Config, Message, ModelError, Prompt
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact

PROMPT_TOKENS = 150
RESPONSE_TOKENS = 150
"""Planning figures where nothing is known of the collection."""


class AnswerConfig(Config):
    """How a teacher is asked."""

    sampling: Sampling = Sampling()
    max_error_frac: float = Field(0.05, ge=0, le=1)
    """Above this share of failed calls the stage fails instead of quietly shrinking the data."""


def plan_answer(config: AnswerConfig, prompts: Estimate, teacher: Estimate) -> Estimate:
    """One request per prompt."""
    tokens = prompts.rows * (PROMPT_TOKENS + RESPONSE_TOKENS)
    return Estimate(rows=prompts.rows, requests=prompts.rows, tokens=tokens)


@stage(version=1, writes=Answer, plan=plan_answer)
def answer(
    ctx: Context, config: AnswerConfig, *, prompts: Artifact, teacher: Model
) -> Iterator[Answer]:
    """Yield one row per prompt, in order; a failed call is a row with its error.

    Raises:
        ModelError: If more than `max_error_frac` of the calls failed.
    """
    requests = (Request(id=row.id, messages=row.messages) for row in prompts.rows(Prompt))
    replies = teacher.generate(requests, config.sampling, total=prompts.num_rows)
    num_errors, last_error = 0, ""
    for prompt, reply in zip(prompts.rows(Prompt), replies, strict=True):
        ctx.count(f"finish/{reply.finish_reason}")
        if reply.error is not None:
            num_errors, last_error = num_errors + 1, reply.error
        yield _row(prompt, reply, teacher.label)
    if num_errors > config.max_error_frac * max(1, prompts.num_rows):
        raise ModelError(
            f"{teacher.label}: {num_errors} of {prompts.num_rows} calls failed, more than "
            f"max_error_frac = {config.max_error_frac:g} (last error: {last_error})"
        )


def _row(prompt: Prompt, reply: Reply, model: str) -> Answer:
    turns = list(prompt.messages)
    if reply.error is None:
        turns.append(Message(role="assistant", content=reply.text))
    return Answer(
        id=prompt.id,
        query_id=prompt.query_id,
        collection=prompt.collection,
        task=prompt.task,
        system_id=prompt.system_id,
        messages=turns,
        target=prompt.target,
        model=model,
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.prompt_tokens,
        response_tokens=reply.response_tokens,
        error=reply.error,
    )
