"""Turn an item into requests, in one of three forms that are never mixed within a suite.

`asked` ends the user's turn with the cue of the answer, `prefilled` begins the response with it,
`plain` is text without a chat format, as for base models.
"""

from collections.abc import Sequence
from typing import Any

from spyhop.evaluate.task import Protocol
from spyhop.models import Request
from spyhop.schema import Item, RecipeError, prompt_turns


def cue_of(item: Item, protocol: Protocol) -> str:
    """Return the beginning of the answer: the item's own cue, or the one that asks for thought."""
    return protocol.chain_of_thought or item.cue


def user_turn(item: Item, protocol: Protocol) -> str:
    """Return the verbatim user turn, or the plain text."""
    return item.question + ("" if protocol.form == "prefilled" else cue_of(item, protocol))


def request_of(item: Item, sample_index: int, protocol: Protocol) -> Request:
    """Return the request for one response."""
    row_id = f"{item.id}/{sample_index}" if sample_index else item.id
    return _request(row_id, item.question, item, protocol, sample_index=sample_index)


def option_requests(item: Item, protocol: Protocol) -> list[Request]:
    """Return the requests that score an item's options: one, or one per context."""
    texts = tuple(item.continuations or item.options)
    if not texts:
        raise RecipeError(
            f'method = "likelihood" needs options; item {item.id} of {item.task} has none'
        )
    if not item.contexts:
        return [_request(item.id, item.question, item, protocol, texts)]
    return [
        _request(f"{item.id}/{n}", context, item, protocol, (text,))
        for n, (context, text) in enumerate(zip(item.contexts, texts, strict=True))
    ]


def item_fields(item: Item, protocol: Protocol) -> dict[str, Any]:
    """Return the fields of a score that are the item's."""
    return {name: getattr(item, name) for name in _OF_ITEM} | {"form": protocol.form}


_OF_ITEM = ("id", "suite", "task", "target", "chance", "passage", "topic")


def _request(
    row_id: str,
    question: str,
    item: Item,
    protocol: Protocol,
    texts: Sequence[str] = (),
    sample_index: int = 0,
) -> Request:
    cue, system = cue_of(item, protocol), protocol.system_message
    prompt: dict[str, Any] = {"messages": prompt_turns(question + cue, system)}
    if protocol.form == "plain":
        prompt = {"text": "\n\n".join(filter(None, [system, question + cue]))}
    elif protocol.form == "prefilled":
        prompt = {"messages": prompt_turns(question, system), "continuation": cue.lstrip()}
    return Request(
        id=row_id,
        options=tuple(texts),
        with_unconditional=protocol.metric == "acc_mutual_info",
        sample_index=sample_index,
        **prompt,
    )
