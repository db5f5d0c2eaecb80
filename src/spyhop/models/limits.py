"""Limits per minute that are never exceeded, and concurrency that adapts."""

import math
from collections import deque
from dataclasses import dataclass

SPAN_S = 61.0
"""A minute and the jitter of requests on their way: no 60 s at the server see more."""
SLOTS_PER_S = 8
BURST_S = 1.0
"""Admissions may run ahead of an even pace by so much."""
FIRST_ALLOWED = 16
"""Requests in flight at the start, before anything is known of the endpoint."""
TOLERATED = 0.05
"""Share of overloaded replies that changes nothing, beside two standard deviations of chance."""
MOST_TOLERATED, DECAY, SAME = 0.5, 0.95, (0.5, 1.5)
"""Where a cut leaves the share within these multiples of what it was, load is not its cause: it is
tolerated, up to a half, and the cut is taken back; with each good window a little less so."""
OUTAGE, OUTAGE_FLOOR = 0.9, 4.0
"""Above this share an endpoint is out; this many requests probe whether it is back."""
LEAST_REPLIES, MANY_REPLIES = 32, 150
"""Of a window; below the second number three deviations are tolerated: a cut ends the climb."""
FIRST_GROWTH = 0.05
LONGEST_HOLD_S = 1.0


class RateLimiter:
    """What was admitted in the last `SPAN_S`, never above `limit`, at an even pace.

    Amounts are kept in slots of an eighth of a second. Times are seconds of any one clock.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._slots: dict[float, float] = {}
        self._oldest = math.inf
        self._sum = 0.0
        self._due = -math.inf

    def ready_at(self, amount: float, now: float) -> float:
        """Return the first moment at which the amount fits: `now`, later, or never (infinity)."""
        if amount > self.limit:
            return math.inf
        self._forget(now)
        paced = max(now, self._due - BURST_S)
        excess = self._sum + amount - self.limit
        if excess <= 0:
            return paced
        for slot, held in self._slots.items():
            excess -= held
            if excess <= 0:
                return max(paced, (slot + 1) / SLOTS_PER_S + SPAN_S)
        return paced

    def add(self, amount: float, now: float) -> int:
        """Admit an amount; return its slot."""
        slot = self._hold(amount, now)
        self._due = max(self._due, now) + amount * 60.0 / self.limit
        return slot

    def change(self, slot: int, difference: float) -> None:
        """Correct what was admitted in a slot, once it is known."""
        if slot in self._slots:
            self._slots[slot] += difference
            self._sum += difference
        self._due += difference * 60.0 / self.limit

    def share(self, now: float) -> float:
        """Return the part of the limit that is in use. Any thread may ask."""
        oldest = (now - SPAN_S) * SLOTS_PER_S - 1
        held = sum(amount for slot, amount in list(self._slots.items()) if slot > oldest)
        return held / self.limit

    def dump(self, now: float) -> list[tuple[float, float]]:
        """Return (age in seconds, amount) of what the next run has to count too."""
        self._forget(now)
        ends = (((slot + 1) / SLOTS_PER_S, amount) for slot, amount in self._slots.items())
        return [(max(0.0, now - end), amount) for end, amount in ends]

    def load(self, held: list[tuple[float, float]], now: float) -> None:
        """Count what an earlier run admitted."""
        for age, amount in sorted(held, reverse=True):
            self._hold(amount, now - max(age, 0.0))

    def _hold(self, amount: float, when: float) -> int:
        slot = math.floor(when * SLOTS_PER_S)
        self._slots[slot] = self._slots.get(slot, 0.0) + amount
        self._oldest = min(self._oldest, slot)
        self._sum += amount
        return slot

    def _forget(self, now: float) -> None:
        oldest = (now - SPAN_S) * SLOTS_PER_S - 1
        while self._oldest <= oldest:
            self._sum -= self._slots.pop(self._oldest, 0.0)
            self._oldest = next(iter(self._slots), math.inf)
            if not self._slots:
                self._sum = 0.0


@dataclass(slots=True)
class _Window:
    """Replies since `began`."""

    began: float
    size: int
    """Replies that end it, at least."""
    num_good: int = 0
    num_overrun: int = 0
    was_full: bool = False


class Concurrency:
    """How many requests may be in flight: as many as the endpoint bears, at most `most`.

    It reacts once per window of replies (as many as may be in flight, and at least a mean latency
    long) to the share of them that says "overloaded". A share that chance failures explain changes
    nothing; above it the number is cut in proportion, by half at most. Below the level of the last
    cut it doubles per round trip, above it grows by 5, 10, 20, ... %.

    The slot of an overloaded request stays taken for a mean latency, so that a server that turns
    requests away at once is not asked faster for it, and the share measures the excess.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.allowed = float(min(most, FIRST_ALLOWED))
        self.in_flight = 0
        self.num_uncommitted = 0
        """Replies received and not in the journal yet: with those in flight never above `most`."""
        self._level = math.inf
        """What was borne when it was last cut."""
        self._growth = FIRST_GROWTH
        self._cut_at = -math.inf
        self._cut_share = 0.0
        """Share that the last window was cut for, and the number before that."""
        self._before = 0.0
        self._tolerated = TOLERATED
        self._latency_s = 0.0
        self._held: deque[float] = deque()
        """When the slots of overloaded requests become free."""
        self._window: _Window | None = None

    def begin_at(self, level: float) -> None:
        """Start from the level that an earlier run found."""
        self.allowed = min(float(self.most), max(1.0, level))

    @property
    def level(self) -> float:
        """What the endpoint bore, for the next run to begin with."""
        return self.allowed if self._level == math.inf else max(self.allowed, self._level)

    def room_at(self, now: float) -> float:
        """Return when another request may be sent: `now`, later, or after a reply (infinity)."""
        while self._held and self._held[0] <= now:
            self._held.popleft()
        if self.in_flight + self.num_uncommitted >= self.most:
            return math.inf
        if self.in_flight + len(self._held) < int(self.allowed):
            return now
        return self._held[0] if self._held and self.in_flight < int(self.allowed) else math.inf

    def succeeded(self, sent: float, now: float) -> None:
        """Count a good reply, whose request is no longer in flight."""
        latency_s = now - sent
        memory = 0.05 if self._latency_s else 1.0
        self._latency_s += memory * (latency_s - self._latency_s)
        window = self._window or self._opened(sent)
        is_first = window.num_overrun > 0 and not window.num_good
        if is_first and now - window.began > 2 * self._latency_s:
            window = self._opened(now)  # back from an outage, whose failures say no more
        self._window = window
        window.num_good += now >= window.began
        if self.in_flight + len(self._held) + 1 >= int(self.allowed):
            window.was_full = True
            if self.allowed < self._level:
                self.allowed = min(float(self.most), self._level, self.allowed + 1.0)
        self._look(now)

    def overran(self, sent: float, now: float) -> None:
        """Count a reply that says "overloaded"; requests sent before the last cut say nothing."""
        self._held.append(now + min(LONGEST_HOLD_S, self._latency_s or LONGEST_HOLD_S / 10))
        if self._window is None:
            self._window = self._opened(sent)
        if sent >= self._cut_at and now >= self._window.began:
            self._window.num_overrun += 1
            self._look(now)

    def _opened(self, began: float) -> _Window:
        return _Window(began, max(LEAST_REPLIES, int(self.allowed)))

    def _look(self, now: float) -> None:
        window = self._window
        assert window is not None
        num = window.num_good + window.num_overrun
        if num < window.size or now - window.began < self._latency_s:
            return
        share, part = window.num_overrun / num, self._tolerated
        deviations = 2 if num >= MANY_REPLIES else 3
        if share > part + deviations * math.sqrt(part * (1 - part) / num):
            self._cut(window, share, now)
            self._window = self._opened(now + self._latency_s)  # when what it changed is seen
            return
        self._tolerated = max(TOLERATED, DECAY * part)
        self._cut_share = 0.0
        if window.was_full and self.allowed >= self._level:
            grown = self.allowed + max(1.0, self._growth * self.allowed)
            self.allowed = self._level = min(float(self.most), grown)
            self._growth = min(1.0, 2 * self._growth)
        self._window = self._opened(now)

    def _cut(self, window: _Window, share: float, now: float) -> None:
        self._growth, self._cut_at, before = FIRST_GROWTH, now, self.allowed
        if share > OUTAGE:  # it says nothing about the level
            self._level = before if self._level == math.inf else max(before, self._level)
            self.allowed = max(min(before, OUTAGE_FLOOR), before / 2)
        elif SAME[0] * self._cut_share < share < SAME[1] * self._cut_share:  # not load's doing
            self._tolerated = min(MOST_TOLERATED, (share + self._cut_share) / 2)
            self.allowed = self._before
            self._level, self._cut_share = self._before, 0.0
        else:
            self.allowed = self._level = max(1.0, before / 2, before * (1 - share))
            self._cut_share, self._before = share, before
