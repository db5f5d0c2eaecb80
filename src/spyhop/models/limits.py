"""Limits per minute that are never exceeded, and concurrency that adapts."""

import math

SPAN_S = 61.0
"""A minute and what requests may lose or win on their way: no 60 s at the server hold more."""
SLOTS_PER_S = 8
BURST_S = 1.0
"""Admissions may run ahead of an even pace by so much."""
FIRST_ALLOWED = 16
"""Requests in flight at the start, before anything is known of the endpoint."""


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
        paced = self._due - BURST_S
        if paced < now:
            paced = now
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


class Concurrency:
    """Requests in flight: grows while answers come, halves when the endpoint is overrun (AIMD)."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.allowed = float(min(most, FIRST_ALLOWED))
        self.in_flight = 0
        self._is_first_climb = True
        self._cut_at = -math.inf

    def has_room(self) -> bool:
        """Tell whether another request may be sent."""
        return self.in_flight < int(self.allowed)

    def succeeded(self) -> None:
        """Grow: twice as many each round trip at first, later one or a twentieth more."""
        if self.in_flight + 1 >= int(self.allowed):
            step = 1.0 if self._is_first_climb else max(1.0 / self.allowed, 0.05)
            self.allowed = min(float(self.most), self.allowed + step)

    def overran(self, sent: float, now: float) -> None:
        """Halve, once for all requests that were in flight together."""
        if sent >= self._cut_at:
            self._is_first_climb = False
            self.allowed = max(1.0, self.allowed / 2)
            self._cut_at = now
