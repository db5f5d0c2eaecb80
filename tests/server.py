"""A server that speaks the chat API of OpenAI and of Azure, and keeps its own books.

In a thread, where a test gives its own functions:

    with Server(latency_s=0.01, limits=Limits(requests=100), plan=each(["429", "reset"])) as server:
        ...  # server.url, server.key
        assert not server.violations()
        assert set(server.billed().values()) == {1}

In a process of its own, where it outlives the client or must be fast:

    with ServerProcess("--latency-ms", "50", "--fault", "reset=0.02") as server:
        ...  # server.url, server.key, server.stats(), server.entries()

    python tests/server.py --port 0 --latency-ms 50    # prints its port

It reads HTTP/1.1 itself, so that it can break the protocol at any byte and costs a client on the
same machine little: some 0.1 ms of processor time a request.
"""

import argparse
import asyncio
import heapq
import json
import math
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from array import array
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from email.utils import formatdate
from functools import partial
from hashlib import blake2b
from http import HTTPStatus
from itertools import compress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

try:
    import uvloop
except ImportError:
    uvloop = None

KEY = "sk-test-0123456789"
MODEL = "teacher"
API_VERSION = "2024-10-21"
PER_MESSAGE, PER_PROMPT = 4, 3
"""Tokens of a prompt that stand for no text."""
ROLES = {"system", "developer", "user", "assistant", "tool"}
PARAMETERS = {
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "n",
    "logprobs", "top_logprobs", "response_format", "frequency_penalty", "presence_penalty",
    "logit_bias", "metadata", "stop", "store", "stream", "user", "reasoning_effort", "service_tier",
    "safety_identifier", "prompt_cache_key", "verbosity", "tools", "tool_choice",
    "parallel_tool_calls", "modalities", "prediction",
}  # fmt: skip


# ---------------------------------------------------------------- what tests say and read


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Declared limits: at most so many in any `window_s` seconds, as the server counts them."""

    requests: int | None = None
    tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    concurrency: int | None = None
    counts: str = "reserved"
    """`reserved`: prompt + max_tokens, for good; `used`: the usage once it is known."""
    window_s: float = 60.0
    is_enforced: bool = True
    retry_after: str = "seconds"
    """How a 429 says when to come again: `seconds`, `date`, `ms`, or empty."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it was understood. `attempt` counts from 0 for each distinct body."""

    key: str
    attempt: int
    place: int
    """Of this request among all that arrived."""
    body: dict[str, Any]
    prompt_tokens: int
    max_tokens: int

    @property
    def text(self) -> str:
        """Content of the last message."""
        return self.body["messages"][-1]["content"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An answer with more to it than text."""

    text: str | None
    finish_reason: str = "stop"
    reasoning: str = ""
    refusal: str | None = None
    logprobs: Sequence[tuple[str, float, Mapping[str, float]]] | None = None
    """Per token: the token, its log-probability, those of the likeliest ones."""
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the log. Times are `time.monotonic()`, one clock for all processes."""

    time: float
    settled: float
    """When the outcome stood; NaN while it does not."""
    key: str
    status: int
    """0 where no response was sent."""
    outcome: str
    """`ok`, `limit` (429 by the limits), a fault's name, or `invalid`, `key`, `model`, ...; empty
    while open."""
    input_reserved: int
    output_reserved: int
    input_counted: int
    output_counted: int
    """What counts towards the limits in the end."""
    input_used: int
    output_used: int
    """What is billed."""
    is_billed: bool
    is_delivered: bool
    """The whole response was handed to the system while the client was there."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A window ending at `time` that held more than a declared limit."""

    limit: str
    time: float
    count: int
    allowed: int


Plan = Callable[[Call], str | None]
"""Names the fault of a call, if any."""


def chances(parts: Mapping[str, float], *, seed: int = 0, attempts: int | None = None) -> Plan:
    """Faults by probability, in the first `attempts` of each body; the order of calls is moot."""

    def plan(call: Call) -> str | None:
        if attempts is not None and call.attempt >= attempts:
            return None
        drawn = random.Random(f"{seed} {call.key} {call.attempt}").random()
        for name, chance in parts.items():
            drawn -= chance
            if drawn < 0:
                return name
        return None

    return plan


def in_order(names: Sequence[str | None]) -> Plan:
    """Faults of the first calls, in order of arrival."""
    return lambda call: names[call.place] if call.place < len(names) else None


def each(names: Sequence[str | None]) -> Plan:
    """Faults of the first attempts of every body."""
    return lambda call: names[call.attempt] if call.attempt < len(names) else None


# ---------------------------------------------------------------- faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens instead of a good answer. With a `status` of 200 the answer is computed,
    changed, billed; others cost nothing."""

    status: int = 200
    error: Mapping[str, Any] | None = None
    text: bytes | None = None
    """Sent instead of JSON."""
    retry: str = ""
    """`seconds`, `date` or `ms`: the header that says when to come again."""
    headers: tuple[tuple[str, str], ...] = ()
    said: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Said` that change."""
    change: Callable[[dict[str, Any]], Any] | None = None
    """Changes the reply as it goes into JSON."""
    wire: str = ""
    """`hang`, `reset`, `close`: before any byte. `cut`, `cut-reset`, `cut-chunked`: in mid-body.
    `chunked`, `drip`, `last`: a good body in chunks, in small pieces, with `Connection: close`."""
    is_billed: bool = True


def _error(message: str, kind: str, code: str | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code, **more}}


def _usage(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda reply: {**reply, "usage": change(reply["usage"])}


def _choice(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda reply: {**reply, "choices": [{**one, **changes} for one in reply["choices"]]}


def _without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda reply: {key: value for key, value in reply.items() if key != name}


_RATE = _error("Rate limit reached for requests", "requests", "rate_limit_exceeded")
_HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
_AZURE_FILTER = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content "
        "management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"violence": {"filtered": True, "severity": "medium"}},
        },
    }
}
FAULTS: dict[str, Fault] = {
    # to be tried again
    "429": Fault(status=429, error=_RATE),
    "429-seconds": Fault(status=429, error=_RATE, retry="seconds"),
    "429-date": Fault(status=429, error=_RATE, retry="date"),
    "429-ms": Fault(status=429, error=_RATE, retry="ms"),
    "429-nonsense": Fault(status=429, error=_RATE, headers=(("Retry-After", "soon"),)),
    "429-past": Fault(
        status=429, error=_RATE, headers=(("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"),)
    ),
    "429-negative": Fault(status=429, error=_RATE, headers=(("Retry-After", "-5"),)),
    "429-html": Fault(status=429, text=_HTML),
    "408": Fault(status=408, error=_error("Request timed out", "timeout")),
    "409": Fault(status=409, error=_error("Conflict", "conflict")),
    "500": Fault(status=500, error=_error("The server had an error", "server_error")),
    "500-empty": Fault(status=500, text=b""),
    "502": Fault(status=502, text=_HTML),
    "503": Fault(status=503, error=_error("The engine is overloaded", "server_error")),
    "503-seconds": Fault(
        status=503, error=_error("The engine is overloaded", "server_error"), retry="seconds"
    ),
    "504": Fault(status=504, text=_HTML),
    "529": Fault(status=529, error=_error("Overloaded", "overloaded_error")),
    "reset": Fault(wire="reset", is_billed=False),
    "close": Fault(wire="close", is_billed=False),
    "hang": Fault(wire="hang", is_billed=False),
    "html": Fault(text=_HTML, headers=(("Content-Type", "text/html"),), is_billed=False),
    "error-200": Fault(text=json.dumps(_RATE).encode(), is_billed=False),
    # computed and billed, but the client has little of it
    "reset-billed": Fault(wire="reset"),
    "hang-billed": Fault(wire="hang"),
    "cut": Fault(wire="cut"),
    "cut-reset": Fault(wire="cut-reset"),
    "cut-chunked": Fault(wire="cut-chunked"),
    "empty-body": Fault(text=b""),
    "json": Fault(text=b'{"id": "chatcmpl-1", "choices": [{"index": 0, "mess'),
    "not-utf8": Fault(text=b'{"choices": [{"message": {"content": "\xff\xfe"}}]}'),
    "array": Fault(change=lambda reply: [reply]),
    "no-choices": Fault(change=_without("choices")),
    "empty-choices": Fault(change=lambda reply: {**reply, "choices": []}),
    "null-message": Fault(change=_choice(message=None)),
    "number-content": Fault(change=_choice(message={"role": "assistant", "content": 7})),
    # answers that are data
    "null": Fault(said={"text": None}),
    "empty": Fault(said={"text": ""}),
    "length": Fault(said={"finish_reason": "length"}),
    "filter": Fault(said={"text": "", "finish_reason": "content_filter"}),
    "refusal": Fault(said={"text": None, "refusal": "I cannot help with that."}),
    "no-finish": Fault(change=_choice(finish_reason=None)),
    "no-logprobs": Fault(change=_choice(logprobs=None)),
    # good answers with odd books
    "no-usage": Fault(change=_without("usage")),
    "null-usage": Fault(change=_usage(lambda usage: None)),
    "zero-usage": Fault(change=_usage(lambda usage: dict.fromkeys(usage, 0))),
    "string-usage": Fault(
        change=_usage(lambda usage: {key: str(value) for key, value in usage.items()})
    ),
    "negative-usage": Fault(change=_usage(lambda usage: {**usage, "completion_tokens": -1})),
    "huge-usage": Fault(
        change=_usage(lambda usage: {**usage, "completion_tokens": 10**12, "prompt_tokens": 10**12})
    ),
    # good answers, oddly sent
    "slow": Fault(),
    "chunked": Fault(wire="chunked"),
    "drip": Fault(wire="drip"),
    "last": Fault(wire="last"),
    "twice": Fault(
        headers=(
            ("x-ratelimit-remaining-requests", "1"),
            ("x-ratelimit-remaining-requests", "x"),
            ("Content-Type", "text/plain"),
            ("x-request-id", "a"),
            ("x-request-id", "b"),
        )
    ),
    # for good
    "400": Fault(
        status=400, error=_error("Invalid value for 'temperature'", "invalid_request_error")
    ),
    "400-filter": Fault(status=400, error=_AZURE_FILTER),
    "400-length": Fault(
        status=400,
        error=_error(
            "This model's maximum context length is 8192 tokens. However, your messages resulted "
            "in 9001 tokens.",
            "invalid_request_error",
            "context_length_exceeded",
        ),
    ),
    "413": Fault(status=413, text=_HTML),
    "422": Fault(status=422, error=_error("Unprocessable", "invalid_request_error")),
    "quota": Fault(
        status=429,
        error=_error(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            "insufficient_quota",
        ),
    ),
    "401": Fault(
        status=401, error=_error("Incorrect API key", "invalid_request_error", "invalid_api_key")
    ),
    "401-echo": Fault(status=401),
    "403": Fault(
        status=403,
        error=_error("Country, region, or territory not supported", "request_forbidden", "x"),
    ),
    "404": Fault(
        status=404, error=_error("No such model", "invalid_request_error", "model_not_found")
    ),
}
"""By name. `429` to `error-200` should be tried again; of `400` to `404` none should."""


# ---------------------------------------------------------------- answers and their tokens


def pieces(text: str, counting: str = "bytes") -> list[str]:
    """Tokens of a text; joined they are the text. `bytes` splits into fours, `words` at spaces."""
    if counting == "words":
        return re.findall(r"\s*\S+|\s+$", text)
    if text.isascii():
        return [text[start : start + 4] for start in range(0, len(text), 4)]
    found, size = [""], 0
    for letter in text:
        width = len(letter.encode())
        if size + width > 4 and found[-1]:
            found.append("")
            size = 0
        found[-1] += letter
        size += width
    return found if text else []


def count_tokens(text: str, counting: str = "bytes") -> int:
    """How many tokens a text has for the server."""
    if counting == "bytes" and text.isascii():
        return -(-len(text) // 4)
    return len(pieces(text, counting))


def prompt_tokens(messages: Sequence[Mapping[str, Any]], counting: str = "bytes") -> int:
    """Tokens of a prompt, those around its messages included."""
    texts = (message["content"] for message in messages)
    return PER_PROMPT + sum(PER_MESSAGE + count_tokens(text, counting) for text in texts)


def told(messages: Sequence[Mapping[str, Any]], index: int = 0) -> str:
    """The default answer: a function of the messages and the choice's index."""
    words = json.dumps([[m["role"], m["content"]] for m in messages]) + f" {index}"
    return f"The answer is {blake2b(words.encode(), digest_size=8).hexdigest()}."


def instance(schema: Mapping[str, Any], text: str) -> Any:
    """Something that fits a JSON schema of the plain kinds; its strings are `text`."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object":
        inner = schema.get("properties", {})
        return {name: instance(value, text) for name, value in inner.items()}
    if kind == "array":
        return [instance(schema.get("items", {"type": "string"}), text)]
    return {"string": text, "integer": 1, "number": 0.5, "boolean": True, "null": None}[kind]


def duration(seconds: float) -> str:
    """OpenAI's way to write a time: 6m0s, 1.5s, 20ms."""
    if seconds < 1:
        return f"{math.ceil(1000 * seconds)}ms"
    minutes, rest = divmod(seconds, 60)
    shown = f"{rest:.3f}".rstrip("0").rstrip(".")
    return f"{int(minutes)}m{shown}s" if minutes else f"{shown}s"


# ---------------------------------------------------------------- the books


class _Books:
    """Every request in columns, and the sliding window that admission looks at."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.time, self.settled = array("d"), array("d")
        self.status = array("h")
        self.counts = [array("q") for _ in range(6)]
        """Input and output as reserved, as counted in the end, as billed."""
        self.is_billed, self.is_delivered = bytearray(), bytearray()
        self.keys: list[bytes] = []
        self.outcomes: list[str] = []
        self.attempts: dict[bytes, int] = {}
        self.billed: dict[bytes, int] = {}
        self.max_in_flight = 0
        self._window: deque[list[float]] = deque()
        self._sums = [0, 0, 0]
        """Requests, input and output tokens in the window."""

    def arrive(self, key: bytes, reserved_in: int, reserved_out: int) -> int:
        for column, value in zip(
            self.counts, (reserved_in, reserved_out) * 2 + (0, 0), strict=True
        ):
            column.append(value)
        self.time.append(time.monotonic())
        self.settled.append(math.nan)
        self.status.append(0)
        self.is_billed.append(0)
        self.is_delivered.append(0)
        self.keys.append(key)
        self.outcomes.append("")
        return len(self.keys) - 1

    def settle(
        self, place: int, status: int, outcome: str, counted: tuple[int, int] | None
    ) -> None:
        self.settled[place] = time.monotonic()
        self.status[place] = status
        self.outcomes[place] = outcome
        if counted is not None:
            self.counts[2][place], self.counts[3][place] = counted

    def bill(self, place: int, tokens_in: int, tokens_out: int) -> None:
        key = self.keys[place]
        self.billed[key] = self.billed.get(key, 0) + 1
        self.is_billed[place] = 1
        self.counts[4][place], self.counts[5][place] = tokens_in, tokens_out

    # admission

    def admit(self, place: int) -> tuple[list[float], str, float | None]:
        """Enter a request in the window, or name the limit in its way and when there is room.

        The time is None for a request that alone is more than a limit allows.
        """
        now = self.time[place]
        self._forget(now)
        cost = [1, self.counts[0][place], self.counts[1][place]]
        for name, allowed, used, mine in self._state(cost):
            if self.limits.is_enforced and used + mine > allowed:
                room = None if mine > allowed else self._room(name, used + mine - allowed, now)
                return [], name, room
        line = [now, *cost]
        self._window.append(line)
        self._sums = [a + b for a, b in zip(self._sums, cost, strict=True)]
        return line, "", 0.0

    def replace(self, line: list[float], tokens_in: int, tokens_out: int) -> None:
        """Count other tokens than were reserved."""
        if self._window and line[0] >= self._window[0][0]:
            self._sums[1] += tokens_in - int(line[2])
            self._sums[2] += tokens_out - int(line[3])
        line[2], line[3] = tokens_in, tokens_out

    def left(self) -> dict[str, tuple[int, int, float]]:
        """Per limit: allowed, left, seconds until all is left again."""
        now = time.monotonic()
        self._forget(now)
        reset = self._window[-1][0] + self.limits.window_s - now if self._window else 0.0
        return {
            name: (allowed, max(0, allowed - used), max(0.0, reset))
            for name, allowed, used, _ in self._state([0, 0, 0])
        }

    def _forget(self, now: float) -> None:
        before = now - self.limits.window_s
        while self._window and self._window[0][0] <= before:
            line = self._window.popleft()
            self._sums = [int(a - b) for a, b in zip(self._sums, line[1:], strict=True)]

    def _state(self, cost: Sequence[int]) -> list[tuple[str, int, int, int]]:
        return [
            (name, allowed, int(_part(name, *self._sums)), int(_part(name, *cost)))
            for name, allowed in self._declared()
        ]

    def _declared(self) -> list[tuple[str, int]]:
        found = ((name, getattr(self.limits, name)) for name in _PARTS)
        return [(name, allowed) for name, allowed in found if allowed is not None]

    def _room(self, name: str, needed: float, now: float) -> float:
        for line in self._window:
            needed -= _part(name, line[1], line[2], line[3])
            if needed <= 0:
                return line[0] + self.limits.window_s - now
        return self.limits.window_s

    # what the tests ask

    def entries(self) -> list[Entry]:
        columns = zip(
            self.time, self.settled, (key.hex() for key in self.keys), self.status, self.outcomes,
            *self.counts, map(bool, self.is_billed), map(bool, self.is_delivered), strict=True,
        )  # fmt: skip
        return [Entry(*values) for values in columns]

    def violations(self, *, rejected: bool = True) -> list[Violation]:
        """Every arrival after which a window held too much.

        Counted from the log alone, whether or not the limits are enforced: a request from its
        arrival; its tokens as reserved until its outcome stood, then as counted, and both for
        `window_s`. With `rejected` false, requests the limits turned away do not count.
        """
        declared = self._declared()
        if not declared:
            return []
        events: list[tuple[float, int, int, int, int]] = []
        window_s = self.limits.window_s
        for place, began in enumerate(self.time):
            if not rejected and self.outcomes[place] == "limit":
                continue
            first = self.counts[0][place], self.counts[1][place]
            last = self.counts[2][place], self.counts[3][place]
            ended, settled = began + window_s, self.settled[place]
            events.append((began, 1, 1, *first))
            if settled < ended:  # false for NaN
                events.append((settled, 0, 0, last[0] - first[0], last[1] - first[1]))
                events.append((ended, -1, -1, -last[0], -last[1]))
            else:
                events.append((ended, -1, -1, -first[0], -first[1]))
        events.sort(key=lambda event: event[:2])
        found, sums = [], [0, 0, 0]
        for moment, order, *change in events:
            sums = [a + b for a, b in zip(sums, change, strict=True)]
            if order < 0:
                continue
            for name, allowed in declared:
                used = _part(name, *sums)
                if used > allowed and _part(name, *change) > 0:
                    found.append(Violation(name, moment, int(used), allowed))
        return found

    def stats(self) -> dict[str, Any]:
        violations = self.violations()
        return {
            "requests": len(self.keys),
            "distinct": len(self.attempts),
            "billed": sum(self.billed.values()),
            "billed_distinct": len(self.billed),
            "billed_most": max(self.billed.values(), default=0),
            "billed_undelivered": sum(
                1 for a, b in zip(self.is_billed, self.is_delivered, strict=True) if a > b
            ),
            "outcomes": dict(Counter(self.outcomes)),
            "input_tokens": sum(self.counts[4]),
            "output_tokens": sum(self.counts[5]),
            "max_in_flight": self.max_in_flight,
            "first_billed": next(compress(self.time, self.is_billed), None),
            "violations": len(violations),
            "violations_admitted": len(self.violations(rejected=False)),
            "first_violation": str(violations[0]) if violations else None,
        }


_PARTS = {
    "requests": (1, 0, 0),
    "tokens": (0, 1, 1),
    "input_tokens": (0, 1, 0),
    "output_tokens": (0, 0, 1),
}


def _part(name: str, requests: float, tokens_in: float, tokens_out: float) -> float:
    a, b, c = _PARTS[name]
    return a * requests + b * tokens_in + c * tokens_out


# ---------------------------------------------------------------- the service


class _Denied(Exception):
    def __init__(self, status: int, outcome: str, body: Mapping[str, Any]) -> None:
        super().__init__(outcome)
        self.status, self.outcome, self.body = status, outcome, body


def _invalid(message: str, code: str | None = None, param: str | None = None) -> _Denied:
    return _Denied(400, "invalid", _error(message, "invalid_request_error", code, param=param))


@dataclass(slots=True)
class _Response:
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    wire: str = ""


@dataclass(kw_only=True)
class Service:
    """What the server does with a request. Every field is an option of `Server`."""

    key: str | None = KEY
    """None: whoever comes is served."""
    is_forbidden: bool = False
    """The right key is answered with 403."""
    models: tuple[str, ...] = (MODEL,)
    """Azure's deployments too. Empty: any."""
    answer: Callable[[Call], str | Said] | None = None
    answer_chars: int = 0
    """Least length of an answer, where the test gives none."""
    counting: str = "bytes"
    """`bytes` (four a token) or `words`."""
    latency_s: float = 0.0
    latency_sigma: float = 0.0
    """Spread of the latency's logarithm; the median is `latency_s`."""
    slots: int = 0
    """Requests in work at a time; others wait for their turn. 0: any number."""
    slow_s: float = 1.0
    """What the fault `slow` adds."""
    retry_after_s: float = 1.0
    """What the faults with a Retry-After say."""
    limits: Limits = field(default_factory=Limits)
    plan: Plan | None = None
    tells_limits: bool = False
    """Adds the `x-ratelimit-*` headers."""
    tokens_field: str = ""
    """The only one of `max_tokens` and `max_completion_tokens` that is taken; empty: both are."""
    max_tokens: int = 4096
    """Where a request names none."""
    context: int = 1 << 20
    """Tokens of prompt and response at most."""
    cached_frac: float = 0.0
    """Share of each prompt that counts as read before."""
    is_strict: bool = True
    """Parameters that the API does not know are refused."""
    keeps_bodies: bool = False

    def __post_init__(self) -> None:
        self.bodies: dict[str, dict[str, Any]] = {}
        self.in_flight = 0
        self._ends: list[float] = []
        self.clear()

    def clear(self) -> None:
        """Forget everything so far."""
        self.books = _Books(self.limits)
        self.bodies.clear()

    # routing; `send` takes the response now or later, or None to say nothing, ever

    def handle(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        send: Callable[[_Response], bool],
        later: Callable[..., object],
    ) -> None:
        path = target.partition("?")[0]
        if method == "POST" and path == "/v1/chat/completions":
            self._chat(None, headers, body, send, later)
        elif method == "POST" and (found := _AZURE.fullmatch(path)):
            version = parse_qs(urlsplit(target).query).get("api-version")
            deployment = unquote(found[1])
            if version:
                self._chat(deployment, headers, body, send, later)
            else:
                send(_json(404, {"error": {"code": "404", "message": "Resource not found"}}))
        elif method == "GET" and path == "/v1/models":
            try:
                self._check_key(headers, is_azure=False)
            except _Denied as denied:
                send(_json(denied.status, denied.body))
                return
            made = {"object": "model", "created": 1700000000, "owned_by": "tests"}
            send(_json(200, {"object": "list", "data": [{"id": m, **made} for m in self.models]}))
        elif path == "/health":
            send(_json(200, {}))
        elif path == "/stats":
            asked = parse_qs(urlsplit(target).query)
            stats = self.books.stats()
            if "bodies" in asked:
                stats["bodies"] = {key.hex(): count for key, count in self.books.billed.items()}
            send(_json(200, stats))
        elif path == "/count":
            count, billed = len(self.books.keys), len(self.books.billed)
            send(_json(200, {"requests": count, "billed_distinct": billed}))
        elif path == "/log":
            names = [each_.name for each_ in fields(Entry)]
            lines = [[getattr(e, name) for name in names] for e in self.books.entries()]
            send(_json(200, lines))
        elif method == "POST" and path == "/clear":
            self.clear()
            send(_json(200, {}))
        else:
            message = f"Invalid URL ({method} {path})"
            send(_json(404, _error(message, "invalid_request_error")))

    def _chat(
        self,
        deployment: str | None,
        headers: Mapping[str, str],
        raw: bytes,
        send: Callable[[_Response], bool],
        later: Callable[..., object],
    ) -> None:
        books = self.books
        key = blake2b(raw, digest_size=16).digest()
        attempt = books.attempts.get(key, 0)
        books.attempts[key] = attempt + 1
        try:
            self._check_key(headers, is_azure=deployment is not None)
            body = self._read(raw, deployment)
        except _Denied as denied:
            place = books.arrive(key, 0, 0)
            books.settle(place, denied.status, denied.outcome, None)
            books.is_delivered[place] = send(_json(denied.status, denied.body))
            return
        name = key.hex()
        if self.keeps_bodies:
            self.bodies[name] = body
        size = prompt_tokens(body["messages"], self.counting)
        most = body.get("max_completion_tokens") or body.get("max_tokens") or self.max_tokens
        place = books.arrive(key, size, most * body.get("n", 1))
        call = Call(name, attempt, place, body, size, most)
        if size + most > self.context:
            fault = FAULTS["400-length"]
            books.settle(place, 400, "context", (0, 0))
            books.is_delivered[place] = send(_json(400, fault.error))
            return
        line, limit, room = books.admit(place)
        concurrency = self.limits.concurrency
        if self.limits.is_enforced and concurrency is not None and self.in_flight > concurrency:
            limit, room = "concurrency", self.latency_s
        if limit:
            if line:
                books.replace(line, 0, 0)
            books.settle(place, 429, "limit", (0, 0))
            books.is_delivered[place] = send(self._turned_away(limit, room))
            return
        self._answer(call, line, headers, send, later)

    def _answer(
        self,
        call: Call,
        line: list[float],
        headers: Mapping[str, str],
        send: Callable[[_Response], bool],
        later: Callable[..., object],
    ) -> None:
        name = self.plan(call) if self.plan else None
        fault = FAULTS[name] if name else None
        if fault is None or (fault.status == 200 and fault.is_billed):
            seconds = self.latency_s
            if self.latency_sigma:
                drawn = random.Random(f"{call.key} {call.attempt}").gauss(0.0, self.latency_sigma)
                seconds *= math.exp(drawn)
            if name == "slow":
                seconds += self.slow_s
            if self.slots:
                now = time.monotonic()
                is_full = len(self._ends) >= self.slots
                end = max(now, heapq.heappop(self._ends) if is_full else now) + seconds
                heapq.heappush(self._ends, end)
                seconds = end - now
            answered = partial(self._answered, call, name, fault, line, send, later, self.books)
            if seconds:
                later(seconds, answered)
            else:
                answered()
            return
        counted = (0, 0) if 400 <= fault.status < 500 else None
        if counted:
            self.books.replace(line, 0, 0)
        self.books.settle(call.place, fault.status if not fault.wire else 0, name, counted)
        if name == "401-echo":
            said = headers.get("authorization", "") or headers.get("api-key", "")
            response = _json(401, _error(f"Incorrect API key provided: {said}", "auth", "401"))
        elif fault.text is not None:
            response = _Response(fault.status, fault.text, fault.headers)
        else:
            response = _json(fault.status, fault.error or {}, fault.headers)
        response.headers += self._come_again(fault.retry, self.retry_after_s)
        response.wire = fault.wire
        self.books.is_delivered[call.place] = send(response)

    def _answered(
        self,
        call: Call,
        name: str | None,
        fault: Fault | None,
        line: list[float],
        send: Callable[[_Response], bool],
        later: Callable[..., object],
        books: _Books,
    ) -> None:
        """The answer is computed: it is billed, whoever still listens."""
        reply, written = self._reply(call, fault)
        if fault and fault.change:
            reply = fault.change(reply)
        raw = json.dumps(reply).encode()
        headers: tuple[tuple[str, str], ...] = ()
        wire = ""
        if fault:
            raw = raw if fault.text is None else fault.text
            headers, wire = fault.headers, fault.wire
        used = call.prompt_tokens, written
        if self.limits.counts == "used":
            books.replace(line, *used)
        books.settle(call.place, 200, name or "ok", used if self.limits.counts == "used" else None)
        books.bill(call.place, *used)
        if self.tells_limits:
            headers += self._limit_headers()
        response = _Response(200, raw, headers, wire)
        if wire in {"hang", "reset", "close"}:
            books.status[call.place] = 0
        books.is_delivered[call.place] = send(response)

    def _reply(self, call: Call, fault: Fault | None) -> tuple[dict[str, Any], int]:
        body, choices, written, thought, cached = call.body, [], 0, 0, 0
        for index in range(body.get("n", 1)):
            said = self._say(call, index)
            if fault and fault.said:
                said = replace(said, **fault.said)
            text, finish_reason = said.text, said.finish_reason
            size = count_tokens(text or "", self.counting)
            hidden = count_tokens(said.reasoning, self.counting)
            if size + hidden > call.max_tokens:
                hidden = min(hidden, call.max_tokens)
                size = call.max_tokens - hidden
                text = "".join(pieces(text or "", self.counting)[:size])
                finish_reason = "length"
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if said.refusal is not None:
                message["refusal"] = said.refusal
            if said.reasoning:
                message["reasoning_content"] = said.reasoning
            choice = {"index": index, "message": message, "finish_reason": finish_reason}
            if body.get("logprobs"):
                choice["logprobs"] = {"content": self._logprobs(call, text or "", said)}
            else:
                choice["logprobs"] = None
            choices.append(choice)
            written += size + hidden
            thought += hidden
            cached = said.cached_tokens
        cached = cached or int(self.cached_frac * call.prompt_tokens)
        usage = {
            "prompt_tokens": call.prompt_tokens,
            "completion_tokens": written,
            "total_tokens": call.prompt_tokens + written,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": thought},
        }
        reply = {
            "id": f"chatcmpl-{call.key[:16]}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.get("model", MODEL),
            "choices": choices,
            "usage": usage,
            "system_fingerprint": "fp_tests",
        }
        return reply, written

    def _say(self, call: Call, index: int) -> Said:
        if self.answer:
            said = self.answer(call)
            return said if isinstance(said, Said) else Said(text=said)
        text = told(call.body["messages"], index)
        shape = call.body.get("response_format") or {}
        if shape.get("type") == "json_schema":
            text = json.dumps(instance(shape["json_schema"]["schema"], text))
        elif len(text) < self.answer_chars:
            text = f"{text} " * math.ceil(self.answer_chars / (len(text) + 1))
        return Said(text=text)

    def _logprobs(self, call: Call, text: str, said: Said) -> list[dict[str, Any]]:
        lines = said.logprobs
        if lines is None:
            lines = []
            for token in pieces(text, self.counting):
                drawn = random.Random(f"{call.key} {len(lines)}").random()
                others = {f"{token}~{i}": -1.0 - drawn - i for i in range(20)}
                lines.append((token, -drawn, {token: -drawn, **others}))
        num_top = call.body.get("top_logprobs", 0)
        found = []
        for token, value, top in lines:
            first = sorted(top.items(), key=lambda pair: -pair[1])[:num_top]
            shown = [{"token": t, "logprob": v, "bytes": list(t.encode())} for t, v in first]
            line = {"token": token, "logprob": value, "bytes": list(token.encode())}
            found.append({**line, "top_logprobs": shown})
        return found

    # refusals

    def _check_key(self, headers: Mapping[str, str], *, is_azure: bool) -> None:
        if self.key is None:
            return
        if is_azure:
            if headers.get("api-key") != self.key:
                message = "Access denied due to invalid subscription key or wrong API endpoint."
                raise _Denied(401, "key", {"error": {"code": "401", "message": message}})
        elif headers.get("authorization") != f"Bearer {self.key}":
            said = headers.get("authorization", "").removeprefix("Bearer ")
            message = "You didn't provide an API key."
            if said:
                message = f"Incorrect API key provided: {said[:8]}***{said[-4:]}."
            body = _error(message, "invalid_request_error", "invalid_api_key")
            raise _Denied(401, "key", body)
        if self.is_forbidden:
            body = _error("You are not allowed to use this model", "permission_error", "forbidden")
            raise _Denied(403, "forbidden", body)

    def _read(self, raw: bytes, deployment: str | None) -> dict[str, Any]:
        """Return the body, or raise what the API says of it."""
        try:
            body = json.loads(raw)
        except ValueError:
            raise _invalid("We could not parse the JSON body of your request.") from None
        if not isinstance(body, dict):
            raise _invalid("The body must be an object.")
        if None in body.values():  # null is as good as absent
            body = {name: value for name, value in body.items() if value is not None}
        model = deployment if deployment is not None else body.get("model")
        if not isinstance(model, str):
            raise _invalid("you must provide a model parameter", param="model")
        if self.models and model not in self.models:
            if deployment is not None:
                message = "The API deployment for this resource does not exist."
                error = {"error": {"code": "DeploymentNotFound", "message": message}}
                raise _Denied(404, "model", error)
            message = f"The model `{model}` does not exist or you do not have access to it."
            error = _error(message, "invalid_request_error", "model_not_found")
            raise _Denied(404, "model", error)
        if self.is_strict and (unknown := body.keys() - PARAMETERS):
            raise _invalid(f"Unrecognized request argument supplied: {min(unknown)}")
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise _invalid("[] is too short - 'messages'", param="messages")
        for message in messages:
            if not isinstance(message, dict) or message.get("role") not in ROLES:
                raise _invalid("Invalid value for 'messages[].role'", param="messages")
            if not isinstance(message.get("content"), str):
                raise _invalid("Invalid value for 'messages[].content'", param="messages")
        if body.get("stream"):
            raise _invalid("this server does not stream", param="stream")
        for name in ("max_tokens", "max_completion_tokens"):
            if name not in body:
                continue
            if self.tokens_field not in ("", name):
                message = (
                    f"Unsupported parameter: '{name}' is not supported with this model. "
                    f"Use '{self.tokens_field}' instead."
                )
                raise _invalid(message, "unsupported_parameter", name)
            if type(body[name]) is not int or body[name] < 1:
                raise _invalid(f"Invalid value for '{name}'", param=name)
        for name, low, high in _RANGES:
            value = body.get(name, low)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise _invalid(f"Invalid type for '{name}'", "invalid_type", name)
            if not low <= value <= high:
                raise _invalid(f"Invalid value for '{name}': {value}", param=name)
        if type(body.get("seed", 0)) is not int or type(body.get("n", 1)) is not int:
            raise _invalid("Invalid type for 'seed' or 'n'", "invalid_type")
        if "top_logprobs" in body and not body.get("logprobs"):
            raise _invalid("'logprobs' must be true when 'top_logprobs' is set")
        shape = body.get("response_format")
        if shape is not None and not (isinstance(shape, dict) and _is_shape(shape)):
            raise _invalid("Invalid value for 'response_format'", param="response_format")
        return body

    def _turned_away(self, limit: str, room: float | None) -> _Response:
        message = f"Rate limit reached for {limit}"
        if room is None:
            message = f"Request too large: it alone is more than the limit of {limit}"
        error = _error(message, limit, "rate_limit_exceeded")
        headers = self._limit_headers() if self.tells_limits else ()
        if room is not None:
            headers += self._come_again(self.limits.retry_after, room)
        return _json(429, error, headers)

    def _come_again(self, form: str, seconds: float) -> tuple[tuple[str, str], ...]:
        if form == "seconds":
            return (("Retry-After", str(math.ceil(seconds))),)
        if form == "date":
            return (("Retry-After", formatdate(math.ceil(time.time() + seconds), usegmt=True)),)
        if form == "ms":
            return (("retry-after-ms", str(math.ceil(1000 * seconds))),)
        return ()

    def _limit_headers(self) -> tuple[tuple[str, str], ...]:
        found: list[tuple[str, str]] = []
        for name, (allowed, left, reset) in self.books.left().items():
            kind = name.replace("_", "-")
            found += [
                (f"x-ratelimit-limit-{kind}", str(allowed)),
                (f"x-ratelimit-remaining-{kind}", str(left)),
                (f"x-ratelimit-reset-{kind}", duration(reset)),
            ]
        return tuple(found)


_AZURE = re.compile(r"/openai/deployments/([^/]+)/chat/completions")
_RANGES = (
    ("temperature", 0, 2),
    ("top_p", 0, 1),
    ("n", 1, 128),
    ("top_logprobs", 0, 20),
)


def _is_shape(shape: Mapping[str, Any]) -> bool:
    if shape.get("type") in ("text", "json_object"):
        return True
    inner = shape.get("json_schema")
    return (
        shape.get("type") == "json_schema"
        and isinstance(inner, dict)
        and bool(re.fullmatch(r"[\w-]{1,64}", inner.get("name", "")))
        and isinstance(inner.get("schema"), dict)
    )


def _json(status: int, body: Any, headers: tuple[tuple[str, str], ...] = ()) -> _Response:
    return _Response(status, json.dumps(body).encode(), headers)


# ---------------------------------------------------------------- HTTP/1.1


class _Connection(asyncio.Protocol):
    """One client. Requests are answered in order, one at a time."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop, all_: set) -> None:
        self.service, self.loop, self.all = service, loop, all_
        self.buffer = b""
        self.is_busy = self.is_open = self.is_last = False
        self.date_s, self.date = 0, b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport, self.is_open = transport, True
        self.all.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self.all.discard(self)
        self._over()

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        if not self.is_busy:
            self._next()

    def _next(self) -> None:
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        try:
            method, target, version = first.split(" ")
            pairs = (line.split(":", 1) for line in lines)
            headers = {name.lower(): value.strip() for name, value in pairs}
            size = int(headers.get("content-length", 0))
        except ValueError:
            self._write(_json(400, _error("Bad Request", "invalid_request_error")), is_last=True)
            return
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body, rest = _unchunked(rest)
        else:
            body, rest = (rest[:size], rest[size:]) if len(rest) >= size else (None, rest)
        if body is None:
            if headers.get("expect", "").lower() == "100-continue" and not rest:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        self.buffer = rest
        kept = headers.get("connection", "" if version == "HTTP/1.1" else "close").lower()
        self.is_busy, self.is_last = True, kept == "close"
        service = self.service
        service.in_flight += 1
        if method == "POST":
            service.books.max_in_flight = max(service.books.max_in_flight, service.in_flight)
        service.handle(method, target, headers, body, self._send, self.loop.call_later)

    def _over(self) -> None:
        if self.is_busy:
            self.is_busy = False
            self.service.in_flight -= 1

    def _send(self, response: _Response) -> bool:
        """Write a response; False where no whole one reaches a client."""
        wire = response.wire
        if not self.is_open:
            return False
        if wire == "hang":
            return False
        self._over()
        if wire in {"reset", "close"}:
            self._drop(is_reset=wire == "reset")
            return False
        if wire.startswith("cut"):
            whole = self._bytes(response, is_chunked=wire == "cut-chunked")
            self.transport.write(whole[: -max(1, len(response.body) // 2)])
            drop = partial(self._drop, is_reset=wire == "cut-reset")
            self.loop.call_later(0.01, drop)  # after the bytes have left
            return False
        self._write(response, is_last=self.is_last or wire == "last")
        if self.is_open and self.buffer and not self.is_last:
            self._next()
        return True

    def _write(self, response: _Response, *, is_last: bool) -> None:
        is_chunked = response.wire in {"chunked", "drip"}
        raw = self._bytes(response, is_chunked=is_chunked, is_last=is_last)
        if response.wire == "drip":
            self._drip(raw)
            return
        self.transport.write(raw)
        if is_last:
            self.transport.close()

    def _drip(self, raw: bytes) -> None:
        if self.is_open:
            self.transport.write(raw[:64])
            if raw[64:]:
                self.loop.call_later(0.0005, self._drip, raw[64:])

    def _bytes(
        self, response: _Response, *, is_chunked: bool = False, is_last: bool = False
    ) -> bytes:
        now = int(time.time())
        if now != self.date_s:
            self.date_s, self.date = now, formatdate(now, usegmt=True).encode()
        body = response.body
        size = b"Content-Length: %d" % len(body)
        if is_chunked:
            size = b"Transfer-Encoding: chunked"
            parts = [body[place : place + 100] for place in range(0, len(body), 100)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
            body += b"0\r\n\r\n"
        more = b""
        if response.headers:
            more = "".join(f"{name}: {value}\r\n" for name, value in response.headers).encode()
        if b"Content-Type" not in more:
            more += b"Content-Type: application/json\r\n"
        if is_last:
            more += b"Connection: close\r\n"
        first = _FIRST.get(response.status) or b"HTTP/1.1 %d Error\r\n" % response.status
        return b"%sDate: %s\r\nServer: tests\r\n%s%s\r\n\r\n%s" % (
            first, self.date, more, size, body,
        )  # fmt: skip

    def _drop(self, *, is_reset: bool = True) -> None:
        if not self.is_open:
            return
        if is_reset:
            given = self.transport.get_extra_info("socket")
            given.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


_FIRST = {code.value: b"HTTP/1.1 %d %s\r\n" % (code, code.phrase.encode()) for code in HTTPStatus}


def _unchunked(raw: bytes) -> tuple[bytes | None, bytes]:
    body, rest = b"", raw
    while True:
        line, found, after = rest.partition(b"\r\n")
        if not found:
            return None, raw
        size = int(line.partition(b";")[0], 16)
        if len(after) < size + 2:
            return None, raw
        body, rest = body + after[:size], after[size + 2 :]
        if size == 0:
            return body, rest


# ---------------------------------------------------------------- in a thread, in a process


class Server:
    """The server in a thread of this process; options are the fields of `Service`."""

    def __init__(self, *, port: int = 0, **options: Any) -> None:
        self.service = Service(**options)
        self.port = port
        self.key = self.service.key
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """What an OpenAI client calls the base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def azure_url(self) -> str:
        """What an Azure client calls the endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, on the same port as before if it was stopped."""
        assert self._thread is None
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the server did not start")

    def stop(self) -> None:
        """Refuse connections, drop those there are; the books stay."""
        if self._thread:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._thread = None

    def entries(self) -> list[Entry]:
        """The log, in order of arrival."""
        return self._ask(lambda: self.service.books.entries())

    def billed(self) -> dict[str, int]:
        """How often each distinct body was computed and billed."""
        return self._ask(
            lambda: {key.hex(): count for key, count in self.service.books.billed.items()}
        )

    def violations(self, *, rejected: bool = True) -> list[Violation]:
        """Windows that held more than a declared limit; see `_Books.violations`."""
        return self._ask(lambda: self.service.books.violations(rejected=rejected))

    def stats(self) -> dict[str, Any]:
        """Everything in a few numbers."""
        return self._ask(lambda: self.service.books.stats())

    def _ask(self, question: Callable[[], Any]) -> Any:
        if self._thread is None:
            return question()
        found: list[Any] = []
        done = threading.Event()

        def ask() -> None:
            try:
                found.append(question())
            finally:
                done.set()

        self._loop.call_soon_threadsafe(ask)
        done.wait()
        return found[0]

    def _run(self, ready: threading.Event) -> None:
        self._loop = uvloop.new_event_loop() if uvloop else asyncio.new_event_loop()
        connections: set[_Connection] = set()
        made = lambda: _Connection(self.service, self._loop, connections)  # noqa: E731
        listening = self._loop.run_until_complete(
            self._loop.create_server(made, "127.0.0.1", self.port, backlog=4096)
        )
        self.port = listening.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        listening.close()
        for connection in list(connections):
            connection._drop()
        self._loop.run_until_complete(asyncio.sleep(0.001))
        self._loop.run_until_complete(listening.wait_closed())
        self._loop.close()


class ServerProcess:
    """The server in a process of its own; ends with this one at the latest."""

    def __init__(self, *options: str) -> None:
        self.options = options
        self.key = KEY

    def __enter__(self) -> "ServerProcess":
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--until-eof", *self.options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self.process.stdout.readline())
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    @property
    def url(self) -> str:
        """What an OpenAI client calls the base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> dict[str, Any]:
        """Everything in a few numbers."""
        return self._get("/stats")

    def billed(self) -> dict[str, int]:
        """How often each distinct body was computed and billed."""
        return self._get("/stats?bodies=1")["bodies"]

    def entries(self) -> list[Entry]:
        """The log, in order of arrival."""
        return [Entry(*values) for values in self._get("/log")]

    def num_requests(self) -> int:
        """How many came so far; cheap."""
        return self._get("/count")["requests"]

    def clear(self) -> None:
        """Forget everything so far."""
        self._get("/clear", data=b"")

    def _get(self, path: str, data: bytes | None = None) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data) as response:
            return json.load(response)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default=KEY, help="empty: none is asked for")
    parser.add_argument("--models", nargs="*", default=[MODEL], help="none: any")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--latency-sigma", type=float, default=0.0)
    parser.add_argument("--slots", type=int, default=0)
    parser.add_argument("--answer-chars", type=int, default=0)
    parser.add_argument("--words", action="store_true", help="a token is a word, not four bytes")
    parser.add_argument("--requests", type=int)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--input-tokens", type=int)
    parser.add_argument("--output-tokens", type=int)
    parser.add_argument("--concurrency", type=int)
    parser.add_argument("--counts", choices=["reserved", "used"], default="reserved")
    parser.add_argument("--window-s", type=float, default=60.0)
    parser.add_argument("--lax", action="store_true", help="count limits without enforcing them")
    parser.add_argument("--retry-after", choices=["seconds", "date", "ms", ""], default="seconds")
    parser.add_argument("--tell-limits", action="store_true")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=CHANCE")
    parser.add_argument("--attempts", type=int, help="faults in the first K of each body only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slow-s", type=float, default=1.0)
    parser.add_argument("--retry-after-s", type=float, default=1.0)
    parser.add_argument("--lenient", action="store_true", help="take unknown parameters")
    parser.add_argument("--until-eof", action="store_true", help="end when the input ends")
    args = parser.parse_args()
    parts = {name: float(chance) for name, chance in (f.split("=") for f in args.fault)}
    if unknown := parts.keys() - FAULTS.keys():
        parser.error(f"{sorted(unknown)} are no faults; known: {', '.join(FAULTS)}")
    limits = Limits(
        requests=args.requests,
        tokens=args.tokens,
        input_tokens=args.input_tokens,
        output_tokens=args.output_tokens,
        concurrency=args.concurrency,
        counts=args.counts,
        window_s=args.window_s,
        is_enforced=not args.lax,
        retry_after=args.retry_after,
    )
    server = Server(
        port=args.port,
        key=args.key or None,
        models=tuple(args.models),
        answer_chars=args.answer_chars,
        counting="words" if args.words else "bytes",
        latency_s=args.latency_ms / 1000,
        latency_sigma=args.latency_sigma,
        slots=args.slots,
        limits=limits,
        plan=chances(parts, seed=args.seed, attempts=args.attempts) if parts else None,
        tells_limits=args.tell_limits,
        slow_s=args.slow_s,
        retry_after_s=args.retry_after_s,
        is_strict=not args.lenient,
    )
    server.start()
    print(server.port, flush=True)  # noqa: T201
    if args.until_eof:
        sys.stdin.read()
    else:
        threading.Event().wait()


if __name__ == "__main__":
    main()
