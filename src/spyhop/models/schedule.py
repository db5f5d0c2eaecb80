"""Which call goes to which endpoint, and when. Knows no network and no clock of its own."""

import math
import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from spyhop.models.base import Kind, Request, Sampling
from spyhop.models.guess import Size, TokenGuess, measure
from spyhop.models.journal import State
from spyhop.models.line import Line, Need, Ticket
from spyhop.models.wire import CHOICE_TOKENS
from spyhop.schema import Unfinished


@dataclass(slots=True, eq=False)
class Asked:
    """Requests that somebody waits for."""

    num_pending: int
    results: dict[str, str] = field(default_factory=dict)
    """By key; those of calls that failed for good included."""
    failed: set[str] = field(default_factory=set)
    """Keys of the calls that failed for good: the journal does not hold their results."""
    left: Counter[str] = field(default_factory=Counter)
    """Requests given up for this run, by the last reason."""
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Call:
    """One HTTP request, for one sample of a prompt or several."""

    kind: Kind
    sampling: Sampling
    members: list[tuple[str, Request]]
    """(key, request) of each sample."""
    asked: Asked
    size: Size | None = None
    """Of its messages; known once it is first in the queue."""
    num_sent: int = 0
    num_failures: int = 0
    num_throttled: int = 0
    avoid: Line | None = None
    """The endpoint that failed it last."""


class Admission(NamedTuple):
    """A call that is to be sent now."""

    call: Call
    line: Line
    ticket: Ticket


class Never(NamedTuple):
    """A call that cannot be sent, however long it waits."""

    call: Call
    reason: str


class Schedule:
    """One queue for all endpoints of a model; the first call in it goes first.

    Every admission is within all limits of its endpoint and within the budget, counting what is in
    flight at its highest price.
    """

    def __init__(self, lines: Sequence[Line], budget_usd: float | None, state: State) -> None:
        self.lines = lines
        self.guess = TokenGuess()
        self._budget_usd = budget_usd
        self._state = state
        self._queue: deque[Call] = deque()
        self._turn = 0.0

    def __len__(self) -> int:
        """Return the number of calls that wait."""
        return len(self._queue)

    @property
    def num_in_flight(self) -> int:
        """Calls that were sent and not answered."""
        return sum(line.concurrency.in_flight for line in self.lines)

    def add(self, calls: Iterable[Call]) -> None:
        """Take calls, to go last."""
        self._queue.extend(calls)

    def put_back(self, call: Call) -> None:
        """Take a call, to go next."""
        self._queue.appendleft(call)

    def take(self, now: float) -> Admission | Never | float:
        """Return the next call if it may be sent, else when to look again.

        Infinity stands for "when an answer comes, or another call".

        Raises:
            Unfinished: If the budget has no room for it and nothing in flight could make any.
        """
        if not self._queue or not any(line.concurrency.has_room() for line in self.lines):
            return math.inf
        call = self._queue[0]
        try:
            need = self._need(call)
        except UnicodeEncodeError as error:
            self._queue.popleft()
            return Never(call, f"the prompt is no valid Unicode ({error.reason})")
        able = [line for line in self.lines if line.fits(need)]
        if not able:  # the guess may be wrong: only what is sure may turn a call away
            least = self._least(call, need)
            able = [line for line in self.lines if line.fits(least)]
            if not able:
                self._queue.popleft()
                return Never(call, _too_large(least, self.lines))
        payable = [line for line in able if self._can_pay(line, need)]
        if not payable:
            self._check_spent(able[0], need)
            return math.inf
        line, when = self._choose(call, need, payable, now)
        if line is None:
            return when
        self._queue.popleft()
        ticket = line.admit(need, now)
        self._state.reserved_usd += ticket.most_usd
        return Admission(call, line, ticket)

    def release(self, ticket: Ticket) -> None:
        """Give back what was set aside of the budget."""
        self._state.reserved_usd = max(0.0, self._state.reserved_usd - ticket.most_usd)

    def _need(self, call: Call) -> Need:
        if call.size is None:
            first = call.members[0][1]
            call.size = measure([*(turn.content for turn in first.messages), first.continuation])
        response = CHOICE_TOKENS if call.kind == "choose" else call.sampling.max_new_tokens
        prompt = self.guess.of(call.size, self.num_in_flight)
        return Need(prompt, response * len(call.members))

    def _least(self, call: Call, need: Need) -> Need:
        assert call.size is not None
        return Need(call.size.least_tokens, need.response_tokens)

    def _choose(
        self, call: Call, need: Need, lines: Sequence[Line], now: float
    ) -> tuple[Line | None, float]:
        """Return the endpoint whose turn it is, or None and when one will be ready."""
        if len(lines) == 1:
            when = lines[0].ready_at(need, now)
            return (lines[0] if when <= now else None), when
        main = [line for line in lines if line.endpoint.weight]
        if any(line.paused_until <= now for line in main):
            lines = main  # spares only while no other one can
        ready_at = [line.ready_at(need, now) for line in lines]
        ready = [line for line, when in zip(lines, ready_at, strict=True) if when <= now]
        if not ready:
            return None, min(ready_at)
        others = [line for line in ready if line is not call.avoid]
        line = min(others or ready, key=lambda each: max(each.turn, self._turn))
        self._turn = max(line.turn, self._turn)  # who was away does not catch up at once
        line.turn = self._turn + 1.0 / (line.endpoint.weight or 1.0)
        return line, now

    def _can_pay(self, line: Line, need: Need) -> bool:
        if self._budget_usd is None:
            return True
        price = line.endpoint.usd(need.prompt_tokens, 0, need.response_tokens)
        taken = self._state.spent_usd + self._state.reserved_usd
        return not price or taken + price <= self._budget_usd

    def _check_spent(self, line: Line, need: Need) -> None:
        """Refuse to wait for room in the budget that no answer on its way can make."""
        if not self.num_in_flight:
            price = line.endpoint.usd(need.prompt_tokens, 0, need.response_tokens)
            raise Unfinished(
                f"budget_usd = {self._budget_usd:g} has no room for the next request "
                f"(${price:.4f} at most; ${self._state.spent_usd:.4f} spent); raise it and run "
                "again to go on"
            )


def grouped(
    kind: Kind,
    sampling: Sampling,
    keyed: Iterable[tuple[str, Request]],
    most: int,
    asked: Asked,
) -> list[Call]:
    """Return the calls of requests; samples of one prompt that follow each other share a call."""
    calls: list[Call] = []
    for key, request in keyed:
        members = calls[-1].members if calls else []
        if members and len(members) < most and _continues(members[-1][1], request):
            members.append((key, request))
        else:
            calls.append(Call(kind, sampling, [(key, request)], asked))
    return calls


def _continues(before: Request, request: Request) -> bool:
    is_next = request.sample_index == before.sample_index + 1
    return is_next and request.messages == before.messages


def _too_large(need: Need, lines: Sequence[Line]) -> str:
    limits = [f"{name} {each.limit}/min" for line in lines for name, each in line.minutes.items()]
    return (
        f"too large for every endpoint's limits ({', '.join(limits)}): at least "
        f"{need.prompt_tokens} prompt and {need.response_tokens} response tokens"
    )
