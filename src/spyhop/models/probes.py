"""Small real calls that prove what an endpoint can do."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from spyhop.models.calls import Kind, Reply, Request, Sampling
from spyhop.models.capabilities import LOG_PROBABILITIES
from spyhop.models.endpoint import Remote
from spyhop.models.endpoint_state import EndpointState
from spyhop.models.failures import Failure
from spyhop.models.replies import Unreadable, Usage, parse, read_reply, share
from spyhop.models.transport import HttpReply, Transport
from spyhop.models.wire import NOTHING_SHARED, ApiCall, SharedPart
from spyhop.schema import Message

ANSWER_S = 120.0
"""Longest wait for a reply, even if `timeout_s` is larger."""
SHORT_TOKENS, LONG_TOKENS = 16, 1024
"""Most tokens of a reply; the longer ones leave room for thoughts."""
SEED = 7
FIRST = Sampling(
    max_new_tokens=SHORT_TOKENS, temperature=0.7, top_p=0.9, seed=SEED, log_probability=True
)
PLAIN = Sampling(max_new_tokens=LONG_TOKENS, temperature="unset")
SHAPE = {
    "type": "object",
    "properties": {"word": {"type": "string"}, "letters": {"type": "integer"}},
    "required": ["word", "letters"],
    "additionalProperties": False,
}
LONG_PART = "".join(f"Line {n}: the whale lifts its head and looks around.\n" for n in range(360))
"""About 5,000 tokens: more than any provider's least cached part."""
FIELDS = {"top_p": "top_p", "seed": "seed", "logprobs": LOG_PROBABILITIES,
          "temperature": "temperature"}  # fmt: skip
"""Fields that a model may refuse, and their capabilities, in the order in which they are left out
where an error names several."""
NUM_REQUESTS, MOST_TOKENS = 9, (12_000, 9 * LONG_TOKENS)
"""Of all probes of a chat endpoint: requests, and their prompt and response tokens at most."""


class Finding(NamedTuple):
    """Whether a capability is there (None: not tried), and what was seen."""

    has: bool | None
    text: str


def request(text: str, **more: object) -> Request:
    """Return a prompt of one turn."""
    return Request(id="doctor", messages=[Message(role="user", content=text)], **more)


@dataclass(slots=True)
class Prober:
    """Sends single requests to one endpoint, outside of any run, and sums up what they cost."""

    config: Remote
    state: EndpointState
    omit: tuple[str, ...] = ()
    """Fields that were refused."""
    tokens_field: str = "max_tokens"
    num_sent: int = 0
    used: list[Usage] = field(default_factory=list)

    def post(
        self,
        asked: Request,
        sampling: Sampling,
        num_samples: int = 1,
        shared: SharedPart = NOTHING_SHARED,
    ) -> HttpReply | Failure:
        """Send one request."""
        kind: Kind = "classify" if self.state.dialect.takes == "texts to label" else "generate"
        call = ApiCall(
            kind, asked, sampling, self.state.model, num_samples, self.tokens_field, shared
        )
        omit = (*self.config.omit, *self.omit)
        self.num_sent += 1
        return asyncio.run(
            _send(self.state, self.state.dialect.body(call, self.config.extra, omit))
        )

    def ask(
        self,
        asked: Request,
        sampling: Sampling = PLAIN,
        num_samples: int = 1,
        shared: SharedPart = NOTHING_SHARED,
    ) -> list[Reply] | Failure:
        """Return the replies to one request."""
        got = self.post(asked, sampling, num_samples, shared)
        return got if isinstance(got, Failure) else self.read(asked, got.raw, num_samples)

    def read(self, asked: Request, raw: bytes, num_samples: int = 1) -> list[Reply] | Failure:
        """Return the replies in a body."""
        try:
            choices, usage = parse(raw, num_samples, 0, self.state.dialect.read)
        except Unreadable as error:
            return error.failure
        self.used.append(usage)
        parts = share(usage, len(choices))
        return [
            read_reply(asked, choice, part, 0.0)
            for choice, part in zip(choices, parts, strict=True)
        ]

    @property
    def usd(self) -> float:
        """Dollars of all replies."""
        price = self.state.config.usd
        return sum(
            price(u.prompt_tokens, u.cached_tokens, u.response_tokens, u.cache_write_tokens)
            for u in self.used
        )


async def _send(state: EndpointState, data: bytes) -> HttpReply | Failure:
    patience_s = min(ANSWER_S, state.config.timeout_s)
    try:
        async with Transport([state]) as transport:
            return await asyncio.wait_for(transport.post(state, data), patience_s)
    except TimeoutError:
        return Failure("lost", f"no reply within {patience_s:g} s")


def first_reply(prober: Prober, asked: Request) -> tuple[HttpReply | Failure, dict[str, str]]:
    """Send a request with all sampling fields; leave out, one by one, those that are refused.

    Returns the reply, and the message that refused each field.
    """
    refused: dict[str, str] = {}
    got = prober.post(asked, FIRST)
    while isinstance(got, Failure) and got.kind == "rejected":
        message = got.message.lower()
        spelled = prober.state.dialect.spelling
        named = (n for n in FIELDS if n in message or spelled.get(n, n).lower() in message)
        name = next((n for n in named if n not in refused), None)
        if "max_completion_tokens" in message and prober.tokens_field == "max_tokens":
            prober.tokens_field = name = "max_completion_tokens"
        elif name is None:
            break
        else:
            prober.omit += (name,)
        refused[name] = got.message
        got = prober.post(asked, FIRST)
    return got, refused


def prove(
    prober: Prober, refused: Mapping[str, str], answer: Reply, *, is_quick: bool
) -> Iterator[tuple[str, Finding]]:
    """Yield every capability of a chat endpoint, or those that `answer` shows.

    `answer` replied to a request with all sampling fields but the refused ones.
    """
    given = "given" if answer.log_probability is not None else "not given"
    first = {name: Finding(True, "accepted") for name in ("temperature", "top_p", "seed")}
    first[LOG_PROBABILITIES] = Finding(given == "given", given)
    lacks = prober.state.dialect.lacks
    for name, capability in FIELDS.items():
        if name in prober.config.omit:
            first[capability] = Finding(None, "not sent (omit)")
        elif name in refused:
            first[capability] = Finding(False, f"refused ({refused[name]:.120})")
    if first["seed"].has and "seed" not in lacks and not is_quick:
        first["seed"] = _seed(prober)
    yield from ((name, each) for name, each in first.items() if name not in lacks)
    for name, probe in PROBES.items():
        if name not in lacks and not is_quick:
            yield name, probe(prober)
    yield from ((name, Finding(False, reason)) for name, reason in lacks.items())


def _said(got: list[Reply] | Failure) -> str:
    """Return why a probe has no reply; empty if it has one."""
    return f"refused ({got.message or got.kind:.120})" if isinstance(got, Failure) else ""


def _seed(prober: Prober) -> Finding:
    """Whether equal seeds give equal replies, and others do not."""
    texts = []
    for seed in (SEED, SEED, SEED + 1):
        sampling = Sampling(max_new_tokens=SHORT_TOKENS, temperature=1.0, seed=seed)
        got = prober.ask(request("Write three random words."), sampling)
        if isinstance(got, Failure):
            return Finding(got.kind != "rejected" or None, _said(got))
        texts.append(got[0].text)
    if texts[0] != texts[1]:
        return Finding(True, "accepted, but equal seeds gave different replies")
    if texts[1] == texts[2]:
        return Finding(True, "accepted; not proved: other seeds gave the same reply")
    return Finding(True, "equal seeds gave equal replies")


def _samples(prober: Prober) -> Finding:
    got = prober.ask(request("Say yes."), PLAIN, 2)
    if isinstance(got, Failure):
        return Finding(False, _said(got))
    return Finding(len(got) == 2, f"{len(got)} replies to a request for 2")


def _schema(prober: Prober) -> Finding:
    got = prober.ask(request("Say yes."), PLAIN.model_copy(update={"json_schema": SHAPE}))
    if isinstance(got, Failure):
        return Finding(False, _said(got))
    try:
        value = json.loads(got[0].text)
        is_shaped = isinstance(value["word"], str) and isinstance(value["letters"], int)
    except (ValueError, KeyError, TypeError):
        is_shaped = False
    text = "the reply follows the schema" if is_shaped else f"ignored: {got[0].text:.60}"
    return Finding(is_shaped, text)


def _thinking(prober: Prober) -> Finding:
    got = prober.ask(request("What is 17 * 23 - 19? Think first."))
    if isinstance(got, Failure):
        return Finding(False, _said(got))
    if got[0].reasoning:
        return Finding(True, f"returned ({len(got[0].reasoning)} characters)")
    num = got[0].reasoning_tokens
    return Finding(False, f"{num} tokens counted, text not returned" if num else "no thoughts")


def _prefill(prober: Prober) -> Finding:
    got = prober.ask(request("Count from 1 to 9, with commas.", continuation="1, 2, 3,"))
    if isinstance(got, Failure):
        return Finding(False, _said(got))
    is_continued = got[0].text.lstrip(" ,").startswith("4")
    return Finding(is_continued, "continued" if is_continued else f"ignored: {got[0].text:.60}")


def _cache(prober: Prober) -> Finding:
    asked, shared = request(f"{LONG_PART}Say yes."), SharedPart(0, len(LONG_PART))
    sampling = PLAIN.model_copy(update={"max_new_tokens": SHORT_TOKENS})
    for _ in range(2):
        got = prober.ask(asked, sampling, 1, shared)
        if isinstance(got, Failure):
            return Finding(False, _said(got))
    usage = prober.used[-1]
    text = f"{usage.cached_tokens} of {usage.prompt_tokens} prompt tokens of a repeated prompt"
    return Finding(usage.cached_tokens > 0, text)


PROBES: dict[str, Callable[[Prober], Finding]] = {
    "n": _samples,
    "schema": _schema,
    "thinking": _thinking,
    "prefill": _prefill,
    "cache": _cache,
}
