"""Decide which call goes where, when, and what follows a failure. Uses no network and no clock."""

import math
import random
import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from spyhop.models.calls import KeyedRequests, Kind, Request, Sampling
from spyhop.models.dialect import CHOICE_TOKENS, NOTHING_SHARED, SharedPart, scored_texts
from spyhop.models.endpoint_state import EndpointState, Reservation, TokenEstimate
from spyhop.models.failures import NO_CREDIT, Failure
from spyhop.models.guess import LEAST_PER_BYTE, Size, TokenGuess, measure
from spyhop.models.journal import State
from spyhop.schema import ModelError, Unfinished, is_known_reason

Endpoints = Sequence[EndpointState]
HOPELESS_REJECTIONS = 20
"""First requests that are all rejected: the settings are wrong, not the requests."""
RETRY_S, LONGEST_RETRY_S = 0.2, 60.0
PATIENT_THROTTLES = 4
HOPELESS_FATAL = 20
"""Statuses about the key or the address, one after the other, on a key that has had replies."""
HOPELESS_PAGES, HOPELESS_PAGES_PROVEN = 5, 20
"""Web pages in place of replies, one after the other."""
FIRST_REASONS = 50
"""Replies of an endpoint whose finish reasons are checked."""


@dataclass(slots=True, eq=False)
class PendingBatch:
    """A submitted batch and its results so far."""

    num_pending: int
    results: dict[str, str] = field(default_factory=dict)
    """By key, permanent failures included."""
    failed: set[str] = field(default_factory=set)
    """Keys of permanent failures: the journal does not hold their results."""
    left: Counter[str] = field(default_factory=Counter)
    """Requests left for the next run, by the kind of their last failure."""
    cause: str = ""
    """The last failure in words."""
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class ReplyCounts:
    """What happened since the client was opened."""

    num_answered: int = 0
    prompt_tokens: int = 0
    response_tokens: int = 0
    usd: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    last_failure: str = ""
    """Address and reason of the last failed attempt."""
    answered_at: float = 0.0
    """When the last reply came, or the first request was sent (`time.monotonic`)."""


@dataclass(slots=True)
class PendingCall:
    """One HTTP request, for one sample of a prompt or several."""

    kind: Kind
    sampling: Sampling
    members: list[tuple[str, Request]]
    """(key, request) of each sample."""
    batch: PendingBatch
    size: Size | None = None
    """Of its messages; known once it is first in the queue."""
    shared: SharedPart = NOTHING_SHARED
    """Of its prompt, with other prompts of the stage."""
    num_sent: int = 0
    num_failures: int = 0
    num_throttled: int = 0
    avoid: EndpointState | None = None
    """The endpoint that failed it last."""


class Admission(NamedTuple):
    """A call to send now."""

    call: PendingCall
    endpoint: EndpointState
    reservation: Reservation


class Rejected(NamedTuple):
    """A call that exceeds every endpoint's limits."""

    call: PendingCall
    reason: str


class Schedule:
    """One queue for all endpoints of a model; the first call in it goes first.

    Every admission is within all limits of its endpoint and within the budget, counting what is in
    flight at its highest price.
    """

    def __init__(self, endpoints: Endpoints, budget_usd: float | None, state: State) -> None:
        self.endpoints = endpoints
        self.guess = TokenGuess()
        self._budget_usd = math.inf if budget_usd is None else budget_usd
        self._state = state
        self._queue: deque[PendingCall] = deque()
        self._turn = 0.0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def num_in_flight(self) -> int:
        """Calls that were sent and not answered."""
        return sum(endpoint.concurrency.in_flight for endpoint in self.endpoints)

    @property
    def num_open(self) -> int:
        """Calls that were sent and whose reply is not in the journal yet."""
        return self.num_in_flight + sum(each.concurrency.num_uncommitted for each in self.endpoints)

    def add(self, calls: Iterable[PendingCall]) -> None:
        """Take calls, to go last."""
        self._queue.extend(calls)

    def put_back(self, call: PendingCall) -> None:
        """Take a call, to go next."""
        self._queue.appendleft(call)

    def take(self, now: float) -> Admission | Rejected | float:
        """Return the next call if it may be sent, else when to look again.

        Infinity stands for "when an answer comes, or another call".

        Raises:
            Unfinished: If the budget has no room for it and nothing in flight could make any.
        """
        if not self._queue:
            return math.inf
        up = [endpoint for endpoint in self.endpoints if endpoint.is_up]
        room_at = min((endpoint.concurrency.room_at(now) for endpoint in up), default=math.inf)
        if room_at > now:
            return room_at
        call = self._queue[0]
        try:
            estimate = self._need(call)
        except UnicodeEncodeError as error:
            self._queue.popleft()
            return Rejected(call, f"the prompt is no valid Unicode ({error.reason})")
        able = [endpoint for endpoint in self.endpoints if endpoint.fits(estimate)]
        if not able:  # the guess may be wrong: only what is sure may turn a call away
            assert call.size is not None
            least = estimate._replace(prompt_tokens=int(call.size.num_bytes * LEAST_PER_BYTE))
            able = [endpoint for endpoint in self.endpoints if endpoint.fits(least)]
            if not able:
                self._queue.popleft()
                return Rejected(call, _too_large(least, self.endpoints))
        payable = able
        if self._budget_usd < math.inf:
            spent = self._state.bound_usd
            prices = [endpoint.config.most_usd(*estimate) for endpoint in able]
            payable = [
                endpoint
                for endpoint, price in zip(able, prices, strict=True)
                if not price or spent + price <= self._budget_usd
            ]
        if not payable:
            if self.num_open:  # a reply may make room
                return math.inf
            raise no_room(self._budget_usd, prices[0], self._state)
        up = [endpoint for endpoint in payable if endpoint.is_up]
        endpoint, when = self._choose(call, estimate, up, now) if up else (None, math.inf)
        if endpoint is None:
            return when
        self._queue.popleft()
        reservation = endpoint.admit(estimate, now)
        self._state.reserved_usd += reservation.most_usd
        return Admission(call, endpoint, reservation)

    def release(self, reservation: Reservation) -> None:
        """Give back what was set aside of the budget."""
        self._state.reserved_usd = max(0.0, self._state.reserved_usd - reservation.most_usd)

    def _need(self, call: PendingCall) -> TokenEstimate:
        if call.size is None:
            first = call.members[0][1]
            is_echo = call.kind == "choose" and not first.messages
            texts = scored_texts(first) if is_echo else [first.text, first.continuation]
            call.size = measure([*(turn.content for turn in first.messages), *texts])
            if num_ids := len(first.ids) + len(first.scored_ids):
                call.size = Size(num_ids, "dense")  # a byte of which counts as a token
        written = {"choose": CHOICE_TOKENS, "classify": 0, "logprobs": 1}
        response = written.get(call.kind, call.sampling.max_new_tokens)
        prompt = self.guess.of(call.size, self.num_in_flight)
        return TokenEstimate(prompt, response * len(call.members))

    def _choose(
        self, call: PendingCall, estimate: TokenEstimate, endpoints: Endpoints, now: float
    ) -> tuple[EndpointState | None, float]:
        """Return the endpoint whose turn it is, or None and when one will be ready."""
        if len(endpoints) == 1:
            when = endpoints[0].ready_at(estimate, now)
            return (endpoints[0] if when <= now else None), when
        main = [endpoint for endpoint in endpoints if endpoint.config.weight]
        if any(endpoint.paused_until <= now for endpoint in main):
            endpoints = main  # spares only while no other one can
        ready_at = [endpoint.ready_at(estimate, now) for endpoint in endpoints]
        ready = [
            endpoint for endpoint, when in zip(endpoints, ready_at, strict=True) if when <= now
        ]
        if not ready:
            return None, min(ready_at)
        others = [endpoint for endpoint in ready if endpoint is not call.avoid]
        endpoint = min(others or ready, key=lambda each: max(each.turn, self._turn))
        self._turn = max(endpoint.turn, self._turn)  # who was away does not catch up at once
        endpoint.turn = self._turn + 1.0 / (endpoint.config.weight or 1.0)
        return endpoint, now


def no_room(budget_usd: float, price: float, state: State) -> Unfinished:
    """Return the error of a budget that the next request would exceed."""
    more = ""
    if held := state.unsettled_usd:
        more = (
            f", ${held:.4f} reserved for failed requests that may have been billed: compare with "
            "the provider's bill and release it with --settle"
        )
    return Unfinished(
        f"budget_usd = {budget_usd:g} has no room for the next request (${price:.4f} at most; "
        f"${state.spent_usd:.4f} spent{more}); raise it and run again to resume"
    )


def grouped(
    kind: Kind, sampling: Sampling, keyed: KeyedRequests, most: int, batch: PendingBatch
) -> list[PendingCall]:
    """Return the calls of requests; samples of one prompt that follow each other share a call."""
    calls: list[PendingCall] = []
    for key, request in keyed:
        members = calls[-1].members if calls else []
        if members and len(members) < most:
            before = members[-1][1]
            alike = {"id": request.id, "sample_index": before.sample_index + 1}
            if request == before.model_copy(update=alike):
                members.append((key, request))
                continue
        calls.append(PendingCall(kind, sampling, [(key, request)], batch))
    return calls


def _too_large(estimate: TokenEstimate, endpoints: Endpoints) -> str:
    limiters = [pair for endpoint in endpoints for pair in endpoint.limiters.items()]
    limits = ", ".join(f"{name} {each.limit}/min" for name, each in limiters)
    return (
        f"too large for every endpoint's limits ({limits}): at least "
        f"{estimate.prompt_tokens} prompt and {estimate.response_tokens} response tokens"
    )


Remedy = float | Literal["last", "give_up", "leave", "none"]
"""What to do with a failed call: send it again after seconds or behind all others (`last`); let it
fail permanently (`give_up`); leave it for the next run; `none`: this run ends."""


@dataclass(slots=True)
class RetryPolicy:
    """Decides on failed calls, and when the run as a whole should stop."""

    max_attempts: int
    patience_s: float
    known_reasons: frozenset[str] = frozenset()
    """Finish reasons that the settings map."""
    is_proven: bool = False
    """Whether the model has ever answered."""
    num_rejected: int = 0
    num_fatal: int = 0
    num_pages: int = 0
    """Those since the last reply."""
    _reasons: dict[str, list[bool]] = field(default_factory=dict)
    """By endpoint: whether each of the first finish reasons is known."""

    def answered(self) -> None:
        """Count a reply."""
        self.is_proven = True
        self.num_fatal = self.num_pages = 0

    def judge(
        self, call: PendingCall, failure: Failure, advice: str, silent_s: float, *, is_large: bool
    ) -> tuple[Remedy, Exception | None]:
        """Count a failure; return what to do with its call, and the error if the run should end."""
        if failure.status == NO_CREDIT:
            return "none", Unfinished(f"{advice}; add credit and run again to resume")
        if failure.kind == "fatal":
            if not self.is_proven or failure.status == 401:  # it concerns all requests
                return "none", ModelError(advice)
            self.num_fatal += 1
            text = f"{advice} ({self.num_fatal} in a row); run again to resume"
            return "give_up", Unfinished(text) if self.num_fatal >= HOPELESS_FATAL else None
        ending = self.stop_silent(silent_s, advice)
        if failure.kind == "page":
            self.num_pages += 1
            if self.num_pages >= (HOPELESS_PAGES_PROVEN if self.is_proven else HOPELESS_PAGES):
                ending = Unfinished(f"{advice} ({self.num_pages} times); run again to resume")
        self.num_rejected += failure.kind == "rejected"
        if self.num_rejected >= HOPELESS_REJECTIONS and not self.is_proven:
            ending = ModelError(f"{advice} (all of the first {self.num_rejected} requests)")
        return self._remedy(call, failure, is_large=is_large), ending

    def _remedy(self, call: PendingCall, failure: Failure, *, is_large: bool) -> Remedy:
        wait_s = failure.retry_after_s or 0.0
        if failure.kind in ("rejected", "refused"):
            return "give_up"
        if wait_s > self.patience_s:
            return "leave"
        if failure.kind == "throttled":
            # a provider answers 429 to a prompt larger than its limit, too, and each attempt at one
            # waits until the whole limit is free
            call.num_throttled += 1
            num, patient = call.num_throttled, 0 if is_large else PATIENT_THROTTLES
            if num > patient:
                return "last" if num <= self.max_attempts * max(1, patient) else "leave"
        else:
            call.num_failures += 1
            num = call.num_failures
            if num >= self.max_attempts:
                return "give_up" if failure.kind == "malformed" else "leave"
        delay_s = min(LONGEST_RETRY_S, RETRY_S * 2.0 ** (num - 1)) * random.uniform(0.5, 1.5)
        return max(delay_s, wait_s)

    def stop_silent(
        self, silent_s: float, cause: str, what: str = "no reply for"
    ) -> Exception | None:
        """Return the error that ends the run if no reply comes for longer than `patience_s`."""
        if silent_s > self.patience_s:
            return Unfinished(f"{what} {silent_s:.0f} s ({cause}); run again to resume")
        return None

    def judge_reason(self, url: str, reason: str) -> Exception | None:
        """Return the error that ends the run where most first finish reasons are unknown."""
        seen = self._reasons.setdefault(url, [])
        if len(seen) == FIRST_REASONS:
            return None
        seen.append(reason in self.known_reasons or is_known_reason(reason))
        if len(seen) < FIRST_REASONS or 2 * seen.count(True) >= FIRST_REASONS:
            return None
        return Unfinished(
            f"{url}: {seen.count(False)} of the first {FIRST_REASONS} replies end with a finish "
            f"reason that is not known, such as {reason!r}; say how such replies end with "
            f'finish_reasons = {{ "{reason}" = "whole" }} (or "cut") and run again: '
            "the replies are kept"
        )
