"""Health checks for a teacher: key, connection, reply, limits, capabilities."""

import os
import platform
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

from spyhop import __version__
from spyhop.models.calls import Reply, Request
from spyhop.models.capabilities import save
from spyhop.models.endpoint import Remote
from spyhop.models.endpoint_state import EndpointState
from spyhop.models.failures import Failure, remaining
from spyhop.models.folder import load_tokenizer, read_config
from spyhop.models.local import Local, pick_dtype, saved_format
from spyhop.models.probes import (
    MOST_TOKENS,
    NUM_REQUESTS,
    Prober,
    first_reply,
    prove,
    request,
)
from spyhop.models.replies import Usage
from spyhop.models.service import Endpoint, Service
from spyhop.models.teacher import Teacher
from spyhop.models.transport import HttpReply
from spyhop.render import FORMATS, TemplateFormat
from spyhop.schema import ModelError
from spyhop.settings import mask_secret

CONNECT_S = 10.0
LEAST_FREE_BYTES = 1 << 30
WEIGHTS = ("*.safetensors", "*.bin", "*.pt")
ASKED = request("Say yes.")


@dataclass(frozen=True, slots=True)
class CapabilityCheck:
    """A check and its result."""

    name: str
    ok: bool
    text: str
    has: bool | None = True
    """Of a capability: whether the endpoint has it; None if it was not tried."""


def doctor(teacher: Teacher, root: Path, *, is_quick: bool = False) -> Iterator[CapabilityCheck]:
    """Yield checks, each as soon as it is done. Keys are never shown.

    A chat endpoint gets some ten small requests that prove its capabilities, with `is_quick` one;
    the proofs are kept in `root`. The requests are not counted by the rate limiter,
    so a run at the same time may be throttled for a moment.
    """
    yield _versions("aiohttp" if teacher.service else "transformers", "pyarrow")
    yield _disk(root)
    if teacher.service is not None and isinstance(teacher.config, Remote):
        is_capped = bool(teacher.service.budget_usd)
        for endpoint in teacher.service.endpoints:
            checks = _endpoint(teacher.config, endpoint, root, is_capped, is_quick)
            where = f"{endpoint.url} ({endpoint.model or teacher.config.model})"
            for check in checks:
                text = _masked(check.text, endpoint)
                yield replace(check, name=f"{where} {check.name}", text=text)
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


def _endpoint(
    config: Remote, endpoint: Endpoint, root: Path, is_capped: bool, is_quick: bool
) -> Iterator[CapabilityCheck]:
    state = EndpointState(endpoint, config.model)
    key = _key(state)
    yield key
    if is_capped:
        yield _price(endpoint)
    reached = _connection(state)
    yield reached
    if not (key.ok and reached.ok):
        return
    prober = Prober(config, state, tokens_field=endpoint.tokens_field)
    asked = Request(id="doctor", text="Say") if state.dialect.takes == "plain prompts" else ASKED
    got, refused = first_reply(prober, asked)
    found = prober.read(asked, got.raw) if isinstance(got, HttpReply) else got
    yield _answer(found, state)
    if isinstance(found, Failure) or not isinstance(got, HttpReply):
        return
    yield _limits(endpoint, got.headers)
    yield _usage(endpoint, prober.used[0], is_capped=is_capped)
    if renamed := refused.get("max_completion_tokens"):
        text = f'set tokens_field = "max_completion_tokens" ({renamed:.120})'
        yield CapabilityCheck("tokens_field", False, text)
    if state.dialect.takes == "chats":
        yield from _proofs(prober, refused, found[0], root, is_quick)


def _proofs(
    prober: Prober, refused: Mapping[str, str], answer: Reply, root: Path, is_quick: bool
) -> Iterator[CapabilityCheck]:
    """Prove the capabilities of an endpoint, and keep them."""
    endpoint, lacks = prober.state.config, prober.state.dialect.lacks
    if not is_quick:
        text = f"{NUM_REQUESTS} requests, at most ${endpoint.most_usd(*MOST_TOKENS):.4f}"
        yield CapabilityCheck("proofs", True, f"{text} (--quick sends none)")
    found = {}
    for name, finding in prove(prober, refused, answer, is_quick=is_quick):
        found[name] = finding
        yield CapabilityCheck(name, True, finding.text, finding.has)
    save(root, prober.config, endpoint, {n: each for n, each in found.items() if n not in lacks})
    used = prober.used
    yield CapabilityCheck(
        "cost", True,
        f"{prober.num_sent} requests, {sum(u.prompt_tokens for u in used):,} prompt and "
        f"{sum(u.response_tokens for u in used):,} response tokens, ${prober.usd:.4f}",
    )  # fmt: skip


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


def _answer(found: list[Reply] | Failure, state: EndpointState) -> CapabilityCheck:
    if not isinstance(found, Failure):
        return CapabilityCheck("answer", True, f"200, finish_reason {found[0].finish_reason}")
    if found.status == 200:
        text = f"invalid reply: {found.message}; is this the url of a chat API?"
        return CapabilityCheck("answer", False, text)
    return CapabilityCheck("answer", False, f"{found.message or found.kind}{_remedy(found, state)}")


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
