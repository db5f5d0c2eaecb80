"""Turn an item into requests, in one of three forms that are never mixed within a suite.

`asked` ends the user's turn with the cue of the answer, `prefilled` begins the response with it,
`plain` is text without a chat format, as for base models.
"""

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
    return _request(item, protocol, item.question, id=row_id, sample_index=sample_index)


def option_requests(item: Item, protocol: Protocol) -> list[Request]:
    """Return the requests that score an item's options: one, or one per context."""
    texts = tuple(item.continuations or item.options)
    if not texts:
        where = f"item {item.id} of {item.task}"
        raise RecipeError(f'method = "likelihood" needs options; {where} has none')
    if not item.contexts:
        return [_request(item, protocol, item.question, id=item.id, options=texts)]
    return [
        _request(item, protocol, context, id=f"{item.id}/{n}", options=(text,))
        for n, (context, text) in enumerate(zip(item.contexts, texts, strict=True))
    ]


def item_fields(item: Item, protocol: Protocol) -> dict[str, Any]:
    """Return the fields of a score that are the item's."""
    names = ("id", "suite", "task", "target", "chance", "passage", "topic")
    return {name: getattr(item, name) for name in names} | {"form": protocol.form}


def _request(item: Item, protocol: Protocol, question: str, **fields: Any) -> Request:  # noqa: ANN401
    cue, system = cue_of(item, protocol), protocol.system_message
    prompt: dict[str, Any] = {"messages": prompt_turns(question + cue, system)}
    if protocol.form == "plain":
        prompt = {"text": "\n\n".join(filter(None, [system, question + cue]))}
    elif protocol.form == "prefilled":
        prompt = {"messages": prompt_turns(question, system), "continuation": cue.lstrip()}
    is_relative = protocol.metric == "acc_mutual_info"
    return Request(with_unconditional=is_relative, **prompt, **fields)
