"""Pairs as conversations to train on, in either direction.

Source: Humpback (arXiv:2308.06259), section 2.2: the backward model learns instruction given
response; the student learns response given instruction, under a system message that distinguishes
seed pairs from web pairs, and is evaluated under both.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated

from spyhop.schema import PEOPLE, Answer, Config, Message, Pair, prompt_turns
from spyhop.stage import Context, stage, sum_estimates
from spyhop.store import Artifact
from spyhop.text.tables import table
from spyhop.text.template import fill, places

SEED_MESSAGE = "Answer the way an AI assistant would."
WEB_MESSAGE = "Answer from what can be found on the web."
PROMPT: str = table("augment/prompts.toml")["backtranslate"]["prompt"]


class ForwardConfig(Config):
    """System messages of the student's training rows."""

    seed_message: str = SEED_MESSAGE
    """System message of pairs tagged `seed`; empty for no system message."""
    web_message: str = WEB_MESSAGE
    """System message of pairs tagged `web`; empty for no system message."""


class ReversedConfig(Config):
    """Prompt of the backward model."""

    prompt: Annotated[str, places("response")] = PROMPT
    """User turn, with `{response}`; training and `backtranslate` must use the same prompt."""
    system_message: str = ""
    """System message; empty for no system message."""


@stage(version=2, writes=Answer, plan=lambda config, pairs: sum_estimates(pairs.values()))
def format_pairs(
    ctx: Context, config: ForwardConfig, *, pairs: Mapping[str, Artifact]
) -> Iterator[Answer]:
    """Yield each pair as a conversation: the user's instruction and the response to learn.

    The answers' `collection` is the pair's, `system_id` its tag.
    """
    messages = {"seed": config.seed_message, "web": config.web_message}
    for row in _rows(ctx, pairs):
        turns = prompt_turns(row.instruction, messages[row.tag])
        yield _answer(row, turns, row.response)


@stage(version=2, writes=Answer, plan=lambda config, pairs: sum_estimates(pairs.values()))
def reverse_pairs(
    ctx: Context, config: ReversedConfig, *, pairs: Mapping[str, Artifact]
) -> Iterator[Answer]:
    """Yield each pair as a conversation: the user's text and the instruction to learn."""
    for row in _rows(ctx, pairs):
        yield _answer(row, backward_prompt(config, row.response), row.instruction)


def backward_prompt(config: ReversedConfig, response: str) -> list[Message]:
    """Return the prompt that asks a backward model for the instruction of a response."""
    return prompt_turns(fill(config.prompt, response=response), config.system_message)


def _rows(ctx: Context, pairs: Mapping[str, Artifact]) -> Iterator[Pair]:
    for artifact in pairs.values():
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
        model=row.writer or PEOPLE,
        finish_reason="stop",
    )
