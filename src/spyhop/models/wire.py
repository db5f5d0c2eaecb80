"""The chat-completions API on the wire: request bodies."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from spyhop.models.calls import Request, Sampling

TOP_LOGPROBS = 20
"""Maximum of the API."""
CHOICE_TOKENS = 4
"""Room for an option after a bracket or a space."""


def scored_texts(request: Request) -> list[str]:
    """Return the whole texts that a completions API echoes with their log-probabilities."""
    return [request.text + request.continuation + option for option in request.options]


def body(
    kind: str,
    request: Request,
    sampling: Sampling,
    *,
    model: str,
    extra: Mapping[str, Any],
    omit: Sequence[str],
    num_samples: int,
    tokens_field: str,
) -> bytes:
    """Return the JSON of a call; fields in `omit` are removed, those in `extra` take precedence."""
    fields: dict[str, Any] = {"model": model}
    is_plain = not request.messages
    if kind == "classify":
        fields["input"] = request.messages[-1].content
    elif is_plain and kind == "choose":
        fields["prompt"] = scored_texts(request)
    elif is_plain:
        fields["prompt"] = (request.text + request.continuation).rstrip()
    else:
        turns = [{"role": turn.role, "content": turn.content} for turn in request.messages]
        if request.continuation:  # vLLM and SGLang continue a response so; others need `omit`
            turns.append({"role": "assistant", "content": request.continuation.rstrip()})
            fields |= {"continue_final_message": True, "add_generation_prompt": False}
        fields["messages"] = turns
    if (
        is_plain and kind == "choose"
    ):  # vLLM and llama-cpp-python; one token is the least they write
        fields |= {"max_tokens": 1, "temperature": 0.0, "logprobs": 1, "echo": True}
    elif kind == "choose":
        fields |= {tokens_field: CHOICE_TOKENS, "temperature": 0.0}
        fields |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
    elif kind == "generate":
        fields[tokens_field] = sampling.max_new_tokens
        if sampling.temperature != "unset":
            fields |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
            fields["seed"] = sampling.seed + request.sample_index
        if sampling.stop:
            fields["stop"] = list(sampling.stop)
        if sampling.log_probability:
            fields["logprobs"] = True
        if sampling.json_schema is not None:
            fields["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "response", "schema": sampling.json_schema, "strict": True},
            }
        if num_samples > 1:
            fields["n"] = num_samples
    fields |= extra
    for name in omit:
        fields.pop(name, None)
    return to_json(fields)
