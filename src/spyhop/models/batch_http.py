"""HTTP for batch APIs: JSON calls, and results that are read line by line."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from pydantic_core import from_json

from spyhop.models.endpoint_state import EndpointState
from spyhop.models.failures import Failure, read_failure
from spyhop.models.transport import CONNECT_S, Transport
from spyhop.schema import ModelError

Json = dict[str, Any]
READ_S = 300.0
"""Longest silence of a connection."""
MOST_LINE_BYTES = 64 << 20
UNCERTAIN = ("lost", "overloaded", "malformed", "page")
"""Kinds of failures after which a call may have had its effect."""


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
    """Calls to the batch API of one endpoint. Errors never contain keys."""

    def __init__(self, endpoint: EndpointState) -> None:
        super().__init__([endpoint])
        self._headers, self._proxy = endpoint.headers(), endpoint.proxy

    async def __aenter__(self) -> "BatchHttp":
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
        self._session = aiohttp.ClientSession(
            timeout=limits, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=MOST_LINE_BYTES
        )
        return self

    async def json(self, method: str, url: str, **how: Any) -> Json:  # noqa: ANN401
        """Return the object that a call answers.

        Raises:
            BatchCallError: If it fails, or answers something else.
        """
        found = await self.any(method, url, **how)
        if not isinstance(found, dict):
            raise self._error(url, Failure("malformed", "a reply that is no JSON object"))
        return found

    async def any(self, method: str, url: str, **how: Any) -> Any:  # noqa: ANN401
        """Return the JSON that a call answers, an empty object where it answers none."""
        return (await self._call(method, url, **how))[0]

    async def rows(self, url: str, name: str = "data") -> tuple[list[Json], Json]:
        """Return the objects of one page of a list, and the page.

        Raises:
            BatchCallError: If it is no list: what it lacks must not count as absent.
        """
        page = await self.any("GET", url)
        found = page.get(name) if isinstance(page, dict) else page
        if not isinstance(found, list):
            raise self._error(url, Failure("malformed", "a reply that is no list"))
        return found, page if isinstance(page, dict) else {}

    async def header(self, url: str, name: str, **how: Any) -> str:  # noqa: ANN401
        """Return the address in a header of a call's reply."""
        _, headers = await self._call("POST", url, **how)
        found = str(headers.get(name, ""))
        if urlsplit(found).hostname != urlsplit(url).hostname:  # the key goes to no other host
            said = f"{name}: {found!r} names no address at the same host"
            raise self._error(url, Failure("malformed", said))
        return found

    async def lines(self, url: str) -> AsyncIterator[bytes]:
        """Yield the lines of a file.

        Raises:
            BatchCallError: If it cannot be read to its end.
        """
        try:
            async with self._session.get(url, headers=self._headers, proxy=self._proxy) as reply:
                if reply.status != 200:
                    raise self._error(url, await _failure(reply))
                async for line in reply.content:
                    yield self.masked(line)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._error(url, Failure("lost", f"the connection broke: {error}")) from None

    async def _call(self, method: str, url: str, **how: Any) -> tuple[Any, Any]:  # noqa: ANN401
        headers = {**self._headers, **how.pop("headers", {})}
        if isinstance(how.get("data"), aiohttp.FormData):
            del headers["Content-Type"]
        how |= {"headers": headers, "proxy": self._proxy, "allow_redirects": False}
        try:
            async with self._session.request(method, url, **how) as reply:
                if reply.status not in (200, 201, 202):
                    raise self._error(url, await _failure(reply))
                raw = self.masked(await reply.read())
                return from_json(raw) if raw.strip() else {}, reply.headers
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            failure = Failure("throttled", f"cannot be reached: {error}")
            raise self._error(url, failure) from None
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            failure = Failure("lost", f"the connection broke: {type(error).__name__} {error}")
            raise self._error(url, failure) from None

    def _error(self, url: str, failure: Failure) -> BatchCallError:
        said = " ".join(self._shown(failure.message).split())
        return BatchCallError(f"{url.partition('?')[0]}: {said}", failure)


async def _failure(reply: aiohttp.ClientResponse) -> Failure:
    return read_failure(reply.status, reply.headers, await reply.read(), datetime.now(UTC))
