"""Gemini's `generateContent`: contents with the role `model`, thoughts as parts, block reasons."""

from collections.abc import Mapping
from typing import Any

from spyhop.models.wire import TOP_LOGPROBS, ApiCall
from spyhop.schema import Message

ROLES = {"user": "user", "assistant": "model"}


def payload(call: ApiCall) -> dict[str, Any]:
    """Return the fields of a request; the model is part of the address."""
    system = [_part(turn) for turn in call.request.messages if turn.role == "system"]
    contents: list[dict[str, Any]] = []
    turns = [turn for turn in call.request.messages if turn.role != "system"]
    if begun := call.request.continuation.rstrip():
        turns.append(Message(role="assistant", content=begun))
    for turn in turns:
        role = ROLES[turn.role]
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"].append(_part(turn))
        else:
            contents.append({"role": role, "parts": [_part(turn)]})
    fields: dict[str, Any] = {"contents": contents, "generationConfig": _how(call)}
    return fields | ({"systemInstruction": {"parts": system}} if system else {})


def _part(turn: Message) -> dict[str, str]:
    return {"text": turn.content}


def _how(call: ApiCall) -> dict[str, Any]:
    sampling = call.sampling
    fields: dict[str, Any] = {"maxOutputTokens": call.max_tokens}
    if call.kind == "choose":
        return fields | {"temperature": 0.0, "responseLogprobs": True, "logprobs": TOP_LOGPROBS}
    if sampling.temperature != "unset":
        fields |= {"temperature": sampling.temperature, "topP": sampling.top_p}
        fields["seed"] = sampling.seed + call.request.sample_index
    if sampling.stop:
        fields["stopSequences"] = list(sampling.stop)
    if sampling.log_probability:
        fields["responseLogprobs"] = True
    if sampling.json_schema is not None:
        fields["responseMimeType"] = "application/json"
        fields["responseJsonSchema"] = sampling.json_schema
    if call.num_samples > 1:
        fields["candidateCount"] = call.num_samples
    return fields


def read(answer: dict[str, Any]) -> dict[str, Any]:
    """Return candidates, or a blocked prompt, as a chat completion; any other JSON as it is."""
    candidates, feedback = answer.get("candidates"), answer.get("promptFeedback")
    if isinstance(candidates, list) and candidates:
        choices = [_choice(each) for each in candidates if isinstance(each, Mapping)]
    elif isinstance(feedback, Mapping) and feedback.get("blockReason"):
        choices = [{"finish_reason": f"content_filter: {feedback['blockReason']}"}]
    elif "candidates" in answer or "usageMetadata" in answer:
        choices = []
    else:
        return answer
    usage = answer.get("usageMetadata")
    return {"choices": choices} | ({"usage": _usage(usage)} if isinstance(usage, Mapping) else {})


def _choice(candidate: Mapping[str, Any]) -> dict[str, Any]:
    found = {"index": candidate.get("index", 0), "finish_reason": candidate.get("finishReason")}
    content = candidate.get("content")
    parts = content.get("parts", []) if isinstance(content, Mapping) else None
    if parts is None and found["finish_reason"] is None:
        return found
    blocks = [_block(part) for part in parts or [] if isinstance(part, Mapping)]
    logprobs = candidate.get("logprobsResult")
    if isinstance(logprobs, Mapping):
        found["logprobs"] = {"content": _places(logprobs)}
    return found | {"message": {"role": "assistant", "content": blocks}}


def _block(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = "thinking" if part.get("thought") else "text"
    return {"type": kind, kind: part.get("text")}


def _places(logprobs: Mapping[str, Any]) -> list[dict[str, Any]]:
    chosen, likely = (
        found if isinstance(found := logprobs.get(name), list) else []
        for name in ("chosenCandidates", "topCandidates")
    )  # fmt: skip
    tops = [each.get("candidates") if isinstance(each, Mapping) else None for each in likely]
    tops += [None] * (len(chosen) - len(tops))
    return [
        _token(token)
        | {"top_logprobs": [_token(each) for each in top] if isinstance(top, list) else []}
        for token, top in zip(chosen, tops, strict=False)
    ]


def _token(found: object) -> dict[str, Any]:
    token = found if isinstance(found, Mapping) else {}
    return {"token": token.get("token"), "logprob": token.get("logProbability")}


def _usage(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usage; Gemini counts thoughts apart from the response, others within it."""
    written, thoughts = (
        found if isinstance(found := stated.get(name), int) else 0
        for name in ("candidatesTokenCount", "thoughtsTokenCount")
    )  # fmt: skip
    return {
        "prompt_tokens": stated.get("promptTokenCount"),
        "prompt_tokens_details": {"cached_tokens": stated.get("cachedContentTokenCount")},
        "completion_tokens": written + thoughts,
        "completion_tokens_details": {"reasoning_tokens": thoughts},
    }
