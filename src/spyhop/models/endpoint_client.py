"""The client of a served model: an event loop in a thread, fed and awaited by plain calls.

A call waits in the schedule until an endpoint's limits, its concurrency and the budget admit it.
Its reply is used once the journal has it; until then it counts towards the endpoint's concurrency,
so that no more requests than that can be lost, and billed twice, when the process is killed.
"""

import asyncio
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

from spyhop.models.calls import KeyedRequests, Kind, Reply, Sampling
from spyhop.models.dialect import DIALECTS, NOTHING_SHARED, ApiCall, group_of, shared_parts
from spyhop.models.endpoint_state import EndpointState
from spyhop.models.failures import MESSAGE_CHARS, Failure
from spyhop.models.journal import Answered, Commits, Failed, Journal
from spyhop.models.limits import FIRST_ALLOWED, SPAN_S
from spyhop.models.replicas import Replicas
from spyhop.models.replies import READERS, Unreadable, failed_result, parse_call, share
from spyhop.models.schedule import (
    Admission,
    PendingBatch,
    PendingCall,
    Rejected,
    Remedy,
    ReplyCounts,
    RetryPolicy,
    Schedule,
    grouped,
)
from spyhop.models.service import Service
from spyhop.models.transport import HttpReply, Transport
from spyhop.schema import Unfinished

try:
    from uvloop import new_event_loop
except ImportError:  # there is none for Windows
    from asyncio import new_event_loop  # type: ignore[assignment]

DRAIN_S = 30.0
"""A run that is asked to stop waits this long for replies in flight, which are paid for."""
FIRST_CEILING = 16
BEAT_S = 0.5
PAUSED_S = 3.0
"""A longer time between two beats means that the process was stopped, and its clock went on."""
HEADROOM = 1.25
"""What the journal is told may be in flight, as a multiple of what is."""
_AT_ONCE: tuple[Remedy, Exception | None] = (0.0, None)


class _Settled(NamedTuple):
    batch: PendingBatch
    key: str
    result: str | None
    left: str = ""
    is_failed: bool = False
    received: Admission | None = None
    """The call that a reply came to; its slot and its reserve are free once it is committed."""


class EndpointClient:
    """Asks a served model over all its endpoints. Owns the journal for as long as it is open."""

    def __init__(
        self, model: str, extra: Mapping[str, Any], omit: Sequence[str], service: Service,
        journal: Journal,
    ) -> None:  # fmt: skip
        self.counts = ReplyCounts()
        self.on_text: Callable[[str], bool] | None = None  # of conversations: receives the text
        self.last = journal.state()
        fixed = [endpoint for endpoint in service.endpoints if not endpoint.urls]
        folders = [endpoint for endpoint in service.endpoints if endpoint.urls]
        self.endpoints = [EndpointState(endpoint, model) for endpoint in fixed]
        self._replicas = Replicas(folders, model, self.endpoints, self._begin, self._dispatch)
        self._transport = Transport(self.endpoints)
        self._service, self._extra, self._omit = service, extra, omit
        has_limits = any(endpoint.limits for endpoint in service.endpoints)
        self.hold_s = self.last.rest_s(SPAN_S + 2 * BEAT_S) if has_limits else 0.0
        self.state = self.last.taken_over()
        self._schedule = Schedule(self.endpoints, service.budget_usd, self.state)
        self._journal = journal.beside()
        self._timer: tuple[float, asyncio.Handle] | None = None
        self._tasks: dict[asyncio.Task[None], tuple[float, EndpointState]] = {}
        """Requests in flight, when they are given up, and where they were sent."""
        self._waiting: list[PendingBatch] = []
        self._num_sent = self._num_told = self._num_unsettled = 0
        self._beat_at = 0.0
        self._error: BaseException | None = None
        self._is_broken = self._is_abandoned = False
        self._policy = RetryPolicy(
            service.max_attempts,
            service.patience_s,
            frozenset(service.finish_reasons),
            is_proven=not journal.is_empty(),
        )
        self._answered_at = 0.0
        self._loop = new_event_loop()
        soon = self._loop.call_soon_threadsafe
        self._commits = Commits[_Settled](
            journal, self.state, partial(soon, self._committed), partial(soon, self._broken)
        )
        self._is_up, self._is_idle = threading.Event(), threading.Event()
        serving = self._loop.run_until_complete
        self._thread = threading.Thread(
            target=lambda: serving(self._serve()), name="endpoints", daemon=True
        )
        self._thread.start()
        self._is_up.wait()

    # ------------------------------------------------------------ called by the stage's thread

    def ask(self, kind: Kind, sampling: Sampling, keyed: KeyedRequests) -> PendingBatch:
        """Hand over requests by key; `PendingBatch.done` is set when all of them are settled."""
        batch = PendingBatch(num_pending=len(keyed))
        endpoints = self._service.endpoints
        most = min(endpoint.max_n for endpoint in endpoints) if kind == "generate" else 1
        calls = grouped(kind, sampling, keyed, most, batch)
        if any(DIALECTS[endpoint.api].marks_cache for endpoint in endpoints):
            parts = shared_parts(request for _, request in keyed)
            for call in calls:
                call.shared = parts.get(group_of(call.members[0][1]), NOTHING_SHARED)
        self._loop.call_soon_threadsafe(self._submit, batch, calls)
        return batch

    def shares(self) -> list[str]:
        """Return how much of each limit is in use, and of the places in flight."""
        shares = defaultdict[str, list[float]](list)
        for endpoint in self.endpoints:
            for name, limiter in endpoint.limiters.items():
                shares[name].append(limiter.share(self._loop.time()))
        notes = [f"{name} {fmean(parts):.0%}" for name, parts in sorted(shares.items())]
        allowed = sum(int(endpoint.concurrency.allowed) for endpoint in self.endpoints)
        notes.append(f"{self._schedule.num_in_flight} of {allowed} in flight")
        return [*notes, str(self._replicas)] if self._replicas else notes

    def stop(self, grace_s: float = DRAIN_S) -> None:
        """Send nothing more, and take in what is on its way; interrupted, leave it."""
        self._loop.call_soon_threadsafe(self._end, Unfinished("stopped; run again to resume"))
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
        self._loop.call_soon_threadsafe(self._finished.set)
        self._thread.join()
        self.state.is_closed = not self._schedule.num_in_flight
        self._commits.close()
        self._journal.close()
        self._loop.close()

    # ------------------------------------------------------------ in the thread of the event loop

    async def _serve(self) -> None:
        now = self._loop.time()
        self._answered_at = self._held_until = now + self.hold_s
        for endpoint in self.endpoints:
            self._begin(endpoint)
        self._finished = asyncio.Event()
        self._beat_at = now
        async with self._transport:
            self._is_up.set()
            self._beat()
            watch = self._loop.create_task(self._replicas.run(self._transport))
            watch.add_done_callback(self._sent)
            await self._finished.wait()
            for task in (watch, *self._tasks):
                task.cancel()
            await asyncio.gather(watch, *self._tasks, return_exceptions=True)
        now = self._loop.time()
        self.state.held = {
            f"{endpoint.url} {name}": limiter.dump(now)
            for endpoint in self.endpoints
            for name, limiter in endpoint.limiters.items()
        }

    def _begin(self, endpoint: EndpointState) -> None:
        """Start an endpoint from what the last run knew of it, or the other replicas bear now."""
        folder, level = endpoint.config.urls, self.last.levels.get(endpoint.url, FIRST_ALLOWED)
        alike = [each for each in self.endpoints if folder and each.config.urls == folder]
        endpoint.concurrency.begin_at(max([level, *(e.concurrency.level for e in alike)]))
        if endpoint.limiters:
            endpoint.paused_until = self._held_until
        for name, limiter in endpoint.limiters.items():
            held = self.last.held.get(f"{endpoint.url} {name}", [])
            away_s = max(0.0, time.time() - self.last.at)
            limiter.load([(age + away_s, amount) for age, amount in held], self._loop.time())

    def _beat(self) -> None:
        """Give up what takes too long; have the journal know when something was last sent.

        Every half second for all requests: a timer for each would cost as much as its parsing.
        While the process was stopped nobody read the replies that wait in its sockets, so that time
        counts for no request.
        """
        now = self._loop.time()
        if (stopped_s := now - self._beat_at) > PAUSED_S:
            self._tasks = {
                task: (end + stopped_s, where) for task, (end, where) in self._tasks.items()
            }
            self._answered_at += stopped_s
        self._beat_at = now
        self.state.levels = self.state.levels | {
            each.url: each.concurrency.level for each in self.endpoints
        }
        for task, (end, endpoint) in list(self._tasks.items()):
            if now > end or endpoint.is_lost:
                task.cancel()
        if self._num_sent != self._num_told:
            self._num_told = self._num_sent
            self._commit([], [], [])
        self._judge_pause()
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
            while not self._error:
                found = self._schedule.take(self._loop.time())
                if isinstance(found, Admission):
                    self._start(found)
                elif isinstance(found, Rejected):
                    self._give_up(found.call, Failure("rejected", found.reason), [])
                else:
                    self._wake_at(found)
                    self._judge_pause()
                    return
        except Exception as error:  # noqa: BLE001 (the edge of a thread: somebody waits)
            self._end(error)

    def _start(self, admission: Admission) -> None:
        """Send a call, once the journal knows what may be in flight, and cost."""
        endpoint, reservation = admission.endpoint, admission.reservation
        num, usd = self._schedule.num_open, self.state.reserved_usd
        if num > self.state.ceiling or usd > self.state.ceiling_usd:
            most = sum(each.concurrency.most for each in self.endpoints)
            self.state.ceiling = min(most, max(FIRST_CEILING, math.ceil(HEADROOM * num)))
            self.state.ceiling_usd = max(self.state.ceiling_usd, HEADROOM * usd)
            try:
                self._journal.commit([], [], self.state)
            except BaseException:
                endpoint.concurrency.in_flight -= 1  # it is not sent
                self._schedule.release(reservation)
                raise
        task = self._loop.create_task(self._send(admission))
        self._tasks[task] = reservation.sent + endpoint.config.timeout_s, endpoint
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()):
            self._broken(error)

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
        call, endpoint, _ = admission
        call.num_sent += 1
        self._num_sent += 1
        asked = ApiCall(
            call.kind, call.members[0][1], call.sampling, endpoint.model, len(call.members),
            endpoint.config.tokens_field, call.shared,
        )  # fmt: skip
        extra = {**endpoint.dialect.streamed, **self._extra} if self.on_text else self._extra
        body = endpoint.dialect.body(asked, extra, self._omit)
        try:
            found = await self._transport.post(endpoint, body, self.on_text)
        except asyncio.CancelledError as error:
            if self._finished.is_set():
                raise
            reason = f"no reply within timeout_s = {endpoint.config.timeout_s:g}"
            if endpoint.is_lost:
                reason = "the replica failed its health checks"
            is_written = bool(error.args and error.args[0])
            is_overrun = not endpoint.is_lost
            found = Failure("lost", reason, is_maybe_billed=is_written, is_overrun=is_overrun)
        if isinstance(found, HttpReply):
            self._received(admission, found)
        else:
            self._failed(admission, found)
        self._dispatch()
        self._check_idle()

    def _received(self, admission: Admission, reply: HttpReply) -> None:
        call, endpoint, reservation = admission
        try:
            choices, usage = parse_call(
                reply.raw, call.kind, [request for _, request in call.members],
                reservation.estimate.prompt_tokens, endpoint.dialect.read,
            )  # fmt: skip
        except Unreadable as error:
            failure = error.failure
            if failure.kind == "malformed":
                got = reply.raw[:MESSAGE_CHARS].decode(errors="replace")
                failure = replace(failure, message=f"not a reply ({failure.message}): {got!r}")
            self._failed(admission, failure)
            return
        now = self._answered_at = self._loop.time()
        self.counts.answered_at = time.monotonic()
        self._policy.answered()
        usd = endpoint.answered(reservation, usage, reply.headers, now)
        endpoint.concurrency.num_uncommitted += 1
        if usage.is_counted and call.size is not None:
            self._schedule.guess.learn(call.size, usage.prompt_tokens)
        self.state.spent_usd += usd
        self.counts.usd += usd
        self.counts.prompt_tokens += usage.prompt_tokens
        self.state.prompt_tokens += usage.prompt_tokens
        self.state.cached_tokens += usage.cached_tokens
        self.counts.response_tokens += usage.response_tokens
        self.counts.num_answered += len(choices)
        how = (endpoint.config.url, call.num_sent, now - reservation.sent, time.time())
        answered, settled, is_escaped = [], [], b"\\u" in reply.raw
        parts = share(usage, len(choices))
        for (key, request), choice, part in zip(call.members, choices, parts, strict=False):
            result = READERS[call.kind](request, choice, part, usd / len(choices))
            text = result.model_dump_json()
            if is_escaped:  # a key may be spelled in escapes
                text = self._transport.masked(text.encode()).decode()
            answered.append(Answered(key, text, *how))
            settled.append(_Settled(call.batch, key, text))
            if isinstance(result, Reply):
                self._end(self._policy.judge_reason(endpoint.config.url, result.finish_reason))
        settled[0] = settled[0]._replace(received=admission)
        self._commit(answered, [], settled)
        if rest := call.members[len(choices) :]:  # fewer samples came than were requested
            self._schedule.put_back(PendingCall(call.kind, call.sampling, rest, call.batch))

    def _failed(self, admission: Admission, failure: Failure) -> None:
        call, endpoint, reservation = admission
        now = self._loop.time()
        self._schedule.release(reservation)
        endpoint.failed(reservation, failure, now)
        if failure.kind == "lost":
            self._replicas.suspect(endpoint)
        self.counts.failures[failure.kind] += 1
        if failure.is_maybe_billed:
            usd = endpoint.config.usd(*failure.usage) if failure.usage else reservation.most_usd
            self.state.num_maybe_billed += 1
            self.state.reserve(usd)
        call.avoid = endpoint
        how = (endpoint.config.url, call.num_sent, now - reservation.sent, time.time())
        advice = self.counts.last_failure = endpoint.advice(failure)
        key, _ = call.members[0]
        rows = [Failed(key, failure.kind, failure.line, *how, failure.is_maybe_billed)]
        remedy, ending = _AT_ONCE
        if self.on_text and "stream" in failure.line:  # refused; the reply may still come whole
            self.on_text = None
        else:
            remedy, ending = self._policy.judge(
                call, failure, advice, now - self._answered_at,
                is_large=not endpoint.fits(reservation.estimate),
            )  # fmt: skip
        if remedy == "give_up":
            self._give_up(call, failure, rows)
        elif remedy == "leave":
            left = [_Settled(call.batch, key, None, failure.kind) for key, _ in call.members]
            self._commit([], rows, left)
        else:
            self._commit([], rows, [])
            if remedy == "last":
                self._schedule.add([call])
            elif isinstance(remedy, float):
                self._loop.call_later(remedy, self._again, call)
        self._end(ending)

    def _judge_pause(self) -> None:
        """End where every endpoint asks for more patience than there is, or all are down."""
        if self._schedule.num_in_flight or not self._schedule:
            return
        up = [endpoint.paused_until for endpoint in self.endpoints if endpoint.is_up]
        until, what = min(up, default=self._loop.time()), "all endpoints rest for"
        if not up:
            where = ", ".join(each.address for each in self._service.endpoints)
            self.counts.last_failure, what = f"{where}: {self._replicas}", "no reply for"
        silent_s, cause = until - self._answered_at, self.counts.last_failure
        self._end(self._policy.stop_silent(silent_s, cause, what))

    def _again(self, call: PendingCall) -> None:
        self._schedule.put_back(call)
        self._dispatch()

    def _give_up(self, call: PendingCall, failure: Failure, rows: list[Failed]) -> None:
        """Settle a call that will never be answered: its result is an error, kept as data."""
        settled = [
            _Settled(call.batch, key, failed_result(call.kind, request.id, failure), is_failed=True)
            for key, request in call.members
        ]
        self._commit([], rows, settled)

    def _commit(
        self, answered: list[Answered], failed: list[Failed], settled: list[_Settled]
    ) -> None:
        self._num_unsettled += len(settled)
        self._commits.add(answered, failed, settled)

    def _end(self, error: BaseException | None) -> None:
        """Send nothing more if there is an error; release all who wait after the last reply."""
        self._error = self._error or error
        self._check_idle()

    def _check_idle(self) -> None:
        if not self._error or self._schedule.num_in_flight:
            return
        if self._num_unsettled and not self._is_broken:
            return
        for batch in self._waiting:
            batch.error = self._error
            batch.done.set()
        self._waiting.clear()
        self._is_idle.set()

    def _committed(self, settled: list[_Settled]) -> None:
        self._num_unsettled -= len(settled)
        for batch, key, result, left, is_failed, received in settled:
            if result is None:
                batch.left[left] += 1
                batch.cause = self.counts.last_failure
            else:
                batch.results[key] = result
                if is_failed:
                    batch.failed.add(key)
            batch.num_pending -= 1
            if not batch.num_pending:
                batch.done.set()
            if received is not None:
                received.endpoint.concurrency.num_uncommitted -= 1
                self._schedule.release(received.reservation)
        self._waiting = [batch for batch in self._waiting if not batch.done.is_set()]
        self._dispatch()
        self._check_idle()

    def _broken(self, error: BaseException) -> None:
        self._is_broken = True
        self._end(error)
