"""Limits are kept in every limiter, and used; all by a clock that is made up."""

import itertools
import math
import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spyhop.models.limits import SPAN_S, Concurrency, RateLimiter

LIMIT = 100
CALLS = st.lists(
    st.tuples(
        st.integers(1, LIMIT),  # amount
        st.floats(0.0, 30.0),  # until somebody wants it
        st.floats(0.0, 1.0),  # how much of it was used
        st.integers(0, 6),  # settled after so many more
    ),
    min_size=1,
    max_size=60,
)


def _most_in(span_s: float, held: list[tuple[float, float]]) -> float:
    """The most that any window of that length holds, its ends included on one side."""
    most, total, window = 0.0, 0.0, deque()
    for when, amount in sorted(held):
        window.append((when, amount))
        total += amount
        while window[0][0] <= when - span_s:
            total -= window.popleft()[1]
        most = max(most, total)
    return most


def _admit(limiter: RateLimiter, amount: float, now: float) -> tuple[float, int]:
    """Wait as the client would; return when it was admitted, and the slot."""
    for _ in range(200):
        when = limiter.ready_at(amount, now)
        if when <= now:
            return now, limiter.add(amount, now)
        now = when
    raise AssertionError("it is never ready")


@settings(deadline=None, max_examples=60)
@given(CALLS, st.floats(0.0, 1e6))
def test_no_minute_holds_more_than_the_limit(calls, start):
    limiter, now = RateLimiter(LIMIT), start
    admitted: list[tuple[float, float]] = []
    late: list[tuple[int, int, float]] = []
    for place, (amount, pause, used, after) in enumerate(calls):
        for due in [one for one in late if one[0] <= place]:
            late.remove(due)
            _, slot, difference = due
            limiter.change(slot, difference)
        now, slot = _admit(limiter, amount, now + pause)
        refund = math.floor(amount * (1 - used))
        late.append((place + 1 + after, slot, -refund))
        admitted.append((now, amount - refund))  # what is known in the end is the least it counts
        assert limiter.share(now) <= 1.0
    assert _most_in(SPAN_S, admitted) <= LIMIT


@settings(deadline=None, max_examples=60)
@given(CALLS, st.lists(st.floats(0.0, 0.999), min_size=60, max_size=60))
def test_no_minute_at_the_server_holds_more_whatever_the_way_takes(calls, delays):
    limiter, now = RateLimiter(LIMIT), 0.0
    arrived = []
    for (amount, pause, _, _), delay in zip(calls, delays, strict=False):
        now, _ = _admit(limiter, amount, now + pause / 10)
        arrived.append((now + delay, amount))
    assert _most_in(60.0, arrived) <= LIMIT


@settings(deadline=None, max_examples=60)
@given(CALLS, st.integers(0, 60), st.floats(0.0, 90.0), st.floats(0.0, 1e6))
def test_a_restart_forgets_nothing(calls, place, away, other_clock):
    limiter, now, shift = RateLimiter(LIMIT), 50.0, 0.0
    admitted = []
    for at, (amount, pause, _, _) in enumerate(calls):
        if at == place:
            held = [(age + away, amount) for age, amount in limiter.dump(now)]
            now += away
            shift += other_clock - now
            now = other_clock
            limiter = RateLimiter(LIMIT)
            limiter.load(held, now)
        now, _ = _admit(limiter, amount, now + pause / 10)
        admitted.append((now - shift, amount))
    assert _most_in(SPAN_S - 1e-6, admitted) <= LIMIT + 1e-6


def test_more_than_was_guessed_is_made_up_for():
    limiter = RateLimiter(100)
    slot = limiter.add(50, 0.0)
    limiter.change(slot, 80)  # 130 in truth: nothing fits before it is forgotten
    assert limiter.ready_at(1, 1.0) >= SPAN_S
    assert limiter.share(1.0) == 1.3


def test_an_amount_above_the_limit_is_never():
    limiter = RateLimiter(100)
    assert limiter.ready_at(101, 5.0) == math.inf
    assert limiter.ready_at(100, 5.0) == 5.0


def _steady(limit: int, amounts, minutes: float = 10.0, lag: float = 2.0, used: float = 1.0):
    """What is admitted in some minutes with somebody always waiting, as counted at the end."""
    limiter, now, total = RateLimiter(limit), 0.0, 0.0
    waiting: deque[tuple[float, int, float]] = deque()
    for amount in amounts:
        while True:
            while waiting and waiting[0][0] <= now:
                _, slot, refund = waiting.popleft()
                limiter.change(slot, -refund)
            when = limiter.ready_at(amount, now)
            if when <= now:
                break
            now = min([when, *(due for due, _, _ in list(waiting)[:1])])
        if now > minutes * 60:
            return total
        slot = limiter.add(amount, now)
        refund = math.floor(amount * (1 - used))
        waiting.append((now + lag, slot, refund))
        total += amount - refund
    raise AssertionError("too few amounts")


@pytest.mark.parametrize("limit", [300, 500, 3_000])
def test_at_least_95_percent_of_a_request_limit_is_used(limit):
    assert 0.95 * 10 * limit <= _steady(limit, itertools.repeat(1)) <= 10 * limit


@pytest.mark.parametrize(("limit", "most"), [(120_000, 758), (120_000, 4_000), (10_000, 300)])
def test_at_least_95_percent_of_a_token_limit_is_used(limit, most):
    draw = random.Random(3)
    mixed = (draw.randint(most // 10, most) for _ in range(10**6))
    assert 0.95 * 10 * limit <= _steady(limit, mixed) <= 10 * limit
    assert 0.95 * 10 * limit <= _steady(limit, itertools.repeat(most)) <= 10 * limit


def test_what_was_not_used_lets_more_through():
    assert _steady(120_000, itertools.repeat(1_000), used=0.5) >= 0.95 * 10 * 120_000


def test_the_pace_is_even():
    limiter, now, times = RateLimiter(600), 0.0, []
    while now < 60:
        now, _ = _admit(limiter, 1, now)
        times.append(now)
    most = _most_in(1.0, [(when, 1.0) for when in times])
    assert most <= 2 * 600 / 60 + 1  # a second's worth ahead of the pace, and no more


# ---------------------------------------------------------------- concurrency


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 200), st.lists(st.booleans(), max_size=300))
def test_concurrency_stays_within_its_bounds(most, outcomes):
    held = Concurrency(most)
    for now, is_good in enumerate(outcomes):
        held.in_flight = int(held.allowed) - 1
        if is_good:
            held.succeeded()
        else:
            held.overran(float(now), float(now))
        assert 1 <= int(held.allowed) <= most
        held.in_flight = 0
        assert held.has_room()


def test_concurrency_grows_only_when_it_is_used():
    held = Concurrency(1000)
    before = held.allowed
    held.in_flight = 3
    for _ in range(100):
        held.succeeded()
    assert held.allowed == before
    for _ in range(5):  # rounds in which all places are taken
        for _ in range(int(held.allowed)):
            held.in_flight = int(held.allowed) - 1
            held.succeeded()
    assert held.allowed >= 16 * before


def test_concurrency_is_halved_once_a_round():
    held = Concurrency(64)
    held.allowed = 64.0
    for _ in range(64):  # all sent before the first of them failed
        held.overran(sent=10.0, now=11.0)
    assert held.allowed == 32
    for now in (11.5, 12.5):
        held.overran(sent=now - 0.25, now=now)
    assert held.allowed == 8
    held.in_flight = 7
    held.succeeded()
    assert 8 < held.allowed <= 9  # carefully from now on


def test_has_room_counts_what_is_in_flight():
    held = Concurrency(2)
    assert held.has_room()
    held.in_flight = 2
    assert not held.has_room()
