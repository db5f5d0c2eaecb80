"""Read replies of endpoints: choices, usage, thoughts and log-probabilities in all known forms."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import from_json

from spyhop.models.calls import (
    Choice,
    Kind,
    Labels,
    Reply,
    Request,
    TokenLogprobs,
    scored_choice,
)
from spyhop.models.echo import option_values, token_values
from spyhop.models.failures import SHOWN_CHARS, Failure, FailureKind, dicts, page_in, read_stated
from spyhop.models.service import Endpoint
from spyhop.schema import ending_of
from spyhop.text.choices import choice

MIN_MASS = 0.5
"""If all options together have less probability at a position, the model most likely writes
something else there, such as the start of a sentence."""
MOST_TIMES, HIDDEN_TOKENS = 16, 20_000
"""Largest plausible prompt tokens: multiple of the estimate, plus tokens added by a provider."""
MOST_RESPONSE_TOKENS = 10_000_000
BYTES_PER_TOKEN = 4
"""Used to estimate response tokens if an endpoint does not state them."""
NO_MESSAGE: dict[str, Any] = {}
NO_REASON = "null"
"""Finish reason of a reply that states none."""

_HALF = re.compile("[\ud800-\udfff]")
_MARKS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "[THINK]": "[/THINK]",
    "\u25c1think\u25b7": "\u25c1/think\u25b7",
}
"""Marks around thoughts, for endpoints that do not separate them from the text."""
_FIRST_SIGNS = ("<", "[THINK", "[/THINK", "\u25c1")


class Unreadable(ValueError):
    """A reply without a response; one of status 200 may be billed unless a failure says not."""

    def __init__(self, failure: Failure | FailureKind, message: str = "") -> None:
        if not isinstance(failure, Failure):
            failure = Failure(failure, message, 200, is_maybe_billed=True)
        super().__init__(failure.message)
        self.failure = failure


class Usage(NamedTuple):
    """Tokens of a call, counted by the endpoint or else estimated."""

    prompt_tokens: int
    cached_tokens: int
    response_tokens: int
    reasoning_tokens: int
    is_counted: bool = True
    """Whether the endpoint counted the prompt."""
    cache_write_tokens: int = 0
    """Tokens of the prompt that the endpoint wrote to its cache."""

    def usd(self, endpoint: Endpoint) -> float:
        """Return the price in dollars."""
        written = self.cache_write_tokens
        return endpoint.usd(self.prompt_tokens, self.cached_tokens, self.response_tokens, written)


Reader = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns a dialect's reply into a chat completion."""


def parse(
    raw: bytes, num_samples: int, prompt_guess: int, read: Reader = dict
) -> tuple[list[dict[str, Any]], Usage]:
    """Return the choices of a reply that have a response, in order, and its usage.

    A missing or implausible usage is replaced by an estimate.
    """
    try:
        answer = _read(raw)
    except ValueError as error:
        page = page_in(raw)
        kind: FailureKind = "page" if page else "malformed"
        raise Unreadable(kind, page or f"not JSON ({error})") from None
    if isinstance(answer, dict):
        answer = read(answer)
    if stated := read_stated(answer):
        raise Unreadable(stated)
    if isinstance(answer, dict) and isinstance(answer.get("results"), list):
        answer["choices"] = [_moderated(each) for each in dicts(answer["results"])]
    if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list):
        shown = raw[:SHOWN_CHARS].decode(errors="replace")
        raise Unreadable("page", f"JSON without choices: {shown}")
    found = dicts(answer["choices"])
    if not found:
        raise Unreadable("malformed", "no choices")
    if len(found) > 1:
        found.sort(key=lambda each: index if isinstance(index := each.get("index"), int) else 0)
    del found[num_samples:]
    for each in found:
        if not isinstance(each.get("message"), dict):
            text = each.get("text")  # of completions
            each["message"] = {"content": text} if isinstance(text, str) else NO_MESSAGE
    usage = _usage(answer.get("usage"), prompt_guess, found)
    failures = [_broken(each, usage, is_counted="usage" in answer) for each in found]
    if all(failures):
        raise Unreadable(next(filter(None, failures)))
    good = [each for each, failure in zip(found, failures, strict=True) if failure is None]
    return good, usage


def parse_call(
    raw: bytes, kind: Kind, requests: Sequence[Request], prompt_guess: int, read: Reader = dict
) -> tuple[list[dict[str, Any]], Usage]:
    """Return the choices of a reply to requests that were sent together, and its usage."""
    first = requests[0]
    is_scored = kind == "logprobs"
    is_echoed = kind == "choose" and not first.messages
    num = len(first.options) if is_echoed else len(requests)
    choices, usage = parse(raw, num, prompt_guess, read)
    try:
        if is_scored:
            choices = [{"values": token_values(first, choices[0])}]
        elif is_echoed:
            choices = [{"values": option_values(first, choices)}]
        return choices, usage
    except ValueError as error:
        raise Unreadable("rejected", str(error)) from None


def _moderated(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result of a moderation service as a choice; one without scores has no message."""
    if not isinstance(scores := result.get("category_scores"), dict):
        return {}
    flags = result.get("categories")
    flagged = [name for name, is_so in flags.items() if is_so] if isinstance(flags, dict) else []
    if result.get("flagged") and not flagged:
        flagged = ["flagged"]
    known = {name: value for name, value in scores.items() if _finite(value) is not None}
    content = json.dumps({"scores": known, "flagged": flagged})
    return {"message": {"content": content}, "finish_reason": "stop"}


def read_labels(request: Request, found: Mapping[str, Any], usage: Usage, usd: float) -> Labels:
    """Return the labels of a moderation service."""
    labels = from_json(found["message"]["content"])
    return Labels(id=request.id, **labels, prompt_tokens=usage.prompt_tokens, usd=usd)


def _broken(found: Mapping[str, Any], usage: Usage, *, is_counted: bool) -> Failure | None:
    """Return the failure of a choice: an error, or a missing message without a content filter."""
    if found.get("error") and (stated := read_stated({"error": found["error"]})):
        return stated
    ending = ending_of(_reason(found), "")
    if ending == "failed":
        spent = (usage.prompt_tokens, usage.cached_tokens, usage.response_tokens)
        message = f"finish_reason {_reason(found)!r}"
        billed = spent if is_counted else None
        return Failure("overloaded", message, 200, is_maybe_billed=True, usage=billed)
    if found["message"] is NO_MESSAGE and ending != "refused":
        return Failure("malformed", "no message", 200, is_maybe_billed=True)
    if not isinstance(content := found["message"].get("content"), str | list | None):
        message = f"message.content = {content!r:.60} is not text"
        return Failure("malformed", message, 200, is_maybe_billed=True)
    return None


def _read(raw: bytes) -> Any:  # noqa: ANN401 (any JSON)
    """Return the parsed JSON; a lone surrogate, as a cut leaves it, becomes U+FFFD."""
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
    """Divide the usage of a call among its samples; the first one gets the remainder."""
    if num == 1:
        return [usage]
    totals = {name: n for name, n in usage._asdict().items() if name != "is_counted"}
    rest = usage._replace(**{name: total // num for name, total in totals.items()})
    first = {name: total - (num - 1) * (total // num) for name, total in totals.items()}
    return [usage._replace(**first), *[rest] * (num - 1)]


def read_reply(request: Request, found: Mapping[str, Any], usage: Usage, usd: float) -> Reply:
    """Return one choice as a reply, with thoughts separated from its text."""
    text, thoughts, is_refusal = _texts(found["message"])
    reason = _reason(found)
    values = [_finite(place.get("logprob")) for place in _places(found.get("logprobs"))]
    known = [value for value in values if value is not None]
    counts = usage._asdict()
    del counts["is_counted"]
    return Reply(
        id=request.id,
        text=text,
        finish_reason=reason,
        ending="refused" if is_refusal else ending_of(reason, text),
        reasoning=thoughts,
        log_probability=sum(known) if values and len(known) == len(values) else None,
        usd=usd,
        **counts,
    )


def split_thoughts(text: str) -> tuple[str, str]:
    """Return (thoughts, response) of a text that may begin with thoughts in marks.

    A closing mark without an opening one ends thoughts too: templates write the opening one into
    the prompt. A mark in quotes or backticks is a mention and ends nothing.
    """
    if not any(mark in text for mark in _FIRST_SIGNS):
        return "", text
    thoughts: list[str] = []
    while opening := next((each for each in _MARKS if text.lstrip().startswith(each)), None):
        inner, _, text = text.lstrip()[len(opening) :].partition(_MARKS[opening])
        thoughts.append(inner.strip())
    for opening, closing in _MARKS.items():
        before, mark, after = text.partition(closing)
        if mark and opening not in before and before[-1:] not in ("`", "'", '"'):
            thoughts.append(before.strip())
            text = after
            break
    if thoughts:
        text = text.strip()
    return "\n\n".join(each for each in thoughts if each), text


def _texts(message: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Return (text, thoughts, whether the text is a refusal) of a message."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content] if isinstance(content, str) else []
    texts = [text for part in parts if (text := _part(part, ("text", "output_text")))]
    hidden = [text for part in parts if (text := _part(part, ("thinking", "reasoning", "thought")))]
    refusals = [message.get("refusal"), *(_part(part, ("refusal",)) for part in parts)]
    refusal = next((each for each in refusals if isinstance(each, str) and each), "")
    names = ("reasoning_content", "reasoning", "thinking")
    own = (each for n in names if isinstance(each := message.get(n), str) and each.strip())
    details = (e.get("text") or e.get("summary") for e in dicts(message.get("reasoning_details")))
    stated = next(own, None) or "".join(each for each in details if isinstance(each, str))
    thoughts, text = split_thoughts("".join(texts))
    thoughts = "\n\n".join(each for each in (stated, *hidden, thoughts) if each)
    return refusal or text, thoughts, bool(refusal)


def _part(part: object, kinds: tuple[str, ...]) -> str:
    """Return the text of a content part of these kinds, or nothing; plain strings are text."""
    if isinstance(part, str):
        return part if "text" in kinds else ""
    if not isinstance(part, dict) or part.get("type", "text") not in kinds:
        return ""
    for name in (*kinds, "text", "content", "summary"):
        value = part.get(name)
        if isinstance(value, list):
            value = "".join(_part(each, ("text", "summary_text")) for each in value)
        if isinstance(value, str):
            return value
    return ""


def _reason(found: Mapping[str, Any]) -> str:
    reason = found.get("finish_reason")
    return str(reason) if reason is not None else NO_REASON


def read_choice(request: Request, found: Mapping[str, Any], usage: Usage, usd: float) -> Choice:
    """Return the options of a request, scored.

    Probabilities are read from the most likely tokens at the position where the options are most
    likely. If they stay below `MIN_MASS`, or the endpoint returns none, the option that the text
    names gets probability 1, and `is_parsed` is set. A reply that names no option has no
    probabilities.
    """
    if "values" in found:
        return scored_choice(request, found["values"], usage.prompt_tokens, usd=usd)
    masses = _masses(found.get("logprobs"), request.options)
    is_parsed = masses is None
    logs = [] if masses is None else [math.log(mass) if mass else -math.inf for mass in masses]
    if masses is None:
        named = choice(_texts(found["message"])[0], request.options)
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


def read_logprobs(
    request: Request, found: Mapping[str, Any], usage: Usage, usd: float
) -> TokenLogprobs:
    """Return the log-probabilities of a request's scored tokens."""
    num = usage.prompt_tokens, usage.response_tokens
    return TokenLogprobs(
        id=request.id, **found["values"], prompt_tokens=num[0], response_tokens=num[1], usd=usd
    )


READERS = {
    "generate": read_reply,
    "choose": read_choice,
    "logprobs": read_logprobs,
    "classify": read_labels,
}


def failed_result(kind: Kind, name: str, failure: Failure) -> str:
    """Return the JSON of the result of a call that failed permanently."""
    message, reason = failure.line, "content_filter" if failure.kind == "refused" else "error"
    if kind == "choose":
        return Choice(id=name, probabilities=[], error=message).model_dump_json()
    if kind == "classify":
        return Labels(id=name, scores={}, error=message).model_dump_json()
    if kind == "logprobs":
        return TokenLogprobs(id=name, values=[], error=message).model_dump_json()
    return Reply(id=name, text="", finish_reason=reason, error=message).model_dump_json()


def _usage(stated: object, prompt_guess: int, found: Sequence[Mapping[str, Any]]) -> Usage:
    usage = stated if isinstance(stated, dict) else {}
    prompt = _count(usage.get("prompt_tokens") or usage.get("input_tokens"))
    is_counted = 0 < prompt <= MOST_TIMES * prompt_guess + HIDDEN_TOKENS
    prompt = prompt if is_counted else prompt_guess
    response = _count(usage.get("completion_tokens") or usage.get("output_tokens"))
    inner = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    cached, reasoning = (each if isinstance(each, dict) else {} for each in inner)
    thought = _count(reasoning.get("reasoning_tokens"))
    if not 0 < response <= MOST_RESPONSE_TOKENS:
        texts = ("".join(_texts(each["message"])[:2]) for each in found)
        response = math.ceil(sum(len(text.encode()) for text in texts) / BYTES_PER_TOKEN)
    elif 0 < thought <= _count(usage.get("total_tokens")) - prompt - response:
        response += thought  # some count the thoughts in the total alone
    read = cached.get("cached_tokens") or usage.get("prompt_cache_hit_tokens")  # DeepSeek
    cached_tokens = min(prompt, _count(read))
    return Usage(
        prompt_tokens=prompt,
        cached_tokens=cached_tokens,
        cache_write_tokens=min(prompt - cached_tokens, _count(cached.get("cache_write_tokens"))),
        response_tokens=response,
        reasoning_tokens=min(response, thought),
        is_counted=is_counted,
    )


def _count(value: object) -> int:
    """Return a number of tokens; anything else counts as 0."""
    try:
        return max(0, int(value))  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError, OverflowError):
        return 0


def _masses(logprobs: object, options: Sequence[str]) -> list[float] | None:
    """Return the options' probabilities at their most likely position, if above `MIN_MASS`."""
    best: list[float] | None = None
    for place in _places(logprobs):
        masses = dict.fromkeys(options, 0.0)
        for top in dicts(place.get("top_logprobs")) or [place]:
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
    return dicts(logprobs.get("content")) if isinstance(logprobs, dict) else []
