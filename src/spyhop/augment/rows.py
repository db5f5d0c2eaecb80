"""From replies to rows, as the stages of this room share it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from spyhop.models import Reply
from spyhop.models.script import Failures
from spyhop.schema import Answer, Message, Prompt
from spyhop.stage import Context


@dataclass(frozen=True, slots=True)
class Finished:
    """The resulting row of a script."""

    row: Answer
    drop: str = ""
    """Why to drop the row; empty to keep it."""


def finish(ctx: Context, results: Iterable[Finished], failures: Failures) -> Iterator[Answer]:
    """Count and drop rows as their results say, yield the others, then check the failures."""
    for result in results:
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
    values: dict[str, object] = {
        "id": prompt.id,
        "query_id": prompt.query_id,
        "collection": prompt.collection,
        "task": prompt.task,
        "system_id": prompt.system_id,
        "messages": turns,
        "target": prompt.target,
        "model": model,
        "finish_reason": reply.finish_reason,
        "ending": reply.ending,
        "prompt_tokens": reply.prompt_tokens,
        "response_tokens": reply.response_tokens,
        "reasoning": reply.reasoning,
        "log_probability": reply.log_probability,
        "error": reply.error,
    }
    return Answer.model_validate({**values, **changes})
