"""Work on a Ray cluster: actors that each do one item after the other.

An actor whose node or process dies is replaced, and its item is done again by another one. Results
are the caller's business: nothing is kept on the cluster.
"""

import logging
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from spyhop.lazy import library
from spyhop.schema import ArtifactError, InputError, SpyhopError

MAX_RETRIES = 3
"""Times that an item is done again after its actor died."""
CONNECT_S = 5.0
CONNECT_ATTEMPTS = 3
AHEAD = 4
"""Items, for each actor, that may be done before the oldest one that is not."""


class Actor:
    """Lives on a node of the cluster, and keeps what its items share."""

    def __init__(self, work: Callable[[Any, Any], Any]) -> None:
        self._work, self._ref, self._shared = work, None, None

    def ready(self) -> None:
        """Return when the actor has a place on a node."""

    def do(self, shared: list[Any], item: Any) -> Any:  # noqa: ANN401 (any item)
        """Return the result of an item; an error of ours is returned, not raised."""
        if self._ref != shared[0]:
            self._ref, self._shared = shared[0], library("ray").get(shared[0])
        try:
            return self._work(self._shared, item)
        except SpyhopError as error:
            return error


class Cluster:
    """Actors on a Ray cluster, each of which calls `work(shared, item)` with a copy of `work`.

    `ray://host:port` goes through a Ray client server, `ray:host:port` straight to a cluster that
    this machine is part of. Files must have the same paths on every node. An actor takes `cpus`,
    and `gpus` where the cluster has any.
    """

    def __init__(
        self, address: str, work: Callable[[Any, Any], Any], *, cpus: float = 1, gpus: float = 0
    ) -> None:
        self._ray = ray = library("ray", address)
        self._work = work
        self._is_owner = not ray.is_initialized()
        if self._is_owner:
            _connect(address)
        has = ray.cluster_resources()
        gpus = gpus if has.get("GPU") else 0
        self.size = max(1, int(has["GPU"] / gpus if gpus else has.get("CPU", 1) / cpus))
        """Actors for which the cluster has room."""
        self._kind: Any = ray.remote(num_cpus=cpus, num_gpus=gpus)(Actor)
        self._shared: Any = None
        self._box: list[Any] = []
        """A reference to what the items share."""
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, int | None]] = {}
        """By the reference to a result: the actor, and its item's number; None while it starts."""

    def close(self) -> None:
        """End the actors; leave the cluster, if this object joined it."""
        for actor in [*self._idle, *(actor for actor, _ in self._busy.values())]:
            self._ray.kill(actor)
        self._idle, self._busy = [], {}
        if self._is_owner:
            self._ray.shutdown()

    def map(self, shared: Any, items: Iterable[Any]) -> Iterator[tuple[int, Any]]:  # noqa: ANN401
        """Yield the number and the result of each item, as they are done.

        Raises:
            SpyhopError: Of the work on an item.
            ArtifactError: If an item's actors die again and again.
        """
        if not self._box or self._shared is not shared:
            self._shared, self._box = shared, [self._ray.put(shared)]
        numbered = enumerate(items)
        open_items: dict[int, Any] = {}
        due: deque[int] = deque()
        deaths: Counter[int | None] = Counter()
        while True:
            span = max(open_items) - min(open_items) if open_items else 0
            num_wanted = max(0, min(self.size - len(due), AHEAD * self.size - span))
            for number, item in islice(numbered, num_wanted):
                open_items[number] = item
                due.append(number)
            while due and self._idle:
                actor, number = self._idle.pop(), due.popleft()
                self._busy[actor.do.remote(self._box, open_items[number])] = (actor, number)
            num_starting = sum(number is None for _, number in self._busy.values())
            for _ in range(min(len(due) - num_starting, self.size - len(self._busy))):
                actor = self._kind.remote(self._work)
                self._busy[actor.ready.remote()] = (actor, None)
            if not open_items:
                return
            (ref,), _ = self._ray.wait(list(self._busy), num_returns=1)
            actor, done = self._busy.pop(ref)
            try:
                result = self._ray.get(ref)
            except self._ray.exceptions.RayActorError as error:
                deaths[done] += 1
                if done is not None:
                    due.appendleft(done)
                if deaths[done] > MAX_RETRIES:
                    reason = str(error).strip().splitlines()[-1]
                    raise ArtifactError(
                        f"workers on the cluster died {deaths[done]} times over one part, or as "
                        f"they started ({reason:.200}); run again to resume"
                    ) from None
                continue
            deaths.pop(None, None)
            self._idle.append(actor)
            if isinstance(result, SpyhopError):
                raise result
            if done is not None:
                del open_items[done]
                yield done, result

    def in_order(self, shared: Any, items: Iterable[Any]) -> Iterator[Any]:  # noqa: ANN401
        """Yield the result of each item, in their order."""
        early: dict[int, Any] = {}
        due = 0
        for number, result in self.map(shared, items):
            early[number] = result
            while due in early:
                yield early.pop(due)
                due += 1


def _connect(address: str) -> None:
    """Join the cluster; a busy one that does not start a server for us in time is asked again."""
    ray, util = library("ray"), library("ray.util")
    host, _, port = address.removeprefix("ray:").removeprefix("//").rpartition(":")
    try:  # Ray itself would wait for minutes
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise InputError(f"{address}: no cluster there ({error})") from None
    plain = address if address.startswith("ray://") else address.removeprefix("ray:")
    for attempt in range(1, CONNECT_ATTEMPTS + 1):
        try:
            ray.init(address=plain, log_to_driver=False, logging_level=logging.ERROR)
            return
        except (ConnectionError, RuntimeError) as error:
            util.disconnect()  # a half-made connection would answer for the next one
            if attempt == CONNECT_ATTEMPTS:
                reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
                text = f"{address}: the cluster did not let us in ({reason})"
                raise InputError(text) from None
