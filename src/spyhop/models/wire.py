"""The chat-completions API on the wire: bodies out, outcomes in. Nothing here waits or sends."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple

from pydantic_core import from_json, to_json

from spyhop.models.base import Choice, Reply, Request, Sampling
from spyhop.schema import ending_of
from spyhop.text.choices import choice

TOP_LOGPROBS = 20
"""Most that the API gives."""
CHOICE_TOKENS = 4
"""Room for an option that stands behind a bracket or a blank."""
MIN_MASS = 0.5
"""Below this the model most likely goes on with something else at that place, such as an answer
begun anew, and the options there are what is left over of it: no weighing of them."""
MESSAGE_CHARS = 300
MOST_TIMES, HIDDEN_TOKENS = 16, 20_000
"""A prompt cannot be more tokens than so many guesses, and what a provider puts before it."""
MOST_RESPONSE_TOKENS = 10_000_000
LONGEST_RESET_S = 61.0
"""Limits are of a minute; some give a date where seconds are meant."""
BYTES_PER_TOKEN = 4
"""Where an endpoint does not say how many tokens it wrote."""

_HALF = re.compile("[\ud800-\udfff]")

FailureKind = Literal[
    "throttled", "overloaded", "lost", "malformed", "rejected", "refused", "fatal"
]
"""Why a call failed:

* `throttled`: a limit; asked again, without end while others are answered
* `overloaded`: 408, 5xx; `lost`: no answer, or half of one; asked again a number of times
* `malformed`: an answer that is none; asked again a number of times, then for good
* `rejected`: this request will never be answered; `refused`: by a content filter
* `fatal`: no request will be answered
"""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that brought no answer."""

    kind: FailureKind
    message: str
    status: int = 0
    retry_after_s: float | None = None
    is_maybe_billed: bool = False
    is_overrun: bool = False
    """The endpoint has more to do than it can bear; a lone error does not say so."""


class Usage(NamedTuple):
    """Tokens of a call, as counted by the endpoint or, where it is silent, as guessed."""

    prompt_tokens: int
    cached_tokens: int
    response_tokens: int
    reasoning_tokens: int
    is_counted: bool = True
    """Whether the endpoint counted the prompt, or it was guessed."""


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
    """Return the JSON of a call; fields named in `omit` stay out, those of `extra` win."""
    fields: dict[str, Any] = {
        "model": model,
        "messages": [{"role": turn.role, "content": turn.content} for turn in request.messages],
    }
    if kind == "choose":
        fields |= {tokens_field: CHOICE_TOKENS, "temperature": 0.0}
        fields |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        if request.continuation:  # as vLLM and SGLang go on with a response; others need `omit`
            begun = {"role": "assistant", "content": request.continuation.rstrip()}
            fields["messages"] = [*fields["messages"], begun]
            fields |= {"continue_final_message": True, "add_generation_prompt": False}
    else:
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


def parse(raw: bytes, num_samples: int, prompt_guess: int) -> tuple[list[dict[str, Any]], Usage]:
    """Return the choices of an answer, in order, and its usage.

    Where the usage is missing, or is more than the texts can be, it is guessed.

    Raises:
        ValueError: If it is no answer; the message says what it is instead.
    """
    answer = _read(raw)
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices:
        raise ValueError("no choices")
    found = [each for each in choices if isinstance(each, dict) and "message" in each]
    found = [each for each in found if isinstance(each["message"], dict)][:num_samples]
    if not found:
        raise ValueError("no message")
    if len(found) > 1:
        found.sort(key=lambda each: index if isinstance(index := each.get("index"), int) else 0)
    return found, _usage(answer.get("usage"), prompt_guess, found)


def _read(raw: bytes) -> Any:  # noqa: ANN401 (any JSON)
    """Return what JSON says; half a character, as a cut leaves behind, is a replacement mark."""
    try:
        return from_json(raw)
    except ValueError:
        if b"\\ud" not in raw.lower():
            raise
    try:
        text = json.dumps(json.loads(raw), ensure_ascii=False)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return from_json(_HALF.sub("\ufffd", text))


def share(usage: Usage, num: int) -> list[Usage]:
    """Share the usage of a call among its samples; the first takes what does not divide."""
    if num == 1:
        return [usage]
    names = ("prompt_tokens", "cached_tokens", "response_tokens", "reasoning_tokens")
    totals = {name: getattr(usage, name) for name in names}
    rest = usage._replace(**{name: total // num for name, total in totals.items()})
    first = {name: total - (num - 1) * (total // num) for name, total in totals.items()}
    return [usage._replace(**first), *[rest] * (num - 1)]


def read_reply(request: Request, found: Mapping[str, Any], usage: Usage, usd: float) -> Reply:
    """Return one choice of an answer as a reply."""
    text, is_refusal = _text(found["message"])
    reason = "content_filter" if is_refusal else _finish(found.get("finish_reason"))
    return Reply(
        id=request.id,
        text=text,
        finish_reason=reason,
        ending="refused" if is_refusal else ending_of(reason, text),
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        response_tokens=usage.response_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        reasoning=_reasoning(found["message"]),
        log_probability=_log_probability(found.get("logprobs")),
        usd=usd,
    )


def read_choice(request: Request, found: Mapping[str, Any], usage: Usage, usd: float) -> Choice:
    """Return the options of a request, scored.

    They are read from the most likely tokens at the place where the options weigh most; where
    they weigh less than `MIN_MASS` at every one, or the endpoint gives no probabilities, the option
    that the text names takes all, and `is_parsed` says so. An answer that names no option has no
    probabilities at all.
    """
    masses = _masses(found.get("logprobs"), request.options)
    is_parsed = masses is None
    logs = [] if masses is None else [math.log(mass) if mass else -math.inf for mass in masses]
    if masses is None:
        named = choice(_text(found["message"])[0], request.options)
        masses = [] if named is None else [float(option == named) for option in request.options]
    total = sum(masses)
    return Choice(
        id=request.id,
        probabilities=[mass / total for mass in masses] if total else [],
        log_probabilities=logs,
        num_characters=[len(option) for option in request.options],
        num_bytes=[len(option.encode()) for option in request.options],
        prompt_tokens=usage.prompt_tokens,
        response_tokens=usage.response_tokens,
        is_parsed=is_parsed,
        usd=usd,
    )


def read_failure(status: int, headers: Mapping[str, str], raw: bytes, now: datetime) -> Failure:
    """Return what an answer other than 200 means."""
    code, message = _error(raw)
    said = f"{status} {message}".strip()
    if status == 429 and code in ("insufficient_quota", "billing_hard_limit_reached"):
        return Failure("fatal", f"the account has no credit ({said})", status)
    if status == 429 or (status in (503, 529) and _retry_after(headers, now) is not None):
        wait_s = _retry_after(headers, now)
        wait_s = _reset(headers) if wait_s is None else wait_s
        return Failure("throttled", said, status, wait_s, is_overrun=True)
    if status in (408, 409, 425) or status >= 500:
        wait_s, is_overrun = _retry_after(headers, now), status in (408, 503, 529)
        return Failure("overloaded", said, status, wait_s, status >= 500, is_overrun)
    if code == "content_filter" or "content management policy" in message:
        return Failure("refused", said, status)
    if status in (400, 413, 422):
        return Failure("rejected", said, status)
    return Failure("fatal", said, status)


def remaining(headers: Mapping[str, str]) -> dict[str, tuple[float, float, float]]:
    """Return (limit, remaining, seconds to reset) by `requests` and `tokens`, where told."""
    told = {}
    for name in ("requests", "tokens"):
        values = [headers.get(f"x-ratelimit-{what}-{name}") for what in ("limit", "remaining")]
        reset = _duration(headers.get(f"x-ratelimit-reset-{name}"))
        try:
            limit, left = (float(value or "") for value in values)
        except ValueError:
            continue
        if reset is not None:
            told[name] = (limit, left, reset)
    return told


def _text(message: Mapping[str, Any]) -> tuple[str, bool]:
    """Return (text, whether it is a refusal)."""
    content = message.get("content")
    if isinstance(content, list):  # parts, as some servers give them
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(text for text in texts if isinstance(text, str))
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        return refusal, True
    return (content if isinstance(content, str) else ""), False


def _reasoning(message: Mapping[str, Any]) -> str:
    found = message.get("reasoning_content") or message.get("reasoning")
    return found if isinstance(found, str) else ""


def _finish(reason: object) -> str:
    if reason in ("length", "max_tokens", "model_length"):
        return "length"
    if reason in ("content_filter", "safety", "refusal"):
        return "content_filter"
    return "stop"


def _usage(told: object, prompt_guess: int, found: Sequence[Mapping[str, Any]]) -> Usage:
    usage = told if isinstance(told, dict) else {}
    prompt = _count(usage.get("prompt_tokens"))
    is_counted = 0 < prompt <= MOST_TIMES * prompt_guess + HIDDEN_TOKENS
    prompt = prompt if is_counted else prompt_guess
    response = _count(usage.get("completion_tokens"))
    if not 0 < response <= MOST_RESPONSE_TOKENS:
        messages = [each["message"] for each in found]
        texts = (_reasoning(message) + _text(message)[0] for message in messages)
        response = math.ceil(sum(len(text.encode()) for text in texts) / BYTES_PER_TOKEN)
    inner = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    cached, reasoning = (each if isinstance(each, dict) else {} for each in inner)
    return Usage(
        prompt_tokens=prompt,
        cached_tokens=min(prompt, _count(cached.get("cached_tokens"))),
        response_tokens=response,
        reasoning_tokens=min(response, _count(reasoning.get("reasoning_tokens"))),
        is_counted=is_counted,
    )


def _count(value: object) -> int:
    """Return a number of tokens; what is none counts as 0."""
    try:
        return max(0, int(value))  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError, OverflowError):
        return 0


def _log_probability(logprobs: object) -> float | None:
    values = [_finite(place.get("logprob")) for place in _places(logprobs)]
    known = [value for value in values if value is not None]
    return sum(known) if values and len(known) == len(values) else None


def _masses(logprobs: object, options: Sequence[str]) -> list[float] | None:
    """Return the options' probabilities at the place where they weigh most, if it is enough."""
    best: list[float] | None = None
    for place in _places(logprobs):
        masses = dict.fromkeys(options, 0.0)
        for top in _dicts(place.get("top_logprobs")) or [place]:
            token, value = str(top.get("token", "")).strip(" \n\t()[].:*"), top.get("logprob")
            known = _finite(value)
            if token in masses and known is not None:
                masses[token] += math.exp(min(0.0, known))
        if sum(masses.values()) > sum(best or []):
            best = list(masses.values())
    return best if sum(best or []) >= MIN_MASS else None


def _finite(value: object) -> float | None:
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]


def _places(logprobs: object) -> list[dict[str, Any]]:
    return _dicts(logprobs.get("content")) if isinstance(logprobs, dict) else []


def _dicts(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _error(raw: bytes) -> tuple[str, str]:
    """Return (code, message) of an error's body, whatever its form."""
    text = raw[:MESSAGE_CHARS].decode(errors="replace")
    try:
        told = from_json(raw)
    except ValueError:
        return "", text
    error = told.get("error", told) if isinstance(told, dict) else text
    if not isinstance(error, dict):
        return "", str(error)[:MESSAGE_CHARS]
    code = error.get("code") or error.get("type") or ""
    return str(code), str(error.get("message") or error.get("detail") or text)[:MESSAGE_CHARS]


def _retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        try:
            seconds = float(value) * scale
        except ValueError:
            seconds = _seconds_to(value, now)
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def _reset(headers: Mapping[str, str]) -> float | None:
    """Return when a limit of which nothing is left begins anew, where it is told."""
    resets = [reset_s for _, left, reset_s in remaining(headers).values() if left <= 0]
    return min(max(resets), LONGEST_RESET_S) if resets else None


def _seconds_to(date: str, now: datetime) -> float:
    try:
        then = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return math.nan
    return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - now.timestamp()


def _duration(value: str | None) -> float | None:
    """Return the seconds of `6m0s`, `1.5s`, `20ms` or `12`."""
    if not value:
        return None
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "": 1.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s|)", value.strip())
    if not parts or "".join(number + unit for number, unit in parts) != value.strip():
        return None
    return sum(float(number) * units[unit] for number, unit in parts)
