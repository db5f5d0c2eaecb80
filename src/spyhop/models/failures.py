"""Failures of calls: the meaning of an endpoint's status codes, error bodies and headers."""

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple

from pydantic_core import from_json

MESSAGE_CHARS = 300
SHOWN_CHARS = 200
"""Characters shown of a web page that came instead of a reply."""
LONGEST_RESET_S = 61.0
"""Longest wait for a reset: limits are per minute, and some endpoints send a date as seconds."""
NO_CREDIT = 402
NOT_BILLED = {500, 501, 502, 503, 505, 507, 521, 522, 523, 525, 526, 529, 530}
"""Statuses from 500 up that no provider bills: the request failed before a reply was computed, or
was never forwarded. For all others, such as 504 and 524, a reply may exist."""

FailureKind = Literal[
    "throttled", "overloaded", "lost", "malformed", "page", "rejected", "refused", "fatal"
]
"""Kinds of failures:

* `throttled`: a rate limit; retried for as long as other calls are answered
* `overloaded`: 408, 5xx; `lost`: no reply, or an incomplete one; both retried up to max_attempts
* `malformed`: an invalid reply; retried up to max_attempts, then failed permanently
* `page`: a web page, an event stream, a redirect or JSON without choices; a few in a row stop
  the run
* `rejected`: this request fails permanently; `refused`: by a content filter
* `fatal`: a status that concerns the key or the address rather than the request
"""

_WORDS = {
    429: "rate_limit requests tokens too_many throttl resource_exhausted slow_down",
    529: "overloaded",
    503: "unavailable",
    504: "timeout deadline",
    500: "api_error server_error internal",
    409: "conflict",
    499: "cancelled",
    413: "too_large",
    401: "authentication unauthenticated invalid_api_key unauthorized",
    403: "permission forbidden access_denied",
    404: "not_found",
    400: "invalid bad_request context_length failed_precondition out_of_range",
}
"""Statuses by the words of an error's type or code, if it states no number."""
_CREDIT_CODES = re.compile(
    r"insufficient_(quota|balance|credit|fund)|billing|payment_required|credit_balance|"
    r"spend_limit|perday"
)
_CREDIT = re.compile(
    r"credit balance|insufficient (account )?(balance|credit|fund)|(out of|no|not enough|more) "
    r"credits|balance is (not enough|too low|insufficient|zero)|payment required|in arrears|"
    r"(add|purchase|buy) (more )?credit|reached your specified (workspace )?api usage limits"
)
_ACCOUNT = re.compile(
    r"api_key_invalid|invalid_api_key|api key not valid|failed_precondition|account_deactivated|"
    r"(organization|account|resource) has been (temporarily )?(disabled|deactivated|suspended|"
    r"blocked)"
)
"""Of a 400 or 403: it concerns the key or the account, whatever the request."""
_TOO_LONG = re.compile(r"context.length|too long|input token count|max_(new_|output_)?tokens")
_MODERATED = re.compile(
    r"content[ _-]?(filter|management|polic|safety|moderat)|moderation|flagged|"
    r"(usage|safety) polic|data_inspection|prohibited[ _]content|inappropriate|sensitive|"
    r"unsafe|violat"
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A call without a usable reply."""

    kind: FailureKind
    message: str
    status: int = 0
    retry_after_s: float | None = None
    is_maybe_billed: bool = False
    """Whether the provider may have billed it; then its highest price is reserved."""
    is_overrun: bool = False
    """Whether it says that the endpoint is overloaded."""
    usage: tuple[int, int, int] | None = None
    """Prompt, cached and response tokens that may have been billed, if the endpoint stated them."""

    @property
    def line(self) -> str:
        """The message in one line."""
        return " ".join(self.message.split())


class StatedError(NamedTuple):
    """An error in an endpoint's JSON, in any known form."""

    status: int
    """0 if unknown."""
    code: str
    message: str
    wait_s: float | None = None
    """Seconds to wait, where the body states them."""


def read_failure(status: int, headers: Mapping[str, str], raw: bytes, now: datetime) -> Failure:
    """Return the failure of a reply whose status is not 200."""
    if 300 <= status < 400:
        target = headers.get("location") or headers.get("Location") or "nowhere"
        return Failure("page", f"{status} redirects to {target:.{MESSAGE_CHARS}}", status)
    try:
        stated = stated_error(from_json(raw))
    except ValueError:
        stated = StatedError(0, "", raw[:MESSAGE_CHARS].decode(errors="replace"))
    said = f"{status} {stated.message}".strip()
    wait_s = stated.wait_s
    for name, scale in (("retry-after", 1.0), ("retry-after-ms", 0.001)):  # the last one wins
        value = headers.get(name, "").strip()
        try:
            seconds = float(value) * scale
        except ValueError:
            seconds = _seconds_to(value, now)
        if math.isfinite(seconds):
            wait_s = max(0.0, seconds)
    resets = [reset_s for _, left, reset_s in remaining(headers, now).values() if left <= 0]
    reset_s = min(max(resets), LONGEST_RESET_S) if resets and wait_s is None else wait_s
    return failure_of(status, stated._replace(message=said), wait_s, reset_s)


def read_stated(value: Any) -> Failure | None:  # noqa: ANN401 (any JSON)
    """Return the failure that a 200 reply's JSON states, or None if there is none."""
    if isinstance(value, list) and value:  # Google's streams
        value = value[0]
    error = value.get("error") if isinstance(value, dict) else None
    if not error and not (isinstance(value, dict) and "choices" not in value):
        return None
    stated = stated_error(value)
    if not error and not stated.status:
        return None
    message = f"{stated.status or 'an error'} inside 200: {stated.message}"
    found = failure_of(stated.status or 200, stated._replace(message=message))
    if stated.status or found.kind in ("refused", "fatal"):  # words may state a permanent cause
        return found
    return Failure("overloaded", found.message, is_maybe_billed=True)


def failure_of(
    status: int, stated: StatedError, wait_s: float | None = None, reset_s: float | None = None
) -> Failure:
    """Return the failure for a status and an error."""
    code, message = stated.code.lower(), stated.message
    words = f"{code} {message.lower()}"
    has_no_credit = status == NO_CREDIT or "perday" in code
    if status in (200, 400, 403, 429) and wait_s is None:  # a temporary limit states a time to wait
        has_no_credit |= bool(_CREDIT_CODES.search(code) or _CREDIT.search(words))
    if has_no_credit:
        return Failure("fatal", f"the account has no credit ({message})", NO_CREDIT)
    if status in (400, 403) and (cause := _ACCOUNT.search(words)):
        return Failure("fatal", message, 401 if "key" in cause[0] else status)
    if status == 429 or (status in (503, 529) and wait_s is not None):
        return Failure("throttled", message, status, reset_s, is_overrun=True)
    if status in (408, 409, 425, 499) or status >= 500:
        is_billed = status in (408, 499) or (status >= 500 and status not in NOT_BILLED)
        is_overrun = status in (408, 503, 504, 524, 529)
        return Failure("overloaded", message, status, wait_s, is_billed, is_overrun)
    if status < 300:  # not 200, or an error that states no status
        return Failure("malformed", message, status, is_maybe_billed=True)
    if status != 401 and _MODERATED.search(words):
        return Failure("refused", message, status)
    if status in (400, 413, 422, 451) or (status == 403 and _TOO_LONG.search(words)):
        return Failure("rejected", message, status)
    return Failure("fatal", message, status)


def stated_error(value: Any) -> StatedError:  # noqa: ANN401 (any JSON)
    """Return the error of a JSON body, in any of the forms that endpoints use."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, str):
        return StatedError(0, "", _words(value))
    outer = value if isinstance(value, dict) else {}
    error = outer.get("error") or outer
    if not isinstance(error, dict):
        return StatedError(_status(outer), "", _words(error))
    metadata = error.get("metadata")
    reasons = metadata.get("reasons") if isinstance(metadata, dict) else None
    codes = [error.get(name) for name in ("code", "type", "status")]
    wait_s, details = None, error.get("details")
    for detail in dicts(details if isinstance(details, list) else [details]):
        codes += [detail.get("reason"), detail.get("error_code")]  # Google's, Anthropic's
        codes += [quota.get("quotaId") for quota in dicts(detail.get("violations"))]
        if isinstance(delay := detail.get("retryDelay"), str):
            wait_s = _duration(delay)
    code = " ".join(str(each) for each in codes if each)
    names = ("message", "msg", "detail", "error_msg", "status_msg")
    message = next((error[name] for name in names if error.get(name)), error)
    shown = _words(message) + (f" ({', '.join(map(str, reasons))})" if reasons else "")
    return StatedError(_status(error) or _status(outer), code, shown, wait_s)


def dicts(value: object) -> list[dict[str, Any]]:
    """Return the objects of a JSON list; any other value has none."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def page_in(raw: bytes) -> str | None:
    """Return the start of a body that is a web page or an event stream, else None."""
    text = raw[: 4 * SHOWN_CHARS].decode(errors="replace").lstrip("\ufeff \r\n\t")
    if not text.startswith(("<", "data:", "event:", ": ", "id:", "retry:")):
        return None
    what = "a web page" if text.startswith("<") else "an event stream"
    return f"{what} in place of a reply: {' '.join(text.split()):.{SHOWN_CHARS}}"


_HEADERS = [
    (shown, [form.format(what=what, name=name) for what in ("limit", "remaining", "reset")])
    for form in ("x-ratelimit-{what}-{name}", "anthropic-ratelimit-{name}-{what}")
    for name, shown in [
        ("requests", "requests"),
        ("tokens", "tokens"),
        ("input-tokens", "prompt tokens"),
        ("output-tokens", "response tokens"),
    ]
]
"""Each limit, and the headers that state it."""


def remaining(
    headers: Mapping[str, str], now: datetime | None = None
) -> dict[str, tuple[float, float, float]]:
    """Return (limit, remaining, seconds to reset) of each limit that is stated."""
    found = {}
    for shown, names in _HEADERS:
        if names[1] not in headers:
            continue
        limit, left, reset = (headers.get(name, "") for name in names)
        reset_s = _duration(reset)
        if reset_s is None:
            reset_s = _seconds_to(reset, now or datetime.now(UTC))
        if math.isfinite(reset_s):
            with suppress(ValueError):
                found[shown] = (float(limit), float(left), max(0.0, reset_s))
    return found


def _status(error: Mapping[str, Any]) -> int:
    for name in ("code", "status", "status_code", "statusCode", "http_status", "error_code"):
        value = error.get(name)
        if isinstance(value, int | float | str) and re.fullmatch(r"[45]\d\d", str(value)):
            return int(value)
    words = " ".join(str(error.get(name) or "") for name in ("type", "code", "status")).lower()
    if _CREDIT_CODES.search(words):
        return NO_CREDIT
    found = (n for n, each in _WORDS.items() if any(word in words for word in each.split()))
    return next(found, 0)


def _words(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text[:MESSAGE_CHARS]


def _seconds_to(date: str, now: datetime) -> float:
    """Return the seconds to a date of an HTTP header or of RFC 3339."""
    try:
        read = datetime.fromisoformat if date[:4].isdigit() else parsedate_to_datetime
        then = read(date)
    except (TypeError, ValueError):
        return math.nan
    return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - now.timestamp()


def _duration(value: str) -> float | None:
    """Return the seconds of `6m0s`, `1.5s`, `20ms` or `12`."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "": 1.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s|)", value.strip())
    if not value or "".join(number + unit for number, unit in parts) != value.strip():
        return None
    return sum(float(number) * units[unit] for number, unit in parts)
