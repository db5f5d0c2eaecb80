"""Decide which call goes to which endpoint, and when. Uses no network and no clock."""

import math
import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from spyhop.models.calls import KeyedRequests, Kind, Request, Sampling
from spyhop.models.dialect import CHOICE_TOKENS, NOTHING_SHARED, SharedPart, scored_texts
from spyhop.models.endpoint_state import EndpointState, Reservation, TokenEstimate
from spyhop.models.guess import LEAST_PER_BYTE, Size, TokenGuess, measure
from spyhop.models.journal import State
from spyhop.schema import Unfinished

Endpoints = Sequence[EndpointState]


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
        self._budget_usd = budget_usd
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
        payable = [endpoint for endpoint in able if self._can_pay(endpoint, estimate)]
        up = [endpoint for endpoint in payable if endpoint.is_up]
        if not payable:
            self._check_spent(able[0], estimate)
            return math.inf
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

    def _can_pay(self, endpoint: EndpointState, estimate: TokenEstimate) -> bool:
        price = 0.0 if self._budget_usd is None else endpoint.config.most_usd(*estimate)
        return not price or self._state.bound_usd + price <= (self._budget_usd or 0.0)

    def _check_spent(self, endpoint: EndpointState, estimate: TokenEstimate) -> None:
        """Refuse to wait for room in the budget that no reply in flight can make."""
        if not self.num_open:
            price = endpoint.config.most_usd(*estimate)
            held, how = self._state.unsettled_usd, ""
            if held:
                how = (
                    f", ${held:.4f} reserved for failed requests that may have been billed: "
                    "compare with the provider's bill and release it with --settle"
                )
            raise no_room(self._budget_usd, price, self._state.spent_usd, how)


def no_room(budget_usd: float | None, price: float, spent_usd: float, more: str = "") -> Unfinished:
    """Return the error of a budget that the next request would exceed."""
    return Unfinished(
        f"budget_usd = {budget_usd:g} has no room for the next request (${price:.4f} at most; "
        f"${spent_usd:.4f} spent{more}); raise it and run again to resume"
    )


def grouped(
    kind: Kind, sampling: Sampling, keyed: KeyedRequests, most: int, batch: PendingBatch
) -> list[PendingCall]:
    """Return the calls of requests; samples of one prompt that follow each other share a call."""
    calls: list[PendingCall] = []
    for key, request in keyed:
        members = calls[-1].members if calls else []
        if members and len(members) < most and _continues(members[-1][1], request):
            members.append((key, request))
        else:
            calls.append(PendingCall(kind, sampling, [(key, request)], batch))
    return calls


def _continues(before: Request, request: Request) -> bool:
    is_next = request.sample_index == before.sample_index + 1
    is_same = request.messages == before.messages and request.text == before.text
    return is_next and is_same and request.continuation == before.continuation


def _too_large(estimate: TokenEstimate, endpoints: Endpoints) -> str:
    limits = [
        f"{name} {each.limit}/min"
        for endpoint in endpoints
        for name, each in endpoint.limiters.items()
    ]
    return (
        f"too large for every endpoint's limits ({', '.join(limits)}): at least "
        f"{estimate.prompt_tokens} prompt and {estimate.response_tokens} response tokens"
    )
