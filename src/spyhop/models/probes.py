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


class Refused(Exception):
    """A probe without a reply."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"refused ({failure.message or failure.kind:.120})")
        self.has = False if failure.kind == "rejected" else None


def request(text: str, **more: object) -> Request:
    """Return a prompt of one turn."""
    return Request(id="doctor", messages=[Message(role="user", content=text)], **more)


@dataclass(slots=True)
class Prober:
    """Sends single requests to one endpoint, outside of any run, and sums up what they cost."""

    config: Remote
    state: EndpointState
    tokens_field: str
    omit: tuple[str, ...] = ()
    """Fields that were refused."""
    num_sent: int = 0
    used: list[Usage] = field(default_factory=list)

    def post(
        self, asked: Request, sampling: Sampling, num: int = 1, shared: SharedPart = NOTHING_SHARED
    ) -> HttpReply | Failure:
        """Send one request for `num` samples."""
        dialect = self.state.dialect
        kind: Kind = "classify" if dialect.takes == "texts to label" else "generate"
        call = ApiCall(kind, asked, sampling, self.state.model, num, self.tokens_field, shared)
        body = dialect.body(call, self.config.extra, (*self.config.omit, *self.omit))
        self.num_sent += 1
        return asyncio.run(_send(self.state, body))

    def ask(
        self, text: str, num: int = 1, begun: str = "", shared: SharedPart = NOTHING_SHARED,
        **sampling: object,
    ) -> list[Reply]:  # fmt: skip
        """Return the replies to one prompt.

        Raises:
            Refused: If there are none.
        """
        asked = request(text, continuation=begun)
        got = self.post(asked, PLAIN.model_copy(update=sampling), num, shared)
        found = got if isinstance(got, Failure) else self.read(asked, got.raw, num)
        if isinstance(found, Failure):
            raise Refused(found)
        return found

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
    def cost(self) -> str:
        """What was sent so far, and its price."""
        prompt, cached, response, _, _, written = map(sum, zip(*self.used, strict=True))
        usd = self.state.config.usd(prompt, cached, response, written)
        tokens = f"{prompt:,} prompt and {response:,} response tokens"
        return f"{self.num_sent} requests, {tokens}, ${usd:.4f}"


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
    lacks = prober.state.dialect.lacks
    for name, capability in FIELDS.items():
        if name in prober.config.omit:
            yield capability, Finding(None, "not sent (omit)")
        elif name in refused:
            yield capability, Finding(False, f"refused ({refused[name]:.120})")
        elif capability == LOG_PROBABILITIES and capability not in lacks:
            is_given = answer.log_probability is not None
            yield capability, Finding(is_given, "given" if is_given else "not given")
        elif capability not in lacks and (capability not in PROBES or is_quick):
            yield capability, Finding(True, "accepted")
    for name, probe in PROBES.items():
        if name not in lacks and name not in refused and name not in prober.config.omit:
            if is_quick:
                continue
            try:
                yield name, probe(prober)
            except Refused as error:
                yield name, Finding(error.has, str(error))
    yield from ((name, Finding(False, reason)) for name, reason in lacks.items())


def _seed(prober: Prober) -> Finding:
    """Whether equal seeds give equal replies, and others do not."""
    first, second, other = (
        prober.ask(
            "Write three random words.", temperature=1.0, seed=seed, max_new_tokens=SHORT_TOKENS
        )[0].text
        for seed in (SEED, SEED, SEED + 1)
    )
    if first != second:
        return Finding(True, "accepted, but equal seeds gave different replies")
    if second == other:
        return Finding(True, "accepted; not proved: other seeds gave the same reply")
    return Finding(True, "equal seeds gave equal replies")


def _samples(prober: Prober) -> Finding:
    num = len(prober.ask("Say yes.", 2))
    return Finding(num == 2, f"{num} replies to a request for 2")


def _schema(prober: Prober) -> Finding:
    text = prober.ask("Say yes.", json_schema=SHAPE)[0].text
    try:
        value = json.loads(text)
        is_shaped = isinstance(value["word"], str) and isinstance(value["letters"], int)
    except (ValueError, KeyError, TypeError):
        is_shaped = False
    return Finding(is_shaped, "the reply follows it" if is_shaped else f"ignored: {text:.60}")


def _thinking(prober: Prober) -> Finding:
    (reply,) = prober.ask("What is 17 * 23 - 19? Think first.")
    if reply.reasoning:
        return Finding(True, f"returned ({len(reply.reasoning)} characters)")
    num = reply.reasoning_tokens
    return Finding(False, f"{num} tokens counted, text not returned" if num else "no thoughts")


def _prefill(prober: Prober) -> Finding:
    text = prober.ask("Count from 1 to 9, with commas.", begun="1, 2, 3,")[0].text
    is_continued = text.lstrip(" ,").startswith("4")
    return Finding(is_continued, "continued" if is_continued else f"ignored: {text:.60}")


def _cache(prober: Prober) -> Finding:
    for _ in range(2):
        (reply,) = prober.ask(
            f"{LONG_PART}Say yes.",
            shared=SharedPart(0, len(LONG_PART)),
            max_new_tokens=SHORT_TOKENS,
        )
    text = f"{reply.cached_tokens} of {reply.prompt_tokens} prompt tokens of a repeated prompt"
    return Finding(reply.cached_tokens > 0, text)


PROBES: dict[str, Callable[[Prober], Finding]] = {
    "seed": _seed,
    "n": _samples,
    "schema": _schema,
    "thinking": _thinking,
    "prefill": _prefill,
    "cache": _cache,
}
