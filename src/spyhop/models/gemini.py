"""Gemini's `generateContent`: contents with the role `model`, thoughts as parts, block reasons."""

from collections.abc import Mapping
from typing import Any

from spyhop.models.failures import dicts
from spyhop.models.wire import TOP_LOGPROBS, ApiCall
from spyhop.schema import Message

ROLES = {"user": "user", "assistant": "model"}


def payload(call: ApiCall) -> dict[str, Any]:
    """Return the fields of a request; the model is part of the address."""
    turns, contents = list(call.request.messages), list[dict[str, Any]]()
    if begun := call.request.continuation.rstrip():
        turns.append(Message(role="assistant", content=begun))
    for turn in turns:
        if turn.role == "system":
            continue
        if not contents or contents[-1]["role"] != ROLES[turn.role]:
            contents.append({"role": ROLES[turn.role], "parts": []})
        contents[-1]["parts"].append({"text": turn.content})
    fields: dict[str, Any] = {"contents": contents, "generationConfig": _how(call)}
    if system := [{"text": turn.content} for turn in turns if turn.role == "system"]:
        fields["systemInstruction"] = {"parts": system}
    return fields


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
        choices = [_choice(each) for each in dicts(candidates)]
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
    content, logprobs = candidate.get("content"), candidate.get("logprobsResult")
    if not isinstance(content, Mapping) and found["finish_reason"] is None:
        return found
    parts = dicts(content.get("parts")) if isinstance(content, Mapping) else []
    kinds = ["thinking" if part.get("thought") else "text" for part in parts]
    blocks = [
        {"type": kind, kind: part.get("text")} for kind, part in zip(kinds, parts, strict=True)
    ]
    if isinstance(logprobs, Mapping):
        found["logprobs"] = {"content": _places(logprobs)}
    return found | {"message": {"role": "assistant", "content": blocks}}


def _places(logprobs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the log-probabilities of each position: the token's, and the likeliest ones."""
    chosen = dicts(logprobs.get("chosenCandidates"))
    likely = [dicts(each.get("candidates")) for each in dicts(logprobs.get("topCandidates"))]
    return [
        _token(token) | {"top_logprobs": [_token(each) for each in top]}
        for token, top in zip(chosen, [*likely, *([[]] * len(chosen))], strict=False)
    ]


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": token.get("token"), "logprob": token.get("logProbability")}


def _usage(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usage; Gemini counts thoughts apart from the response, others within it."""
    counts = (stated.get(name) for name in ("candidatesTokenCount", "thoughtsTokenCount"))
    written, thoughts = (found if isinstance(found, int) else 0 for found in counts)
    return {
        "prompt_tokens": stated.get("promptTokenCount"),
        "prompt_tokens_details": {"cached_tokens": stated.get("cachedContentTokenCount")},
        "completion_tokens": written + thoughts,
        "completion_tokens_details": {"reasoning_tokens": thoughts},
    }
