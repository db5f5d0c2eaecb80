"""Replicas of a served model: found in folders of URLs, and used while they are healthy."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from spyhop.models.endpoint_state import EndpointState
from spyhop.models.service import Endpoint
from spyhop.models.transport import Transport

CHECK_S = 1.0
"""Between two looks at a folder, and between two health checks of a replica."""
LOST_AFTER = 3
"""Failed health checks in a row after which a replica's calls go to other replicas."""


class Replicas:
    """Keeps a client's endpoints equal to the URLs in folders. Runs in the client's event loop.

    `begin` prepares an endpoint that is new, `changed` is called when one comes up.
    """

    def __init__(
        self,
        folders: Sequence[Endpoint],
        model: str,
        endpoints: list[EndpointState],
        begin: Callable[[EndpointState], None],
        changed: Callable[[], None],
    ) -> None:
        self._folders = folders
        self._model = model
        self._endpoints = endpoints
        self._begin, self._changed = begin, changed
        self._checks: dict[EndpointState, asyncio.Task[None]] = {}
        for folder in folders:
            EndpointState(folder, model).headers()  # a missing key ends the run before it begins

    def __str__(self) -> str:
        """Return how many replicas are up."""
        num_up = sum(each.is_up for each in list(self._checks))
        return f"{num_up} of {len(self._checks)} replicas answer"

    def __bool__(self) -> bool:
        return bool(self._folders)

    async def run(self, transport: Transport) -> None:
        """Follow the folders, until cancelled."""
        try:
            while True:
                for folder in self._folders:
                    with suppress(OSError):  # the replicas known so far stay
                        self._update(folder, await asyncio.to_thread(folder.replicas), transport)
                await asyncio.sleep(CHECK_S)
        finally:
            for check in self._checks.values():
                check.cancel()
            await asyncio.gather(*self._checks.values(), return_exceptions=True)

    def suspect(self, endpoint: EndpointState) -> None:
        """Send nothing more to a replica that lost a call, until its next check, which is now."""
        if endpoint in self._checks:
            endpoint.is_up = False
            endpoint.is_suspect.set()

    def _update(self, folder: Endpoint, replicas: Sequence[Endpoint], transport: Transport) -> None:
        known = {e.config.url: e for e in self._endpoints if e.config.urls == folder.urls}
        for config in replicas:
            if config.url not in known:
                known[config.url] = endpoint = EndpointState(config, self._model)
                endpoint.is_up = False
                transport.add(endpoint)
                self._begin(endpoint)
                self._endpoints.append(endpoint)
            endpoint = known.pop(config.url)
            if endpoint not in self._checks:
                checking = self._check(endpoint, transport)
                self._checks[endpoint] = asyncio.create_task(checking)
        for endpoint in known.values():  # their files are gone
            if check := self._checks.pop(endpoint, None):
                check.cancel()
                endpoint.is_up = False
            in_use = endpoint.concurrency.in_flight + endpoint.concurrency.num_uncommitted
            if not in_use and not endpoint.limiters:  # limits count for a minute
                self._endpoints.remove(endpoint)
                transport.remove(endpoint)

    async def _check(self, endpoint: EndpointState, transport: Transport) -> None:
        num_failed, is_suspect = 0, endpoint.is_suspect
        while True:
            is_suspect.clear()
            is_healthy = await transport.is_healthy(endpoint)
            num_failed = 0 if is_healthy else num_failed + 1
            endpoint.is_lost = num_failed >= LOST_AFTER
            if is_healthy and not endpoint.is_up and not is_suspect.is_set():
                endpoint.is_up = True
                self._changed()
            elif is_healthy is False or endpoint.is_lost:  # one slow check is no failure
                endpoint.is_up = False
            with suppress(TimeoutError):
                await asyncio.wait_for(is_suspect.wait(), CHECK_S)
