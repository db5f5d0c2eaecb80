"""Health checks for a teacher: key, connection, reply, limits, capabilities."""

import os
import platform
import shutil
import socket
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import NamedTuple
from urllib.parse import urlsplit

from spyhop import __version__
from spyhop.lazy import missing
from spyhop.models.calls import Request
from spyhop.models.capabilities import Finding, Prober, prove, save
from spyhop.models.endpoint import Remote
from spyhop.models.endpoint_state import EndpointState
from spyhop.models.failures import remaining
from spyhop.models.folder import load_tokenizer, read_config
from spyhop.models.local import Local, pick_dtype, saved_format
from spyhop.models.replies import Unreadable
from spyhop.models.service import Endpoint, Service
from spyhop.models.teacher import Teacher
from spyhop.render import FORMATS, TemplateFormat
from spyhop.schema import ModelError, prompt_turns
from spyhop.settings import mask_secret

CONNECT_S = 10.0
LEAST_FREE_BYTES = 1 << 30
WEIGHTS = ("*.safetensors", "*.bin", "*.pt")


Result = tuple[bool, str]
"""Whether all is well, and what was found."""


class CapabilityCheck(NamedTuple):
    """A check and its result."""

    name: str
    ok: bool
    text: str
    has: bool | None = True
    """Of a capability: whether the endpoint has it; None if it was not tried."""


def doctor(teacher: Teacher, root: Path, *, is_quick: bool = False) -> Iterator[CapabilityCheck]:
    """Yield checks, each as soon as it is done. Keys are never shown.

    A chat endpoint gets some ten small requests that prove its capabilities, with `is_quick` one;
    the proofs are kept in `root`. The requests are not counted by the rate limiter, so a run at the
    same time may be throttled for a moment.
    """
    packages = ("aiohttp" if teacher.service else "transformers", "pyarrow")
    absent = [name for name in packages if find_spec(name) is None]
    notes = [f"spyhop {__version__}", f"python {platform.python_version()}"]
    notes += [f"{name} {version(name)}" for name in packages if name not in absent]
    notes += [f"{name} is not installed" for name in absent]
    yield CapabilityCheck("versions", not absent, ", ".join(notes))
    yield CapabilityCheck("disk", *_disk(root))
    if lack := missing("a model folder", teacher.config.needs):
        yield CapabilityCheck("weights", False, lack)
        return
    if teacher.service is not None and isinstance(teacher.config, Remote):
        for endpoint in teacher.service.endpoints:
            replicas, reason = list[Endpoint](), "no URL yet"
            try:
                replicas += endpoint.replicas()
            except OSError as error:
                reason = error.strerror or str(error)
            if endpoint.urls:
                found = len(replicas)
                text = f"{found} URLs" if found else f"{reason}; `spyhop serve` starts replicas"
                yield CapabilityCheck(f"{endpoint.address} replicas", bool(found), text)
            for place, each in enumerate(replicas):
                where = f"{each.url} ({each.model or teacher.config.model})"
                is_short = is_quick or place > 0  # replicas are equal
                key, variable = os.environ.get(each.key_env, "").strip(), each.key_env
                for check in _endpoint(teacher.config, teacher.service, each, root, is_short):
                    text = mask_secret(check.text.encode(), key, variable).decode()
                    yield check._replace(name=f"{where} {check.name}", text=" ".join(text.split()))
    elif teacher.folder is not None and isinstance(teacher.config, Local):
        yield from _folder(teacher.folder / teacher.config.subfolder, teacher.config)


def reachable(config: Remote, service: Service) -> Iterator[CapabilityCheck]:
    """Yield the checks of key and connection of every endpoint; nothing is sent."""
    for endpoint in service.endpoints:
        state = EndpointState(endpoint, config.model)
        yield CapabilityCheck("key", *_key(state))
        if not endpoint.urls:  # replicas may appear later
            yield CapabilityCheck("connection", *_connection(state))


def _disk(root: Path) -> Result:
    place = next(each for each in (root, *root.absolute().parents) if each.is_dir())
    free, remedy = shutil.disk_usage(place).free, "choose another folder with --out"
    if not os.access(place, os.W_OK):
        return False, f"{place} is not writable; {remedy}"
    text = f"{free / 1e9:,.1f} GB free at {place}"
    is_enough = free >= LEAST_FREE_BYTES
    return is_enough, text if is_enough else f"{text}; free some space, or {remedy}"


def _endpoint(
    config: Remote, service: Service, endpoint: Endpoint, root: Path, is_quick: bool
) -> Iterator[CapabilityCheck]:
    state, is_capped = EndpointState(endpoint, config.model), bool(service.budget_usd)
    yield (key := CapabilityCheck("key", *_key(state)))
    if is_capped:
        yield CapabilityCheck("price", *_price(endpoint))
    yield (reached := CapabilityCheck("connection", *_connection(state)))
    if not (key.ok and reached.ok):
        return
    prober = Prober(state, config.extra, config.omit, endpoint.tokens_field)
    is_plain = state.dialect.takes == "plain prompts"
    prompt = {"text": "Say"} if is_plain else {"messages": prompt_turns("Say yes.")}
    try:
        answer = prober.first(Request(id="doctor", **prompt))
    except Unreadable as error:
        failure, is_passing = error.failure, error.failure.kind in ("throttled", "overloaded")
        text = state.advice(failure).removeprefix(f"{endpoint.url}: ") or failure.kind
        text = f"{text}; try again in a minute" if is_passing else text
        if failure.status == 200:
            text = f"invalid reply: {failure.message}; is this the url of a chat API?"
        yield CapabilityCheck("answer", False, text)
        return
    yield CapabilityCheck("answer", True, f"200, finish_reason {answer.finish_reason}")
    yield CapabilityCheck("limits", *_limits(endpoint, prober.headers))
    usage, is_ok = prober.used[0], True
    text = f"given: {usage.prompt_tokens} prompt and {usage.response_tokens} response tokens"
    if not usage.prompt_tokens:
        text = "not given; tokens and dollars are estimated from text lengths"
        is_ok = not (is_capped and endpoint.has_price)
    yield CapabilityCheck("usage", is_ok, text)
    if renamed := prober.refused.get("max_tokens"):
        text = f'set tokens_field = "max_completion_tokens" ({renamed:.120})'
        yield CapabilityCheck("tokens_field", False, text)
    if state.dialect.takes != "chats":
        return
    found: dict[str, Finding] = {}
    if not is_quick:
        yield CapabilityCheck("proofs", True, f"{prober.most} (--quick sends none)")
    for name, finding in prove(prober, answer, is_quick=is_quick):
        found[name] = finding
        yield CapabilityCheck(name, True, finding.text, finding.has)
    save(root, config.model, endpoint, found)
    yield CapabilityCheck("cost", True, prober.cost)


def _key(state: EndpointState) -> Result:
    name = state.config.key_env
    if not name:
        return True, "no key is configured (key_env)"
    try:
        state.headers()
    except ModelError as error:
        return False, str(error)
    is_odd = not (state.key.isascii() and state.key.isprintable()) or " " in state.key
    return not is_odd, f"{name} contains characters that no key has" if is_odd else f"{name} is set"


def _price(endpoint: Endpoint) -> Result:
    prompt, response = endpoint.usd_per_million_prompt, endpoint.usd_per_million_response
    if endpoint.has_price:
        return True, f"${prompt:g} per million prompt tokens, ${response:g} response tokens"
    is_said = {"usd_per_million_prompt", "usd_per_million_response"} & endpoint.model_fields_set
    hint = "" if is_said else "; set usd_per_million_prompt and _response (0 if it is free)"
    return bool(is_said), f"no price: budget_usd does not count its replies{hint}"


def _connection(state: EndpointState) -> Result:
    parts = urlsplit(state.proxy or state.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if state.proxy is not None:
        return True, f"through the proxy {host}:{port}"
    began = monotonic()
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except (socket.gaierror, UnicodeError) as error:
        return False, f"host {host!r} not found ({error}); check the url"
    except OSError as error:
        cause = error.strerror or str(error)
        return False, f"{host} does not answer on port {port} ({cause}); is it running?"
    addresses = ", ".join(sorted({str(each[4][0]) for each in found})[:3])
    elapsed_ms = 1000 * (monotonic() - began)
    return True, f"{host} is {addresses}; port {port} open in {elapsed_ms:.0f} ms"


def _limits(endpoint: Endpoint, headers: Mapping[str, str]) -> Result:
    declared = endpoint.limits
    stated = {name: limit for name, (limit, _, _) in remaining(headers).items()}
    notes = []
    for name in {**declared, **stated}:
        found = [f"{declared[name]:,} declared"] if name in declared else []
        found += [f"{stated[name]:,.0f} by the server"] if name in stated else []
        notes.append(f"{name} {', '.join(found)}")
    text = ", ".join(notes) or "no limits declared or stated by the server"
    remedy = "; the server states no limits" if declared and not stated else ""
    for name, limit in stated.items():
        field = f"{name.replace(' ', '_')}_per_min"
        if declared.get(name, 0) > limit:
            return False, f"{text}; lower {field} to the server's"
        if name not in declared:
            remedy = remedy or f"; declare {field} for an even pace"
    return True, text + remedy


def _folder(path: Path, config: Local) -> Iterator[CapabilityCheck]:
    try:
        tokenizer = load_tokenizer(path)
    except ModelError as error:
        yield CapabilityCheck("tokenizer", False, str(error))
    else:
        template = "with" if getattr(tokenizer, "chat_template", None) else "without"
        text = f"{type(tokenizer).__name__}, {len(tokenizer):,} tokens, {template} a chat template"
        yield CapabilityCheck("tokenizer", True, text)
    yield CapabilityCheck("model", *_shape(path, config))
    sizes = [file.stat().st_size for pattern in WEIGHTS for file in path.glob(pattern)]
    text = f"{sum(sizes) / 1e9:,.3f} GB in {len(sizes)} files"
    yield CapabilityCheck("weights", bool(sizes), text if sizes else f"no weights in {path}")


def _shape(path: Path, config: Local) -> Result:
    try:
        found = read_config(path)
        chat_format = saved_format(path, load_tokenizer(path)) if config.format == "saved" else None
    except (ModelError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        return False, f"{path}: not a model folder ({reason:.160})"
    kind = ", ".join(getattr(found, "architectures", None) or [found.model_type])
    stored = str(getattr(found, "dtype", None) or "unknown").removeprefix("torch.")
    known = (name for name, each in FORMATS.items() if each == chat_format)
    shown = "chat" if isinstance(chat_format, TemplateFormat) else next(known, config.format)
    run = str(pick_dtype(config.dtype, path)).removeprefix("torch.")
    return True, f"{kind}, stored as {stored}, run as {run}, format {shown}"
