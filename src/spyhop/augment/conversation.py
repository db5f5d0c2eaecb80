"""Pairs as conversations to train on, in either direction; the columns keep their names.

Source: Humpback (arXiv:2308.06259), section 2.2: the backward model learns instruction given
response; the student learns response given instruction, under a system message that tells seed
pairs from web pairs, and is asked under both.
"""

from collections.abc import Iterator

from pydantic import field_validator

from spyhop.schema import Answer, Config, Message, Pair, prompt_turns
from spyhop.stage import Context, pooled, stage
from spyhop.store import Artifact
from spyhop.text.template import fill

SEED_MESSAGE = "Answer the way an AI assistant would."
WEB_MESSAGE = "Answer from what can be found on the web."
REVERSE = (
    "Below is a text. Write the instruction or question to which this text is the answer. Write "
    "only the instruction, as a person would put it to an assistant.\n\nText:\n{response}"
)


class ForwardConfig(Config):
    """How pairs are put to the student."""

    seed_message: str = SEED_MESSAGE
    """System message of pairs tagged `seed`; empty is none."""
    web_message: str = WEB_MESSAGE
    """System message of pairs tagged `web`; empty is none."""


class ReversedConfig(Config):
    """How pairs are put to the backward model."""

    prompt: str = REVERSE
    """The user turn, with `{response}`; `backtranslate` must ask in the same words."""
    system_message: str = ""

    @field_validator("prompt")
    @classmethod
    def _has_its_place(cls, prompt: str) -> str:
        if "{response}" not in prompt:
            raise ValueError("it has no {response}")
        return prompt


@stage(version=2, writes=Answer, plan=lambda config, pairs: pooled(pairs))
def format_pairs(ctx: Context, config: ForwardConfig, *, pairs: list[Artifact]) -> Iterator[Answer]:
    """Yield each pair as a conversation: the instruction is the user's, the response is learned.

    The answers' `collection` is the pair's, `system_id` its tag.
    """
    messages = {"seed": config.seed_message, "web": config.web_message}
    for row in _rows(ctx, pairs):
        turns = prompt_turns(row.instruction, messages[row.tag])
        yield _answer(row, turns, row.response)


@stage(version=2, writes=Answer, plan=lambda config, pairs: pooled(pairs))
def reverse_pairs(
    ctx: Context, config: ReversedConfig, *, pairs: list[Artifact]
) -> Iterator[Answer]:
    """Yield each pair as a conversation in which the instruction is what is learned."""
    for row in _rows(ctx, pairs):
        yield _answer(row, asked_backward(config, row.response), row.instruction)


def asked_backward(config: ReversedConfig, response: str) -> list[Message]:
    """Return the turns that ask a backward model for the instruction of a response."""
    return prompt_turns(fill(config.prompt, response=response), config.system_message)


def _rows(ctx: Context, pairs: list[Artifact]) -> Iterator[Pair]:
    for artifact in pairs:
        for row in ctx.track(artifact.rows(Pair), "writing", total=artifact.num_rows):
            ctx.count(f"tag/{row.tag}")
            yield row


def _answer(row: Pair, turns: list[Message], learned: str) -> Answer:
    return Answer(
        id=row.id,
        query_id=row.id,
        collection=row.collection,
        task=row.tag,
        system_id=row.tag,
        messages=[*turns, Message(role="assistant", content=learned)],
        model=row.writer or "people",
        finish_reason="stop",
    )
