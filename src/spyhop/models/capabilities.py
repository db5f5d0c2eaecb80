"""What an endpoint can do, as small real calls of `spyhop doctor` prove it.

Proofs are kept in the store, one file per endpoint, by API, address and model; a stage that needs
more is refused.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter, ValidationError

from spyhop.models.calls import Kind, Reply, Request, Sampling
from spyhop.models.dialect import DIALECTS, NOTHING_SHARED, ApiCall, SharedPart
from spyhop.models.endpoint_state import EndpointState
from spyhop.models.failures import Failure
from spyhop.models.replies import Unreadable, Usage, parse, read_reply, share
from spyhop.models.service import Endpoint, Service
from spyhop.models.transport import HttpReply, Transport
from spyhop.schema import prompt_turns
from spyhop.store import key_of
from spyhop.store.atomic import atomic_write

FOLDER = ".seen"
LOG_PROBABILITIES = "log-probabilities"
REMEDIES = {
    "temperature": ("sampling.temperature", 'set it to "unset", or list temperature in omit'),
    "top_p": ("sampling.top_p", "set it to 1, or list top_p in omit"),
    "seed": ("sampling.seed", "list seed in omit"),
    LOG_PROBABILITIES: ("sampling.log_probability", "switch it off"),
    "schema": ("sampling.json_schema", "remove it, or use a model that follows schemas"),
    "n": ("max_n", "set max_n = 1"),
    "prefill": ("a response that is begun", "use a model that continues one"),
}
"""By capability: the setting that needs it, and the remedy where it is missing."""
ANSWER_S = 120.0
"""Longest wait for a reply, even if `timeout_s` is larger."""
SHORT, LONG = 16, 1024
"""Most tokens of a reply; the longer ones leave room for thoughts."""
SEED = 7
FIRST = Sampling(max_new_tokens=SHORT, temperature=0.7, top_p=0.9, seed=SEED, log_probability=True)
PLAIN = Sampling(max_new_tokens=LONG, temperature="unset")
SHAPE = {
    "type": "object",
    "properties": {"word": {"type": "string"}, "letters": {"type": "integer"}},
    "required": ["word", "letters"],
    "additionalProperties": False,
}
LONG_PART = "".join(f"Line {n}: the whale lifts its head and looks around.\n" for n in range(360))
"""About 5,000 tokens: more than any provider's least cached part."""
FIELDS = {
    "top_p": "top_p",
    "seed": "seed",
    "logprobs": LOG_PROBABILITIES,
    "temperature": "temperature",
}
"""Capabilities by the fields that a model may refuse; if an error names several, the first one is
left out."""
NUM_REQUESTS, MOST_TOKENS = 9, (12_000, 9 * LONG)
"""Of all probes of a chat endpoint: requests, and their prompt and response tokens at most."""


class Proof(BaseModel):
    """What doctor found about one capability of an endpoint."""

    has: bool
    text: str
    date: str


Proofs = TypeAdapter(dict[str, Proof])


def save(
    root: Path, model: str, endpoint: Endpoint, found: Mapping[str, tuple[bool | None, str]]
) -> None:
    """Keep what doctor found at an endpoint, beside what it found before; None is no finding."""
    path, date = _path(root, model, endpoint), f"{datetime.now(UTC):%Y-%m-%d}"
    new = {
        name: Proof(has=has, text=text, date=date)
        for name, (has, text) in found.items()
        if has is not None and name not in DIALECTS[endpoint.api].lacks
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(Proofs.dump_json(_read(path) | new, indent=1))


def lacks(root: Path, model: str, endpoint: Endpoint) -> dict[str, str]:
    """Return what an endpoint does not have, and why: by its API, or as doctor proved."""
    proofs = _read(_path(root, model, endpoint)).items()
    missing = {n: f"doctor, {each.date}: {each.text}" for n, each in proofs if not each.has}
    return {**DIALECTS[endpoint.api].lacks, **missing}


def has_all(root: Path, model: str, service: Service, names: Iterable[str]) -> bool:
    """Return whether no endpoint of a model is known to lack one of these capabilities."""
    return not any(lacks(root, model, each).keys() & set(names) for each in service.endpoints)


def refusal(
    root: Path,
    model: str,
    service: Service,
    sampling: Sampling,
    omit: Sequence[str],
    *,
    kind: Kind = "generate",
    is_begun: bool = False,
) -> str:
    """Return why calls would fail at an endpoint, and the remedy; empty if they would not."""
    is_set = sampling.temperature != "unset"
    for endpoint in service.endpoints:
        missing, never = lacks(root, model, endpoint), DIALECTS[endpoint.api].lacks
        needed = {
            "prefill": is_begun,
            "n": endpoint.max_n > 1,
            "temperature": sampling.temperature not in ("unset", 1.0) and "temperature" not in omit,
            "top_p": is_set and sampling.top_p != 1.0 and "top_p" not in omit,
            "seed": is_set and "seed" not in (*omit, *never),  # else it is not sent
            LOG_PROBABILITIES: sampling.log_probability and "logprobs" not in omit,
            "schema": sampling.json_schema is not None and "response_format" not in omit,
        }
        for name, is_needed in needed.items():
            if is_needed and name in missing and (kind == "generate" or name == "prefill"):
                setting, remedy = REMEDIES[name]
                lack = f"{name}, which {endpoint.address} does not have ({missing[name]})"
                return f"{setting} needs {lack}; {remedy}"
    return ""


def _read(path: Path) -> dict[str, Proof]:
    try:
        return Proofs.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return {}


def _path(root: Path, model: str, endpoint: Endpoint) -> Path:
    where = [endpoint.api, endpoint.address, endpoint.model or model]
    return root / FOLDER / f"{key_of(where)}.json"


class Finding(NamedTuple):
    """Whether a capability is there (None: not tried), and what was seen."""

    has: bool | None
    text: str


@dataclass(slots=True)
class Prober:
    """Sends single requests to one endpoint, outside of any run, and sums up what they cost."""

    state: EndpointState
    extra: Mapping[str, Any]
    omit: Sequence[str]
    tokens_field: str
    refused: dict[str, str] = field(default_factory=dict)
    """By field: the message that refused it; it is not sent again."""
    used: list[Usage] = field(default_factory=list)
    num_sent: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the last reply."""

    def ask(
        self, asked: Request, sampling: Sampling, num: int = 1, shared: SharedPart = NOTHING_SHARED
    ) -> list[Reply]:
        """Return the replies to a request for `num` samples.

        Raises:
            Unreadable: If there are none.
        """
        dialect = self.state.dialect
        kind: Kind = "classify" if dialect.takes == "texts to label" else "generate"
        call = ApiCall(kind, asked, sampling, self.state.model, num, self.tokens_field, shared)
        body = dialect.body(call, self.extra, (*self.omit, *self.refused))
        self.num_sent += 1
        patience_s = min(ANSWER_S, self.state.config.timeout_s)

        async def send() -> HttpReply | Failure:
            async with Transport([self.state]) as transport:
                return await asyncio.wait_for(transport.post(self.state, body), patience_s)

        try:
            got = asyncio.run(send())
        except TimeoutError:
            got = Failure("lost", f"no reply within {patience_s:g} s")
        if isinstance(got, Failure):
            raise Unreadable(got)
        choices, usage = parse(got.raw, num, 0, dialect.read)
        self.headers = got.headers
        self.used.append(usage)
        parts = share(usage, len(choices))
        return [read_reply(asked, *each, 0.0) for each in zip(choices, parts, strict=True)]

    def first(self, asked: Request) -> Reply:
        """Send a request with all sampling fields, leaving out, one by one, those refused."""
        while True:
            try:
                return self.ask(asked, FIRST)[0]
            except Unreadable as error:
                name = self._named(error.failure)
                if name is None:
                    raise
                self.refused[name] = error.failure.message

    def _named(self, failure: Failure) -> str | None:
        """Return the field that a failure names, if it is sent."""
        message, spelled = failure.message.lower(), self.state.dialect.spelling
        if failure.kind != "rejected":
            return None
        if "max_completion_tokens" in message and self.tokens_field == "max_tokens":
            self.tokens_field = "max_completion_tokens"
            return "max_tokens"
        named = (n for n in FIELDS if n in message or spelled.get(n, n).lower() in message)
        return next((name for name in named if name not in self.refused), None)

    @property
    def most(self) -> str:
        """Requests of all probes, and their highest price."""
        return f"{NUM_REQUESTS} requests, at most ${self.state.config.most_usd(*MOST_TOKENS):.4f}"

    @property
    def cost(self) -> str:
        """What was sent so far, and its price."""
        prompt, cached, response, _, _, written = map(sum, zip(*self.used, strict=True))
        usd = self.state.config.usd(prompt, cached, response, written)
        tokens = f"{prompt:,} prompt and {response:,} response tokens"
        return f"{self.num_sent} requests, {tokens}, ${usd:.4f}"


def prove(prober: Prober, answer: Reply, *, is_quick: bool) -> Iterator[tuple[str, Finding]]:
    """Yield every capability of a chat endpoint, or those that the first answer shows."""
    lacks, omit = prober.state.dialect.lacks, prober.omit
    shown = {name: Finding(True, "accepted") for name in FIELDS.values()}
    given = answer.log_probability is not None
    shown[LOG_PROBABILITIES] = Finding(given, "given" if given else "not given")
    for name, capability in FIELDS.items():
        if name in omit:
            shown[capability] = Finding(None, "not sent (omit)")
        elif name in prober.refused:
            shown[capability] = Finding(False, f"refused ({prober.refused[name]:.120})")
    for name, probe in {**dict.fromkeys(shown), **PROBES}.items():
        if name in lacks:
            yield name, Finding(False, lacks[name])
        elif name in shown and not (shown[name].has and probe and not is_quick):
            yield name, shown[name]
        elif probe and not is_quick:
            try:
                yield name, probe(prober)
            except Unreadable as error:
                text = f"refused ({error.failure.message or error.failure.kind:.120})"
                yield name, Finding(False if error.failure.kind == "rejected" else None, text)


def _ask(
    prober: Prober, text: str, num: int = 1, begun: str = "", shared: int = 0, **changes: object
) -> list[Reply]:
    asked = Request(id="doctor", messages=prompt_turns(text), continuation=begun)
    return prober.ask(asked, PLAIN.model_copy(update=changes), num, SharedPart(0, shared))


def _seed(prober: Prober) -> Finding:
    """Whether equal seeds give equal replies, and others do not."""
    text = "Write three random words."
    first, second, other = (
        _ask(prober, text, seed=seed, temperature=1.0, max_new_tokens=SHORT)[0].text
        for seed in (SEED, SEED, SEED + 1)
    )
    if first != second:
        return Finding(True, "accepted, but equal seeds gave different replies")
    if second == other:
        return Finding(True, "accepted; not proved: other seeds gave the same reply")
    return Finding(True, "equal seeds gave equal replies")


def _samples(prober: Prober) -> Finding:
    num = len(_ask(prober, "Say yes.", 2))
    return Finding(num == 2, f"{num} replies to a request for 2")


def _schema(prober: Prober) -> Finding:
    text = _ask(prober, "Say yes.", json_schema=SHAPE)[0].text
    try:
        value = json.loads(text)
        is_shaped = isinstance(value["word"], str) and isinstance(value["letters"], int)
    except (ValueError, KeyError, TypeError):
        is_shaped = False
    return Finding(is_shaped, "the reply follows it" if is_shaped else f"ignored: {text:.60}")


def _thinking(prober: Prober) -> Finding:
    (reply,) = _ask(prober, "What is 17 * 23 - 19? Think first.")
    if reply.reasoning:
        return Finding(True, f"returned ({len(reply.reasoning)} characters)")
    num = reply.reasoning_tokens
    return Finding(False, f"{num} tokens counted, text not returned" if num else "no thoughts")


def _prefill(prober: Prober) -> Finding:
    text = _ask(prober, "Count from 1 to 9, with commas.", begun="1, 2, 3,")[0].text
    is_continued = text.lstrip(" ,").startswith("4")
    return Finding(is_continued, "continued" if is_continued else f"ignored: {text:.60}")


def _cache(prober: Prober) -> Finding:
    for _ in range(2):
        (reply,) = _ask(prober, f"{LONG_PART}Say yes.", shared=len(LONG_PART), max_new_tokens=SHORT)
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
