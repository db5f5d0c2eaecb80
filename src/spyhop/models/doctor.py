"""Health checks for a teacher, with one small request per endpoint."""

import asyncio
import os
import platform
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic
from typing import cast
from urllib.parse import urlsplit

import aiohttp

from spyhop import __version__
from spyhop.models.calls import Reply, Request, Sampling
from spyhop.models.endpoint import Remote
from spyhop.models.endpoint_state import EndpointState
from spyhop.models.failures import Failure, read_failure, remaining
from spyhop.models.folder import load_tokenizer, read_config
from spyhop.models.local import Local, pick_dtype, saved_format
from spyhop.models.replies import Usage, parse, read_reply
from spyhop.models.service import Endpoint, Service
from spyhop.models.teacher import Teacher
from spyhop.models.wire import ApiCall
from spyhop.render import FORMATS, TemplateFormat
from spyhop.schema import Message, ModelError
from spyhop.settings import mask_secret

CONNECT_S = 10.0
LOG_PROBABILITIES = "log-probabilities"
ANSWER_S = 120.0
"""Longest wait for a reply, even if `timeout_s` is larger."""
LEAST_FREE_BYTES = 1 << 30
WEIGHTS = ("*.safetensors", "*.bin", "*.pt")
ASKED = Request(id="doctor", messages=[Message(role="user", content="Say yes.")])


@dataclass(frozen=True, slots=True)
class CapabilityCheck:
    """A check and its result."""

    name: str
    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class _Got:
    """An HTTP reply."""

    status: int
    headers: Mapping[str, str]
    raw: bytes
    seconds: float


def doctor(teacher: Teacher, root: Path) -> Iterator[CapabilityCheck]:
    """Yield checks, each as soon as it is done. Keys are never shown.

    A served model costs one request of one token per endpoint, sent as a run would send it (two
    requests if log-probabilities are refused). Nothing is written. The request is not counted by
    the rate limiter, so a run at the same time may be throttled for a moment.
    """
    yield _versions("aiohttp" if teacher.service else "transformers", "pyarrow")
    yield _disk(root)
    if teacher.service is not None and isinstance(teacher.config, Remote):
        for endpoint in teacher.service.endpoints:
            yield from _endpoint(
                teacher.config, endpoint, is_capped=bool(teacher.service.budget_usd)
            )
    elif teacher.folder is not None and isinstance(teacher.config, Local):
        yield from _folder(teacher.folder / teacher.config.subfolder, teacher.config)


def reachable(config: Remote, service: Service) -> Iterator[CapabilityCheck]:
    """Yield the checks of key and connection of every endpoint; nothing is sent."""
    for endpoint in service.endpoints:
        state = EndpointState(endpoint, config.model)
        yield _key(state)
        yield _connection(state)


def _versions(*packages: str) -> CapabilityCheck:
    found = [f"spyhop {__version__}", f"python {platform.python_version()}"]
    missing = []
    for name in packages:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(f"{name} is not installed")
    return CapabilityCheck("versions", not missing, ", ".join(found + missing))


def _disk(root: Path) -> CapabilityCheck:
    place = next(each for each in (root, *root.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(place).free
    text = f"{free / 1e9:,.1f} GB free at {place}"
    if free < LEAST_FREE_BYTES:
        return CapabilityCheck(
            "disk", False, f"{text}; free some space, or choose another folder with --out"
        )
    if not os.access(place, os.W_OK):
        return CapabilityCheck(
            "disk", False, f"{place} is not writable; choose another folder with --out"
        )
    return CapabilityCheck("disk", True, text)


def _endpoint(config: Remote, endpoint: Endpoint, *, is_capped: bool) -> Iterator[CapabilityCheck]:
    state = EndpointState(endpoint, config.model)
    where = f"{endpoint.url} ({state.model})"
    key = _key(state)
    yield CapabilityCheck(f"{where} key", key.ok, key.text)
    if is_capped:
        price = _price(endpoint)
        yield CapabilityCheck(f"{where} price", price.ok, price.text)
    reached = _connection(state)
    yield CapabilityCheck(f"{where} connection", reached.ok, reached.text)
    if key.ok and reached.ok:
        for found in _asked(config, state, is_capped=is_capped):
            text = _masked(found.text, endpoint)
            yield CapabilityCheck(f"{where} {found.name}", found.ok, text)


def _key(state: EndpointState) -> CapabilityCheck:
    name = state.config.key_env
    if not name:
        return CapabilityCheck("key", True, "no key is configured (key_env)")
    try:
        state.headers()
    except ModelError as error:
        return CapabilityCheck("key", False, str(error))
    value = os.environ[name].strip()
    if not (value.isascii() and value.isprintable()) or " " in value:
        return CapabilityCheck("key", False, f"{name} contains characters that no key has")
    return CapabilityCheck("key", True, f"{name} is set")


def _price(endpoint: Endpoint) -> CapabilityCheck:
    prompt, response = endpoint.usd_per_million_prompt, endpoint.usd_per_million_response
    if endpoint.has_price:
        return CapabilityCheck(
            "price", True, f"${prompt:g} per million prompt tokens, ${response:g} response tokens"
        )
    is_said = {"usd_per_million_prompt", "usd_per_million_response"} & endpoint.model_fields_set
    hint = "" if is_said else "; set usd_per_million_prompt and _response (0 if it is free)"
    return CapabilityCheck(
        "price", bool(is_said), f"no price: budget_usd does not count its replies{hint}"
    )


def _connection(state: EndpointState) -> CapabilityCheck:
    parts = urlsplit(state.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if state.proxy is not None:
        seen = urlsplit(state.proxy)
        return CapabilityCheck("connection", True, f"through the proxy {seen.hostname}:{seen.port}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        return CapabilityCheck(
            "connection", False, f"host {host!r} not found ({error}); check the url"
        )
    began = monotonic()
    try:
        with socket.create_connection((host, port), timeout=CONNECT_S):
            pass
    except OSError as error:
        said = error.strerror or str(error)
        return CapabilityCheck(
            "connection", False, f"{host} does not answer on port {port} ({said}); is it running?"
        )
    ms = 1000 * (monotonic() - began)
    addresses = ", ".join(sorted({str(each[4][0]) for each in found})[:3])
    return CapabilityCheck(
        "connection", True, f"{host} is {addresses}; port {port} open in {ms:.0f} ms"
    )


def _asked(config: Remote, state: EndpointState, *, is_capped: bool) -> Iterator[CapabilityCheck]:
    said = ""
    for is_first in (True, False):
        got = _post(config, state, log_probability=is_first)
        if isinstance(got, _Got) and got.status != 200:
            got = read_failure(got.status, got.headers, got.raw, datetime.now(UTC))
        if not (isinstance(got, Failure) and got.kind == "rejected" and "logprob" in got.message):
            break
        said = got.message
    if isinstance(got, Failure):
        yield CapabilityCheck("answer", False, f"{got.message or got.kind}{_remedy(got, state)}")
        return
    try:
        choices, usage = parse(got.raw, 1, 0)
    except ValueError as error:
        yield CapabilityCheck(
            "answer", False, f"invalid reply: {error}; is this the url of a chat API?"
        )
        return
    answer = read_reply(ASKED, choices[0], usage, 0.0)
    yield CapabilityCheck(
        "answer", True, f"200 in {got.seconds:.2f} s, finish_reason {answer.finish_reason}"
    )
    yield _limits(state.config, got.headers)
    yield _logprobs(config, answer, said)
    yield _usage(state.config, usage, is_capped=is_capped)


def _logprobs(config: Remote, answer: Reply, said: str) -> CapabilityCheck:
    if "logprobs" in config.omit:
        return CapabilityCheck(LOG_PROBABILITIES, True, "not requested (omit)")
    if said:
        return CapabilityCheck(LOG_PROBABILITIES, True, f"refused ({said:.120})")
    given = "given" if answer.log_probability is not None else "not given"
    return CapabilityCheck(LOG_PROBABILITIES, True, given)


def _usage(endpoint: Endpoint, usage: Usage, *, is_capped: bool) -> CapabilityCheck:
    if usage.prompt_tokens:
        told = f"given: {usage.prompt_tokens} prompt and {usage.response_tokens} response tokens"
        return CapabilityCheck("usage", True, told)
    price = endpoint.usd(1, 0, 1)
    text = "not given; tokens and dollars are estimated from text lengths"
    return CapabilityCheck("usage", not (is_capped and price), text)


def _limits(endpoint: Endpoint, headers: Mapping[str, str]) -> CapabilityCheck:
    declared = {"requests": endpoint.requests_per_min, "tokens": endpoint.tokens_per_min}
    told = {name: limit for name, (limit, _, _) in remaining(headers).items()}
    shown = ", ".join(
        f"{name} {told[name]:,.0f} by the server"
        if not declared[name]
        else f"{name} {declared[name]:,} declared"
        + (f", {told[name]:,.0f} by the server" if name in told else "")
        for name in declared
        if declared[name] or name in told
    )
    if not shown:
        return CapabilityCheck("limits", True, "no limits declared or stated by the server")
    over = [name for name, limit in told.items() if (declared[name] or 0) > limit]
    if over:
        return CapabilityCheck("limits", False, f"{shown}; lower {over[0]}_per_min to the server's")
    unknown = [name for name in told if not declared[name]]
    hint = f"; declare {unknown[0]}_per_min for an even pace" if unknown else ""
    silent = "" if told else "; the server states no limits"
    return CapabilityCheck("limits", True, f"{shown}{hint}{silent}")


def _remedy(told: Failure, state: EndpointState) -> str:
    name = state.config.key_env
    if told.status in (401, 403):
        return (
            f"; set {name} to a key that is valid there"
            if name
            else "; name the variable of its key with key_env"
        )
    if told.status == 404:
        return f"; check url and model ({state.model!r})"
    if told.kind == "rejected":
        return "; list the rejected fields in omit, or set tokens_field"
    return "; try again in a minute" if told.kind in ("throttled", "overloaded") else ""


def _post(config: Remote, state: EndpointState, *, log_probability: bool) -> _Got | Failure:
    call = ApiCall(
        "generate", ASKED, Sampling(max_new_tokens=1, log_probability=log_probability),
        state.model, 1, state.config.tokens_field,
    )  # fmt: skip
    data = state.dialect.body(call, config.extra, config.omit)
    try:
        return asyncio.run(_send(state, data))
    except TimeoutError:
        return Failure("lost", f"no reply within {_patience(state):g} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Failure("lost", f"the connection broke: {type(error).__name__} {error}")


async def _send(state: EndpointState, data: bytes) -> _Got:
    timeout = aiohttp.ClientTimeout(total=_patience(state))
    jar = aiohttp.DummyCookieJar()
    began = monotonic()
    async with (
        aiohttp.ClientSession(cookie_jar=jar, timeout=timeout) as session,
        session.post(
            state.url, data=data, headers=state.headers(), proxy=state.proxy,
            allow_redirects=False,
        ) as response,
    ):  # fmt: skip
        raw = await response.read()
        headers = cast("dict[str, str]", response.headers)
        return _Got(response.status, headers, raw, monotonic() - began)


def _patience(state: EndpointState) -> float:
    return min(ANSWER_S, state.config.timeout_s)


def _masked(text: str, endpoint: Endpoint) -> str:
    """Mask the key in a server's text and join its lines."""
    key = os.environ.get(endpoint.key_env or "", "").strip()
    text = mask_secret(text.encode(), key, endpoint.key_env or "").decode()
    return " ".join(text.split())


def _folder(path: Path, config: Local) -> Iterator[CapabilityCheck]:
    try:
        tokenizer = load_tokenizer(path)
    except ModelError as error:
        yield CapabilityCheck("tokenizer", False, str(error))
    else:
        template = "with" if getattr(tokenizer, "chat_template", None) else "without"
        text = f"{type(tokenizer).__name__}, {len(tokenizer):,} tokens, {template} a chat template"
        yield CapabilityCheck("tokenizer", True, text)
    yield _shape(path, config)
    files = [file for pattern in WEIGHTS for file in sorted(path.glob(pattern))]
    num_bytes = sum(file.stat().st_size for file in files)
    text = f"{num_bytes / 1e9:,.3f} GB in {len(files)} files"
    yield CapabilityCheck("weights", bool(files), text if files else f"no weights in {path}")


def _shape(path: Path, config: Local) -> CapabilityCheck:
    try:
        found = read_config(path)
        chat_format = saved_format(path, load_tokenizer(path)) if config.format == "saved" else None
    except (ModelError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        return CapabilityCheck("model", False, f"{path}: not a model folder ({reason:.160})")
    kind = ", ".join(getattr(found, "architectures", None) or [found.model_type])
    stored = str(getattr(found, "dtype", None) or "unknown").removeprefix("torch.")
    known = (name for name, each in FORMATS.items() if each == chat_format)
    shown = "chat" if isinstance(chat_format, TemplateFormat) else next(known, config.format)
    run = str(pick_dtype(config.dtype, path)).removeprefix("torch.")
    text = f"{kind}, stored as {stored}, run as {run}, format {shown}"
    return CapabilityCheck("model", True, text)
