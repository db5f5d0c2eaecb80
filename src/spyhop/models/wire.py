"""The chat-completions API on the wire: request bodies."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from spyhop.models.calls import Request, Sampling

TOP_LOGPROBS = 20
"""Maximum of the API."""
CHOICE_TOKENS = 4
"""Room for an option after a bracket or a space."""


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
    if kind == "classify":
        fields["input"] = request.messages[-1].content
    else:
        turns = [{"role": turn.role, "content": turn.content} for turn in request.messages]
        fields["messages"] = turns
    if (
        request.continuation and kind != "classify"
    ):  # vLLM and SGLang continue a response this way; others need `omit`
        begun = {"role": "assistant", "content": request.continuation.rstrip()}
        fields["messages"] = [*fields["messages"], begun]
        fields |= {"continue_final_message": True, "add_generation_prompt": False}
    if kind == "choose":
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
