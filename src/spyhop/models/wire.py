"""Chat completions, plain completions and moderations on the wire: what a call sends."""

from collections.abc import Iterable, Sequence
from os.path import commonprefix
from typing import Any, NamedTuple

from spyhop.models.calls import Kind, Request, Sampling
from spyhop.schema import Message

TOP_LOGPROBS = 20
"""Maximum of the API."""
CHOICE_TOKENS = 4
"""Room for an option after a bracket or a space."""


class SharedPart(NamedTuple):
    """Beginning of a prompt that other prompts of the same stage have too."""

    turns: int = 0
    """Whole messages."""
    chars: int = 0
    """Characters of the message after them."""


NOTHING_SHARED = SharedPart()


def shared_parts(requests: Iterable[Request]) -> dict[str, SharedPart]:
    """Return the part that prompts with the same first message share, by that message.

    Prompts without a system message are one group, by the empty text. The part ends after a whole
    message, or after a line.
    """
    groups: dict[str, list[list[Message]]] = {}
    for request in requests:
        groups.setdefault(group_of(request), []).append(request.messages)
    return {name: _shared(group) for name, group in groups.items() if len(group) > 1}


def group_of(request: Request) -> str:
    """Return the system message of a prompt; empty without one."""
    first = request.messages[:1]
    return first[0].content if first and first[0].role == "system" else ""


def _shared(group: Sequence[list[Message]]) -> SharedPart:
    first, turns = group[0], 0
    while all(len(each) > turns and each[turns] == first[turns] for each in group):
        turns += 1
    texts = [each[turns].content if len(each) > turns else "" for each in group]
    start = commonprefix([min(texts), max(texts)])  # noqa: RUF071 (texts, no paths)
    return SharedPart(turns, start.rfind("\n") + 1)


class ApiCall(NamedTuple):
    """One HTTP request, before it is written in the dialect of an API."""

    kind: Kind
    request: Request
    sampling: Sampling
    model: str
    num_samples: int = 1
    tokens_field: str = "max_tokens"
    shared: SharedPart = NOTHING_SHARED

    @property
    def max_tokens(self) -> int:
        """Most tokens of a response."""
        return CHOICE_TOKENS if self.kind == "choose" else self.sampling.max_new_tokens


def scored_texts(request: Request) -> list[str]:
    """Return the whole texts that a completions API echoes with their log-probabilities."""
    return [request.text + request.continuation + option for option in request.options]


def chat_payload(call: ApiCall) -> dict[str, Any]:
    """Return the fields of a chat completion."""
    request = call.request
    turns = [{"role": turn.role, "content": turn.content} for turn in request.messages]
    fields: dict[str, Any] = {"model": call.model}
    if request.continuation:  # vLLM and SGLang continue a response so; others need `omit`
        turns.append({"role": "assistant", "content": request.continuation.rstrip()})
        fields |= {"continue_final_message": True, "add_generation_prompt": False}
    return fields | {"messages": turns} | _how(call)


def completions_payload(call: ApiCall) -> dict[str, Any]:
    """Return the fields of a completion of a plain prompt, or of texts that are scored."""
    if call.kind == "choose":  # vLLM and llama-cpp-python; one token is the least they write
        how = {"max_tokens": 1, "temperature": 0.0, "logprobs": 1, "echo": True}
        return {"model": call.model, "prompt": scored_texts(call.request), **how}
    if call.kind == "logprobs":  # vLLM; each place has its own token, and the likeliest ones
        how = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": call.request.num_top}
        return {"model": call.model, "prompt": [*call.request.ids, *call.request.scored_ids], **how}
    text = (call.request.text + call.request.continuation).rstrip()
    return {"model": call.model, "prompt": text, **_how(call)}


def _how(call: ApiCall) -> dict[str, Any]:
    fields: dict[str, Any] = {call.tokens_field: call.max_tokens}
    if call.kind == "choose":
        return fields | {"temperature": 0.0, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
    sampling = call.sampling
    if sampling.temperature != "unset":
        fields |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
        fields["seed"] = sampling.seed + call.request.sample_index
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if sampling.log_probability:
        fields["logprobs"] = True
    if sampling.json_schema is not None:
        schema = {"name": "response", "schema": sampling.json_schema, "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    if call.num_samples > 1:
        fields["n"] = call.num_samples
    return fields
