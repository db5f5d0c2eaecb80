"""Dialects: the address, the payload and the reply of each API, as data.

A reply is read as a chat completion (`replies`), errors and rate-limit headers are read in every
known form (`failures`). A batch API sends the same payloads and reads the same replies.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import commonprefix
from typing import Any, Literal, NamedTuple

from pydantic_core import to_json

from spyhop.models.calls import Kind, Request, Sampling
from spyhop.models.failures import dicts
from spyhop.schema import Message

Json = dict[str, Any]
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
    groups: dict[str, list[list[Message]]] = defaultdict(list)
    for request in requests:
        groups[group_of(request)].append(request.messages)
    parts = {}
    for name, group in groups.items():
        if len(group) > 1:
            first, turns = group[0], 0
            while all(len(each) > turns and each[turns] == first[turns] for each in group):
                turns += 1
            texts = [each[turns].content if len(each) > turns else "" for each in group]
            start = commonprefix([min(texts), max(texts)])  # noqa: RUF071 (texts, no paths)
            parts[name] = SharedPart(turns, start.rfind("\n") + 1)
    return parts


def group_of(request: Request) -> str:
    """Return the system message of a prompt; empty without one."""
    first = request.messages[:1]
    return first[0].content if first and first[0].role == "system" else ""


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


# ------------------------------------------------------------ OpenAI, and all that copy it


def _chat_payload(call: ApiCall) -> Json:
    request = call.request
    turns = [{"role": turn.role, "content": turn.content} for turn in request.messages]
    fields: Json = {"model": call.model}
    if request.continuation:  # vLLM and SGLang continue a response so; others need `omit`
        turns.append({"role": "assistant", "content": request.continuation.rstrip()})
        fields |= {"continue_final_message": True, "add_generation_prompt": False}
    return fields | {"messages": turns} | _how(call)


def _completions_payload(call: ApiCall) -> Json:
    """Return the fields of a completion of a plain prompt, or of texts that are scored."""
    if call.kind == "choose":  # vLLM and llama-cpp-python; one token is the least they write
        how = {"max_tokens": 1, "temperature": 0.0, "logprobs": 1, "echo": True}
        return {"model": call.model, "prompt": scored_texts(call.request), **how}
    if call.kind == "logprobs":  # vLLM; each place has its own token, and the likeliest ones
        how = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": call.request.num_top}
        return {"model": call.model, "prompt": [*call.request.ids, *call.request.scored_ids], **how}
    text = (call.request.text + call.request.continuation).rstrip()
    return {"model": call.model, "prompt": text, **_how(call)}


def scored_texts(request: Request) -> list[str]:
    """Return the whole texts that a completions API echoes with their log-probabilities."""
    return [request.text + request.continuation + option for option in request.options]


def _how(call: ApiCall) -> Json:
    """Return the fields of a chat completion beside its prompt."""
    fields: Json = {call.tokens_field: call.max_tokens}
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


# ------------------------------------------------------------ Anthropic

LEAST_CACHED_CHARS = 3_000
"""Shorter beginnings have fewer than the 1,024 tokens from which the API caches a prompt, for five
minutes, up to a mark (some models: 4,096)."""


def _anthropic_payload(call: ApiCall) -> Json:
    """Return the fields of a message; turns of one role that follow each other are one message.

    The end of the shared part is marked, if it is long enough to be cached.
    """
    asked, shared, sampling = call.request.messages, call.shared, call.sampling
    if sum(len(turn.content) for turn in asked[: shared.turns]) + shared.chars < LEAST_CACHED_CHARS:
        shared = NOTHING_SHARED
    system, turns = list[Json](), list[Json]()
    for place, turn in enumerate(asked):
        texts, is_end = [turn.content], place == shared.turns - 1 and not shared.chars
        parts = [turn.content[: shared.chars], turn.content[shared.chars :]]
        if place == shared.turns and all(map(str.strip, parts)):  # blank blocks are refused
            texts, is_end = parts, True
        blocks: list[Json] = [{"type": "text", "text": text} for text in texts if text]
        if blocks and is_end:
            blocks[0]["cache_control"] = {"type": "ephemeral"}
        if turn.role == "system":
            system += blocks
        elif turns and turns[-1]["role"] == turn.role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": turn.role, "content": blocks})
    if begun := call.request.continuation.rstrip():
        turns.append({"role": "assistant", "content": begun})
    fields: Json = {"model": call.model, "max_tokens": call.max_tokens, "messages": turns}
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


def _read_anthropic(answer: Json) -> Json:
    if answer.get("type") != "message":
        return answer
    message = {"role": "assistant", "content": answer.get("content")}
    found: Json = {"choices": [{"message": message, "finish_reason": answer.get("stop_reason")}]}
    if isinstance(usage := answer.get("usage"), Mapping):
        own, cached, written = (
            _whole(usage.get(name))
            for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        )
        details = usage.get("output_tokens_details")
        thoughts = details.get("thinking_tokens") if isinstance(details, Mapping) else None
        found["usage"] = {
            "prompt_tokens": own + cached + written,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
            "completion_tokens": usage.get("output_tokens"),
            "completion_tokens_details": {"reasoning_tokens": thoughts},
        }
    return found


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


# ------------------------------------------------------------ Gemini

GEMINI_NAMES = {
    "max_tokens": "maxOutputTokens",
    "top_p": "topP",
    "stop": "stopSequences",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
    "n": "candidateCount",
}
"""Names of a chat completion's fields in Gemini's `generationConfig`."""


def _gemini_payload(call: ApiCall) -> Json:
    """Return the fields of `generateContent`; the model is part of the address."""
    turns, contents, system = list(call.request.messages), list[Json](), list[Json]()
    if begun := call.request.continuation.rstrip():
        turns.append(Message(role="assistant", content=begun))
    for turn in turns:
        role = "model" if turn.role == "assistant" else turn.role
        if role != "system" and (not contents or contents[-1]["role"] != role):
            contents.append({"role": role, "parts": []})
        parts = system if role == "system" else contents[-1]["parts"]
        parts.append({"text": turn.content})
    how = _how(call._replace(tokens_field="max_tokens"))
    if "response_format" in how:
        del how["response_format"]
        how |= {"responseMimeType": "application/json",
                "responseJsonSchema": call.sampling.json_schema}  # fmt: skip
    config = {GEMINI_NAMES.get(name, name): value for name, value in how.items()}
    fields: Json = {"contents": contents, "generationConfig": config}
    return fields | ({"systemInstruction": {"parts": system}} if system else {})


def _read_gemini(answer: Json) -> Json:
    """Return candidates, or a blocked prompt, as a chat completion; any other JSON as it is."""
    candidates, feedback = answer.get("candidates"), answer.get("promptFeedback")
    if isinstance(candidates, list) and candidates:
        choices = [_candidate(each) for each in dicts(candidates)]
    elif isinstance(feedback, Mapping) and feedback.get("blockReason"):
        choices = [{"finish_reason": f"content_filter: {feedback['blockReason']}"}]
    elif "candidates" in answer or "usageMetadata" in answer:
        choices = []
    else:
        return answer
    found: Json = {"choices": choices}
    if isinstance(usage := answer.get("usageMetadata"), Mapping):
        thoughts = _whole(usage.get("thoughtsTokenCount"))  # counted apart from the response
        found["usage"] = {
            "prompt_tokens": usage.get("promptTokenCount"),
            "prompt_tokens_details": {"cached_tokens": usage.get("cachedContentTokenCount")},
            "completion_tokens": _whole(usage.get("candidatesTokenCount")) + thoughts,
            "completion_tokens_details": {"reasoning_tokens": thoughts},
        }
    return found


def _candidate(candidate: Json) -> Json:
    found = {"index": candidate.get("index", 0), "finish_reason": candidate.get("finishReason")}
    content, logprobs = candidate.get("content"), candidate.get("logprobsResult")
    if not isinstance(content, Mapping) and found["finish_reason"] is None:
        return found
    blocks = []
    for part in dicts(content.get("parts")) if isinstance(content, Mapping) else []:
        kind = "thinking" if part.get("thought") else "text"
        blocks.append({"type": kind, kind: part.get("text")})
    if isinstance(logprobs, Mapping):
        likely = (dicts(each.get("candidates")) for each in dicts(logprobs.get("topCandidates")))
        found["logprobs"] = {
            "content": [
                _token(token) | {"top_logprobs": [_token(each) for each in next(likely, [])]}
                for token in dicts(logprobs.get("chosenCandidates"))
            ]
        }
    return found | {"message": {"role": "assistant", "content": blocks}}


def _token(token: Json) -> Json:
    return {"token": token.get("token"), "logprob": token.get("logProbability")}


# ------------------------------------------------------------ all of them

STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
DIALECTS = {
    "openai": Dialect(path="/chat/completions", payload=_chat_payload, streamed=STREAMED),
    "azure": Dialect(
        path="/openai/deployments/{model}/chat/completions?api-version={version}",
        payload=_chat_payload,
        key_header="api-key",
        key_form="{}",
        streamed=STREAMED,
    ),
    "anthropic": Dialect(
        path="/messages",
        payload=_anthropic_payload,
        read=_read_anthropic,
        key_header="x-api-key",
        key_form="{}",
        headers={"anthropic-version": "2023-06-01"},
        nested=("output_config",),
        lacks={
            "log-probabilities": "the Messages API returns none",
            "n": "the Messages API writes one sample per request",
            "seed": "the Messages API has none",
        },
        streamed={"stream": True},
        marks_cache=True,
        counts_cached=re.compile(r"claude-3(-5)?-(opus|sonnet|haiku)"),
    ),
    "gemini": Dialect(
        path="/models/{model}:generateContent",
        payload=_gemini_payload,
        read=_read_gemini,
        key_header="x-goog-api-key",
        key_form="{}",
        nested=("generationConfig",),
        spelling=GEMINI_NAMES,
    ),
    "completions": Dialect(
        path="/completions", payload=_completions_payload, takes="plain prompts"
    ),
    "moderations": Dialect(
        path="/moderations",
        payload=lambda call: {"model": call.model, "input": call.request.messages[-1].content},
        takes="texts to label",
    ),
}
"""By the `api` of an endpoint."""
