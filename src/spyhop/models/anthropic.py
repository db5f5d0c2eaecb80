"""Anthropic's Messages API: system apart, thinking blocks, a marked prefix that is cached.

The API has no `seed`, no `n` and no log-probabilities. It caches a prompt up to a mark, for five
minutes, if that part has at least 1,024 tokens (some models: up to 4,096).
"""

import re
from collections.abc import Mapping
from typing import Any

from spyhop.models.wire import NOTHING_SHARED, ApiCall, SharedPart
from spyhop.schema import Message

LEAST_CACHED_CHARS = 3_000
"""Shorter beginnings have fewer than 1,024 tokens, and are not cached."""
CACHED = {"cache_control": {"type": "ephemeral"}}
HEADERS = {"anthropic-version": "2023-06-01"}
COUNTS_CACHED = re.compile(r"claude-3(-5)?-(opus|sonnet|haiku)")
"""Limits of input tokens count what is read from the cache for these models only."""
LACKS = {
    "log-probabilities": "the Messages API returns none",
    "n": "the Messages API writes one sample per request",
    "seed": "the Messages API has none",
}


def payload(call: ApiCall) -> dict[str, Any]:
    """Return the fields of a message."""
    sampling = call.sampling
    system, turns = _turns(call)
    fields: dict[str, Any] = {"model": call.model, "max_tokens": call.max_tokens, "messages": turns}
    if system:
        fields["system"] = system
    if call.kind == "choose":
        return fields | {"temperature": 0.0}
    if sampling.temperature != "unset":
        fields["temperature"] = sampling.temperature
        if sampling.top_p != 1.0:  # some models take one of the two only
            fields["top_p"] = sampling.top_p
    if sampling.stop:
        fields["stop_sequences"] = list(sampling.stop)
    if sampling.json_schema is not None:
        shape = {"type": "json_schema", "schema": sampling.json_schema}
        fields["output_config"] = {"format": shape}
    return fields


def read(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a message as a chat completion; any other JSON as it is."""
    if answer.get("type") != "message":
        return answer
    choice = {
        "message": {"role": "assistant", "content": answer.get("content")},
        "finish_reason": answer.get("stop_reason"),
    }
    usage = answer.get("usage")
    if not isinstance(usage, Mapping):
        return {"choices": [choice]}
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    own, cached, written = (found if isinstance(found := usage.get(n), int) else 0 for n in names)
    details = usage.get("output_tokens_details")
    thoughts = details.get("thinking_tokens") if isinstance(details, Mapping) else None
    return {
        "choices": [choice],
        "usage": {
            "prompt_tokens": own + cached + written,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
            "completion_tokens": usage.get("output_tokens"),
            "completion_tokens_details": {"reasoning_tokens": thoughts},
        },
    }


def _turns(call: ApiCall) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return (system blocks, messages); turns of one role that follow each other are one message.

    The end of the shared part is marked, if it is long enough to be cached.
    """
    system: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    asked, shared = call.request.messages, call.shared
    if sum(len(turn.content) for turn in asked[: shared.turns]) + shared.chars < LEAST_CACHED_CHARS:
        shared = NOTHING_SHARED
    for place, turn in enumerate(asked):
        blocks = _blocks(turn, place, shared)
        if turn.role == "system":
            system += blocks
        elif messages and messages[-1]["role"] == turn.role:
            messages[-1]["content"] += blocks
        else:
            messages.append({"role": turn.role, "content": blocks})
    if begun := call.request.continuation.rstrip():
        messages.append({"role": "assistant", "content": begun})
    return system, messages


def _blocks(turn: Message, place: int, shared: SharedPart) -> list[dict[str, Any]]:
    """Return the text of a turn, in two blocks where the shared part ends within it."""
    head, tail = turn.content, ""
    is_end = place == shared.turns - 1 and not shared.chars
    if place == shared.turns and shared.chars:
        head, tail, is_end = head[: shared.chars], head[shared.chars :], True
        if not (head.strip() and tail.strip()):  # the API refuses blank blocks
            head, tail, is_end = turn.content, "", False
    blocks: list[dict[str, Any]] = [{"type": "text", "text": t} for t in (head, tail) if t]
    if blocks and is_end:
        blocks[0] |= CACHED
    return blocks
