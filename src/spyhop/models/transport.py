"""Send one HTTP request, read the reply up to a size limit, and name every kind of failure.

Replies that come as server-sent events are put together, and the text so far is shown. Batch APIs
need more: several addresses, and results that are read line by line.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from pydantic_core import from_json, to_json

from spyhop.models.dialect import Json
from spyhop.models.endpoint_state import EndpointState
from spyhop.models.failures import Failure, dicts, read_failure
from spyhop.schema import ModelError
from spyhop.settings import secret_forms

CONNECT_S = 30.0
HEALTH_S = 10.0
"""Longest wait for a health check."""
MOST_BYTES = 64 << 20
"""Largest reply, or line of a batch's results; log-probabilities of a long response take 10 MB."""
READ_S = 300.0
"""Longest silence of a batch API's connection."""
UNCERTAIN = ("lost", "overloaded", "malformed", "page")
"""Kinds of failures after which a call to a batch API may have had its effect."""


class HttpReply(NamedTuple):
    """A reply of status 200."""

    headers: Mapping[str, str]
    raw: bytes


class _Body(aiohttp.BytesPayload):
    """A request's body that knows whether all of it was written."""

    is_written = False

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        await super().write_with_length(writer, content_length)
        self.is_written = True


class StreamedReply:
    """A chat completion or a message of Anthropic's API, put together from its events."""

    def __init__(self) -> None:
        self.whole: dict[str, Any] = {}
        """The reply as it would have come without a stream; an error is the event that states it.
        """
        self._rest = b""

    def take(self, chunk: bytes) -> None:
        """Read the next bytes of the body; lines that are no JSON objects are skipped.

        Raises:
            ValueError: If an event has another form.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and b"{" in line:
                try:
                    event = from_json(line[5:])
                    merge = self._take_message if "type" in event else self._take_completion
                    self.whole = event if event.get("error") else merge(event)
                except (LookupError, TypeError, AttributeError):
                    raise ValueError(f"an event of unknown form: {line!r:.200}") from None

    @property
    def text(self) -> str:
        """The response so far, or its thoughts while there is nothing else."""
        if "content" in self.whole:
            return "".join(str(each.get("text", "")) for each in self.whole["content"])
        turns = [each["message"] for each in dicts(self.whole.get("choices"))]
        texts = [t.get(n) for t in turns for n in ("content", "reasoning_content", "reasoning")]
        return next((text for text in texts if isinstance(text, str) and text), "")

    def _take_completion(self, event: dict[str, Any]) -> dict[str, Any]:
        (old, *_) = self.whole.get("choices") or [{"message": {}}]
        found = {**self.whole, **{k: v for k, v in event.items() if v}, "choices": [old]}
        for each in dicts(event.get("choices")):
            old |= {name: each[name] for name in ("index", "finish_reason") if each.get(name)}
            for name, more in (each.get("delta") or {"content": each.get("text")}).items():
                before = old["message"].get(name)
                is_more = isinstance(more, str | list) and type(more) is type(before)
                if more is not None:  # of some providers, where nothing is added
                    old["message"][name] = before + more if is_more and name != "role" else more
        return found

    def _take_message(self, event: dict[str, Any]) -> dict[str, Any]:
        found = self.whole or {"content": []}
        if event["type"] == "message_start":
            return dict(event["message"])
        if event["type"] == "content_block_start":
            found["content"].append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            block = found["content"][-1]
            for name in {"text", "thinking"} & event["delta"].keys():
                block[name] = block.get(name, "") + event["delta"][name]
        elif event["type"] == "message_delta":
            found |= event["delta"]
            found["usage"] = {**found.get("usage", {}), **(event.get("usage") or {})}
        return found


class Transport:
    """Sends requests over persistent connections. Failures and replies never contain keys."""

    def __init__(self, endpoints: Sequence[EndpointState]) -> None:
        self._how: dict[EndpointState, dict[str, Any]] = {}
        self._masks: dict[bytes, bytes] = {}
        for endpoint in endpoints:
            self.add(endpoint)

    def add(self, endpoint: EndpointState) -> None:
        """Read an endpoint's key from the environment."""
        how = {"headers": endpoint.headers(), "proxy": endpoint.proxy, "allow_redirects": False}
        self._how[endpoint] = how
        for form in secret_forms(endpoint.key):
            self._masks[form] = f"<{endpoint.config.key_env}>".encode()

    def remove(self, endpoint: EndpointState) -> None:
        """Forget an endpoint."""
        del self._how[endpoint]

    async def __aenter__(self) -> "Transport":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    async def post(
        self, endpoint: EndpointState, data: bytes, on_text: Callable[[str], bool] | None = None
    ) -> HttpReply | Failure:
        """Return the reply, or the failure of the request.

        Where the reply is a stream, `on_text` receives the text so far; False ends the reply. The
        `CancelledError` of a cancelled request has as argument whether it was written in full.
        """
        body = _Body(data)
        try:
            async with self._session.post(
                endpoint.url, data=body, **self._how[endpoint]
            ) as response:
                raw = await self._read(response, on_text)
                if raw is None:
                    reason = f"a reply of more than {MOST_BYTES >> 20} MiB"
                    return Failure("malformed", reason, 200, is_maybe_billed=True)
                if response.status == 200:
                    return HttpReply(response.headers, raw)
                return read_failure(response.status, response.headers, raw, datetime.now(UTC))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Failure("lost", self._shown(f"cannot be reached: {error}"))
        except asyncio.CancelledError:
            raise asyncio.CancelledError(body.is_written) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = self._shown(f"the connection broke: {type(error).__name__} {error}")
            return Failure("lost", reason, is_maybe_billed=body.is_written)

    async def is_healthy(self, endpoint: EndpointState) -> bool | None:
        """Return whether a server answers at `/health` (404 will do), None if it takes too long."""
        url, limit = urljoin(endpoint.url, "/health"), aiohttp.ClientTimeout(total=HEALTH_S)
        try:
            async with self._session.get(url, timeout=limit, **self._how[endpoint]) as response:
                return response.status < 500
        except TimeoutError:
            return None
        except (aiohttp.ClientError, OSError, ValueError):
            return False

    async def _read(
        self, response: aiohttp.ClientResponse, on_text: Callable[[str], bool] | None
    ) -> bytes | None:
        """Return the body without keys; a stream as the reply that it states; None if too large."""
        is_whole = (response.content_length or MOST_BYTES + 1) <= MOST_BYTES
        if is_whole and "Content-Encoding" not in response.headers and not on_text:
            return self.masked(await response.read())
        reply, chunks, size, is_wanted = StreamedReply(), list[bytes](), 0, True
        is_stream = response.content_type == "text/event-stream"
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if on_text and is_stream:
                reply.take(chunk)
                is_wanted = on_text(self._shown(reply.text))
            else:
                chunks.append(chunk)
            if size > MOST_BYTES or not is_wanted:
                response.close()
                break
        else:
            reply.take(b"\n")  # the last event may lack its line end
        if on_text and is_stream:
            return self.masked(to_json(reply.whole))
        return self.masked(b"".join(chunks)) if size <= MOST_BYTES else None

    def masked(self, raw: bytes) -> bytes:
        """Return a body without the keys that a server may repeat."""
        for form, mask in self._masks.items():
            if form in raw:
                raw = raw.replace(form, mask)
        return raw

    def _shown(self, text: str) -> str:
        return self.masked(text.encode(errors="replace")).decode()


class BatchCallError(ModelError):
    """A call to a batch API that failed."""

    def __init__(self, message: str, failure: Failure) -> None:
        super().__init__(message)
        self.failure = failure

    @property
    def is_unknown(self) -> bool:
        """Whether the call may have had its effect all the same."""
        return self.failure.is_maybe_billed or self.failure.kind in UNCERTAIN

    @property
    def is_passing(self) -> bool:
        """Whether the same call may succeed later."""
        return self.failure.kind in ("throttled", *UNCERTAIN)


class BatchHttp(Transport):
    """Calls to the batch API of one endpoint, each of which may raise `BatchCallError`."""

    def __init__(self, endpoint: EndpointState) -> None:
        super().__init__([endpoint])
        self._headers, self._proxy = endpoint.headers(), endpoint.proxy

    async def __aenter__(self) -> "BatchHttp":
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
        self._session = aiohttp.ClientSession(
            timeout=limits, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=MOST_BYTES
        )
        return self

    async def json(self, method: str, url: str, **how: Any) -> Json:  # noqa: ANN401
        """Return the object that a call answers."""
        found, _ = await self.call(method, url, **how)
        if not isinstance(found, dict):
            raise self.error(url, Failure("malformed", "a reply that is no JSON object"))
        return found

    async def rows(self, url: str) -> tuple[list[Json], Json]:
        """Return the objects of one page of a list, and the page."""
        page, _ = await self.call("GET", url)
        found = page.get("data") if isinstance(page, dict) else page
        if not isinstance(found, list):  # what it lacks must not count as absent
            raise self.error(url, Failure("malformed", "a reply that is no list"))
        return found, page if isinstance(page, dict) else {}

    async def lines(self, url: str) -> AsyncIterator[bytes]:
        """Yield the lines of a file, to its end."""
        try:
            async with self._session.get(url, headers=self._headers, proxy=self._proxy) as reply:
                if reply.status != 200:
                    raise self.error(url, await _failure(reply))
                async for line in reply.content:
                    yield self.masked(line)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self.error(url, Failure("lost", f"the connection broke: {error}")) from None

    async def call(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        **how: Any,  # noqa: ANN401
    ) -> tuple[Any, Mapping[str, str]]:
        """Return the JSON that a call answers, an empty object without any, and its headers."""
        sent = {**self._headers, **(headers or {})}
        if isinstance(how.get("data"), aiohttp.FormData):
            del sent["Content-Type"]
        how |= {"headers": sent, "proxy": self._proxy, "allow_redirects": False}
        try:
            async with self._session.request(method, url, **how) as reply:
                if reply.status not in (200, 201, 202):
                    raise self.error(url, await _failure(reply))
                raw = self.masked(await reply.read())
                return from_json(raw) if raw.strip() else {}, reply.headers
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            failure = Failure("throttled", f"cannot be reached: {error}")
            raise self.error(url, failure) from None
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            failure = Failure("lost", f"the connection broke: {type(error).__name__} {error}")
            raise self.error(url, failure) from None

    def error(self, url: str, failure: Failure) -> BatchCallError:
        """Return the error of a call."""
        said = " ".join(self._shown(failure.message).split())
        return BatchCallError(f"{url.partition('?')[0]}: {said}", failure)


async def _failure(reply: aiohttp.ClientResponse) -> Failure:
    return read_failure(reply.status, reply.headers, await reply.read(), datetime.now(UTC))
