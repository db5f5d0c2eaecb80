"""Dialects: the address, the payload and the reply of each API, as data.

A reply is read as a chat completion (`replies`), errors and rate-limit headers are read in every
known form (`failures`). A batch API sends the same payloads and reads the same replies.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic_core import to_json

from spyhop.models import anthropic, gemini
from spyhop.models.wire import ApiCall, chat_payload, completions_payload

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One API."""

    path: str
    """Address of a call, after the endpoint's; `{model}` and `{version}` are filled in."""
    payload: Callable[[ApiCall], Json]
    read: Callable[[Json], Json] = dict
    """Turns a reply into a chat completion; JSON of another form is returned as it is."""
    takes: Literal["chats", "plain prompts", "texts to label"] = "chats"
    key_header: str = "Authorization"
    key_form: str = "Bearer {}"
    headers: Mapping[str, str] = field(default_factory=dict)
    spelling: Mapping[str, str] = field(default_factory=dict)
    """Names of fields that chat completions spell in another way; `omit` takes either."""
    nested: tuple[str, ...] = ()
    """Fields that contain fields: `extra` and `omit` apply within them."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """Capabilities that the API does not have, and why."""
    streamed: Mapping[str, Any] = field(default_factory=dict)
    """Fields that ask for a reply as server-sent events; without any, replies come whole."""
    marks_cache: bool = False
    """Whether a prompt is cached only up to a mark."""
    counts_cached: re.Pattern[str] = re.compile("")
    """Models of which the rate limits count prompt tokens that were read from the cache."""

    def fields(self, call: ApiCall, extra: Mapping[str, Any], omit: Sequence[str]) -> Json:
        """Return the fields of a call; those in `omit` are removed, those in `extra` win."""
        fields = self.payload(call)
        for name, value in extra.items():
            is_merged = name in self.nested and isinstance(value, dict)
            fields[name] = {**fields.get(name, {}), **value} if is_merged else value
        within = [fields, *(fields[name] for name in self.nested if name in fields)]
        for name in omit:
            for each in within:
                each.pop(self.spelling.get(name, name), None)
        return fields

    def body(self, call: ApiCall, extra: Mapping[str, Any], omit: Sequence[str]) -> bytes:
        """Return the JSON of a call."""
        return to_json(self.fields(call, extra, omit))


STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
DIALECTS = {
    "openai": Dialect(path="/chat/completions", payload=chat_payload, streamed=STREAMED),
    "azure": Dialect(
        path="/openai/deployments/{model}/chat/completions?api-version={version}",
        payload=chat_payload,
        key_header="api-key",
        key_form="{}",
        streamed=STREAMED,
    ),
    "anthropic": Dialect(
        path="/messages",
        payload=anthropic.payload,
        read=anthropic.read,
        key_header="x-api-key",
        key_form="{}",
        headers=anthropic.HEADERS,
        nested=("output_config",),
        lacks=anthropic.LACKS,
        streamed={"stream": True},
        marks_cache=True,
        counts_cached=anthropic.COUNTS_CACHED,
    ),
    "gemini": Dialect(
        path="/models/{model}:generateContent",
        payload=gemini.payload,
        read=gemini.read,
        key_header="x-goog-api-key",
        key_form="{}",
        nested=("generationConfig",),
        spelling={"top_p": "topP", "logprobs": "responseLogprobs"},
    ),
    "completions": Dialect(path="/completions", payload=completions_payload, takes="plain prompts"),
    "moderations": Dialect(
        path="/moderations",
        payload=lambda call: {"model": call.model, "input": call.request.messages[-1].content},
        takes="texts to label",
    ),
}
"""By the `api` of an endpoint."""
