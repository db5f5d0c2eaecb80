"""The client of a served model: an event loop in a thread, fed and awaited by plain calls.

A call waits in the schedule until an endpoint's limits, its concurrency and the budget admit it.
Its place is free as soon as the answer is read; the answer is used once the journal has it.
"""

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import aiohttp

from spyhop.models.base import Choice, Kind, Reply, Request, Sampling
from spyhop.models.commits import Commits
from spyhop.models.endpoint_state import EndpointState, Reservation
from spyhop.models.journal import Answered, Failed, Journal, State
from spyhop.models.limits import SPAN_S
from spyhop.models.retry import Decision, RetryPolicy
from spyhop.models.schedule import Admission, PendingBatch, PendingCall, Rejected, Schedule, grouped
from spyhop.models.service import Service
from spyhop.models.wire import (
    MESSAGE_CHARS,
    Failure,
    body,
    parse,
    read_choice,
    read_failure,
    read_reply,
    share,
)
from spyhop.schema import Unfinished
from spyhop.settings import mask_secret

try:
    from uvloop import new_event_loop
except ImportError:  # there is none for Windows
    from asyncio import new_event_loop  # type: ignore[assignment]

DRAIN_S = 30.0
"""A run that is asked to stop waits this long for replies in flight, which are paid for."""
FIRST_CEILING = 16
BEAT_S = 0.5
CONNECT_S = 30.0
MOST_UNCOMMITTED = 1000
"""Answers that wait for the journal; with more, nothing is sent until it has caught up."""


@dataclass(slots=True)
class ReplyCounts:
    """What happened since the client was opened."""

    num_answered: int = 0
    usd: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    num_maybe_billed: int = 0


class _Settled(NamedTuple):
    batch: PendingBatch
    key: str
    result: str | None
    left: str = ""
    is_failed: bool = False


class EndpointClient:
    """Asks a served model over all its endpoints. Owns the journal for as long as it is open.

    Raises:
        ModelError: If a key's variable is not set.
    """

    def __init__(
        self,
        model: str,
        extra: Mapping[str, Any],
        omit: Sequence[str],
        service: Service,
        journal: Journal,
    ) -> None:
        self.counts = ReplyCounts()
        self.endpoints = [EndpointState(endpoint, model) for endpoint in service.endpoints]
        self._headers = {id(endpoint): endpoint.headers() for endpoint in self.endpoints}
        self._extra, self._omit, self._service = extra, omit, service
        self.last = journal.state()
        has_limits = any(endpoint.limiters for endpoint in self.endpoints)
        self.hold_s = self.last.rest_s(SPAN_S + 2 * BEAT_S) if has_limits else 0.0
        self.state = State(is_closed=False, spent_usd=self.last.spent_usd)
        if not self.last.is_closed:  # what was in flight may have been billed
            self.state.spent_usd += self.last.reserved_usd
        self._schedule = Schedule(self.endpoints, service.budget_usd, self.state)
        self._journal = journal.beside()
        self._commits = Commits[_Settled](journal, self.state, self._committed, self._broken)
        self._timer: tuple[float, asyncio.Handle] | None = None
        self._tasks: dict[asyncio.Task[None], float] = {}
        """Requests in flight, and when they are given up."""
        self._waiting: list[PendingBatch] = []
        self._num_uncommitted = self._num_sent = self._num_told = 0
        self._error: BaseException | None = None
        self._is_broken = self._is_abandoned = False
        self._policy = RetryPolicy(
            service.max_attempts, service.patience_s, is_proven=not journal.is_empty()
        )
        self._answered_at = 0.0
        self._loop = new_event_loop()
        self._is_up, self._is_idle = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="endpoints", daemon=True)
        self._thread.start()
        self._is_up.wait()

    # ------------------------------------------------------------ called by the stage's thread

    def ask(
        self, kind: Kind, sampling: Sampling, keyed: Sequence[tuple[str, Request]]
    ) -> PendingBatch:
        """Hand over requests by key; `PendingBatch.done` is set when all of them are settled."""
        batch = PendingBatch(num_pending=len(keyed))
        most = (
            min(endpoint.config.max_n for endpoint in self.endpoints) if kind == "generate" else 1
        )
        calls = grouped(kind, sampling, keyed, most, batch)
        self._loop.call_soon_threadsafe(self._submit, batch, calls)
        return batch

    def shares(self) -> list[str]:
        """Return how much of each limit is in use, and of the places in flight."""
        now, notes = self._loop.time(), []
        for name in sorted({name for endpoint in self.endpoints for name in endpoint.limiters}):
            parts = [
                endpoint.limiters[name].share(now)
                for endpoint in self.endpoints
                if name in endpoint.limiters
            ]
            notes.append(f"{name} {sum(parts) / len(parts):.0%}")
        allowed = sum(int(endpoint.concurrency.allowed) for endpoint in self.endpoints)
        return [*notes, f"{self._schedule.num_in_flight} of {allowed} in flight"]

    def stop(self, grace_s: float = DRAIN_S) -> None:
        """Send nothing more, and take in what is on its way; interrupted, leave it."""
        self._loop.call_soon_threadsafe(self._end, Unfinished("stopped; run again to go on"))
        try:
            self._is_idle.wait(0.0 if self._is_abandoned else grace_s)
        except KeyboardInterrupt:
            self._is_abandoned = True
            raise

    def close(self) -> None:
        """End, leaving in the journal what the next run must know.

        Answers on their way are taken in; the next run is told how many were abandoned.
        """
        self.stop()
        self._loop.call_soon_threadsafe(self._finish)
        self._thread.join()
        self.state.is_closed = not self._schedule.num_in_flight
        self._commits.close()
        self._journal.close()

    # ------------------------------------------------------------ in the thread of the event loop

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        now = self._loop.time()
        self._answered_at = now + self.hold_s
        for endpoint in self.endpoints:
            if endpoint.limiters:
                endpoint.paused_until = now + self.hold_s
            for name, limiter in endpoint.limiters.items():
                held = self.last.held.get(f"{endpoint.url} {name}", [])
                away_s = max(0.0, time.time() - self.last.at)
                limiter.load([(age + away_s, amount) for age, amount in held], now)
        self._proxies = {id(endpoint): endpoint.proxy for endpoint in self.endpoints}
        self._finished = asyncio.Event()
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        ) as self._session:
            self._is_up.set()
            self._beat()
            await self._finished.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        now = self._loop.time()
        self.state.held = {
            f"{endpoint.url} {name}": limiter.dump(now)
            for endpoint in self.endpoints
            for name, limiter in endpoint.limiters.items()
        }

    def _beat(self) -> None:
        """Give up what takes too long; have the journal know when something was last sent.

        Every half second for all requests: a timer for each would cost as much as its parsing.
        """
        now = self._loop.time()
        for task in [task for task, end in self._tasks.items() if now > end]:
            task.cancel()
        if self._num_sent != self._num_told:
            self._num_told = self._num_sent
            self._commit([], [], [])
        self._loop.call_later(BEAT_S, self._beat)

    def _submit(self, batch: PendingBatch, calls: list[PendingCall]) -> None:
        if not calls or self._error:
            batch.error = self._error
            batch.done.set()
            return
        if not self._waiting:
            self._answered_at = max(self._answered_at, self._loop.time())
        self._waiting.append(batch)
        self._schedule.add(calls)
        self._dispatch()

    def _dispatch(self) -> None:
        """Send what may be sent now; wake up again when more may."""
        try:
            self._send_all()
        except Exception as error:  # noqa: BLE001 (the edge of a thread: somebody waits)
            self._end(error)

    def _send_all(self) -> None:
        while not self._error and self._num_uncommitted < MOST_UNCOMMITTED:
            self._raise_ceiling()
            found = self._schedule.take(self._loop.time())
            if isinstance(found, Admission):
                task = self._loop.create_task(self._send(found))
                timeout_s = found.endpoint.config.timeout_s
                self._tasks[task] = found.reservation.sent + timeout_s
                task.add_done_callback(self._sent)
            elif isinstance(found, Rejected):
                self._give_up(found.call, Failure("rejected", found.reason), None)
            else:
                self._wake_at(found)
                self._judge_pause()
                return

    def _sent(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()):
            self._is_broken = True
            self._end(error)

    def _raise_ceiling(self) -> None:
        """Have the journal know how many requests may be out before so many are."""
        if self._schedule.num_in_flight + self._num_uncommitted >= self.state.ceiling:
            self.state.ceiling = max(FIRST_CEILING, 2 * self.state.ceiling)
            self._journal.commit([], [], self.state)

    def _wake_at(self, when: float) -> None:
        if when == math.inf:
            return
        if self._timer is not None:
            if self._timer[0] <= when:
                return
            self._timer[1].cancel()
        self._timer = (when, self._loop.call_at(when, self._wake))

    def _wake(self) -> None:
        self._timer = None
        self._dispatch()

    async def _send(self, admission: Admission) -> None:
        call, endpoint, reservation = admission.call, admission.endpoint, admission.reservation
        call.num_sent += 1
        self._num_sent += 1
        failure: Failure | None = None
        try:
            status, headers, raw = await self._post(call, endpoint)
            if status != 200:
                failure = read_failure(status, headers, self._without_keys(raw), datetime.now(UTC))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            failure = Failure("lost", f"cannot be reached: {error}")
        except asyncio.CancelledError:
            if self._finished.is_set():
                raise
            reason = f"no answer within timeout_s = {endpoint.config.timeout_s:g}"
            failure = Failure("lost", reason, is_maybe_billed=True, is_overrun=True)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = f"the connection broke: {type(error).__name__} {error}"
            failure = Failure("lost", reason, is_maybe_billed=True)
        self._schedule.release(reservation)
        if failure is None:
            self._received(call, endpoint, reservation, headers, raw)
        else:
            self._failed(call, endpoint, reservation, failure)
        self._dispatch()
        self._check_idle()

    async def _post(
        self, call: PendingCall, endpoint: EndpointState
    ) -> tuple[int, Mapping[str, str], bytes]:
        data = body(
            call.kind,
            call.members[0][1],
            call.sampling,
            model=endpoint.model,
            extra=self._extra,
            omit=self._omit,
            num_samples=len(call.members),
            tokens_field=endpoint.config.tokens_field,
        )
        async with self._session.post(
            endpoint.url,
            data=aiohttp.BytesPayload(data),  # plain bytes cost aiohttp a search for their kind
            headers=self._headers[id(endpoint)],
            proxy=self._proxies[id(endpoint)],
            allow_redirects=False,
        ) as response:
            return response.status, response.headers, await response.read()

    def _received(
        self,
        call: PendingCall,
        endpoint: EndpointState,
        reservation: Reservation,
        headers: Mapping[str, str],
        raw: bytes,
    ) -> None:
        try:
            choices, usage = parse(raw, len(call.members), reservation.estimate.prompt_tokens)
        except ValueError as error:
            got = self._without_keys(raw)[:MESSAGE_CHARS].decode(errors="replace")
            reason = f"not an answer ({error}): {got!r}"
            malformed = Failure("malformed", reason, 200, is_maybe_billed=True)
            self._failed(call, endpoint, reservation, malformed)
            return
        now = self._answered_at = self._loop.time()
        self._policy.is_proven = True
        usd = endpoint.answered(reservation, usage, headers, now)
        if usage.is_counted and call.size is not None:
            self._schedule.guess.learn(call.size, usage.prompt_tokens)
        self.state.spent_usd += usd
        self.counts.usd += usd
        self.counts.num_answered += len(choices)
        how = (endpoint.config.url, call.num_sent, now - reservation.sent, time.time())
        answered, settled = [], []
        parts = share(usage, len(choices))
        make = read_choice if call.kind == "choose" else read_reply
        for (key, request), found, part in zip(call.members, choices, parts, strict=False):
            text = make(request, found, part, usd / len(choices)).model_dump_json()
            answered.append(Answered(key, text, *how))
            settled.append(_Settled(call.batch, key, text))
        self._commit(answered, [], settled)
        if rest := call.members[len(choices) :]:  # fewer samples came than were requested
            self._schedule.put_back(PendingCall(call.kind, call.sampling, rest, call.batch))

    def _failed(
        self, call: PendingCall, endpoint: EndpointState, reservation: Reservation, failure: Failure
    ) -> None:
        now = self._loop.time()
        endpoint.failed(reservation, failure, now)
        self.counts.failures[failure.kind] += 1
        if failure.is_maybe_billed:
            self.counts.num_maybe_billed += 1
            self.state.spent_usd += reservation.most_usd
        call.avoid = endpoint
        how = (endpoint.config.url, call.num_sent, now - reservation.sent, time.time())
        message = " ".join(failure.message.split())
        row = Failed(call.members[0][0], failure.kind, message, *how, failure.is_maybe_billed)
        is_large = not endpoint.fits(reservation.estimate)
        self._settle(call, failure, row, self._policy.decide(call, failure, is_large=is_large))
        if error := self._policy.stop(failure, endpoint.advice(failure), now - self._answered_at):
            self._end(error)

    def _settle(
        self, call: PendingCall, failure: Failure, row: Failed | None, decision: Decision
    ) -> None:
        if decision.action == "give_up":
            self._give_up(call, failure, row)
            return
        is_left = decision.action == "leave"
        left = [_Settled(call.batch, key, None, failure.kind) for key, _ in call.members]
        self._commit([], [row] if row else [], left if is_left else [])
        if decision.action == "next":
            self._schedule.put_back(call)
        elif decision.action == "last":
            self._schedule.add([call])
        elif decision.action == "retry":
            self._loop.call_later(decision.delay_s, self._again, call)

    def _judge_pause(self) -> None:
        """End where every endpoint asks for more patience than there is."""
        if self._schedule.num_in_flight or not self._schedule:
            return
        rest_s = min(endpoint.paused_until for endpoint in self.endpoints) - self._answered_at
        if error := self._policy.stop_waiting(rest_s):
            self._end(error)

    def _again(self, call: PendingCall) -> None:
        self._schedule.put_back(call)
        self._dispatch()

    def _give_up(self, call: PendingCall, failure: Failure, row: Failed | None) -> None:
        """Settle a call that will never be answered: its result is an error, kept as data."""
        reason = "content_filter" if failure.kind == "refused" else "error"
        message = " ".join(failure.message.split())
        settled = []
        for key, request in call.members:
            result: Reply | Choice = Choice(id=request.id, probabilities=[], error=message)
            if call.kind == "generate":
                result = Reply(id=request.id, text="", finish_reason=reason, error=message)
            settled.append(_Settled(call.batch, key, result.model_dump_json(), is_failed=True))
        self._commit([], [row] if row else [], settled)

    def _without_keys(self, raw: bytes) -> bytes:
        """Take out keys that a server repeats, before anything is cut or kept."""
        for endpoint in self.endpoints:
            raw = mask_secret(raw, endpoint.key, endpoint.config.key_env or "")
        return raw

    def _commit(
        self, answered: list[Answered], failed: list[Failed], settled: list[_Settled]
    ) -> None:
        self._num_uncommitted += len(settled)
        self._commits.add(answered, failed, settled)

    def _end(self, error: BaseException) -> None:
        """Send nothing more; all who wait are released once the last reply is in."""
        self._error = self._error or error
        self._check_idle()

    def _check_idle(self) -> None:
        if not self._error or self._schedule.num_in_flight:
            return
        if self._num_uncommitted and not self._is_broken:
            return
        for batch in self._waiting:
            batch.error = self._error
            batch.done.set()
        self._waiting.clear()
        self._is_idle.set()

    def _finish(self) -> None:
        self._error = self._error or Unfinished("closed")
        self._finished.set()

    def _after_commit(self, num: int) -> None:
        self._num_uncommitted -= num
        self._waiting = [batch for batch in self._waiting if not batch.done.is_set()]
        self._dispatch()
        self._check_idle()

    # ------------------------------------------------------------ in the thread of the journal

    def _committed(self, settled: list[_Settled]) -> None:
        for each in settled:
            batch = each.batch
            if each.result is None:
                batch.left[each.left] += 1
            else:
                batch.results[each.key] = each.result
                if each.is_failed:
                    batch.failed.add(each.key)
            batch.num_pending -= 1
            if not batch.num_pending:
                batch.done.set()
        self._tell(self._after_commit, len(settled))

    def _broken(self, error: Exception) -> None:
        self._is_broken = True
        self._tell(self._end, error)

    def _tell(self, function: Any, value: Any) -> None:  # noqa: ANN401 (any callback of one value)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, value)
