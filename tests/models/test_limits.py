"""Limits are kept in every limiter, and used; all by a clock that is made up."""

import heapq
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


def _serve(held: Concurrency, capacity, seconds: float, fails: float = 0.0, start: float = 0.0):
    """Good replies of an endpoint with 1 s latency that turns away what is above its capacity."""
    source, now, events, good, flying = random.Random(5), start, [], 0, 0
    while now < start + seconds:
        while (room := held.room_at(now)) <= now:
            held.in_flight += 1
            is_turned_away = flying >= capacity(now - start)
            flying += not is_turned_away
            is_over = is_turned_away or source.random() < fails
            latency_s = 0.01 if is_turned_away else source.uniform(0.9, 1.1)
            due = (now + latency_s, now, is_over, is_turned_away)
            heapq.heappush(events, due)
        if not events or (room != math.inf and room < events[0][0]):
            now = room
            continue
        now, sent, is_over, is_turned_away = heapq.heappop(events)
        held.in_flight -= 1
        flying -= not is_turned_away
        if is_over:
            held.overran(sent, now)
        else:
            good += 1
            held.succeeded(sent, now)
    return good


def test_chance_failures_do_not_slow_an_endpoint_down():
    held = Concurrency(200)
    assert _serve(held, lambda s: 10**6, 60, fails=0.03) >= 0.85 * 200 * 60
    assert held.allowed == 200


def test_an_early_failure_changes_nothing():
    held = Concurrency(64)
    held.in_flight = 15
    held.overran(0.0, 0.1)
    assert held.allowed == 16


def test_a_capacity_that_halves_and_returns_is_found_and_found_again():
    held = Concurrency(400)
    halves = lambda s: 100 if 40 <= s < 80 else 200  # noqa: E731
    good = _serve(held, halves, 120)
    assert good >= 0.9 * (200 * 40 + 100 * 40 + 200 * 40)


def test_what_was_borne_is_where_the_next_run_begins():
    held = Concurrency(400)
    _serve(held, lambda s: 120, 30)
    assert 100 <= held.level <= 150
    again = Concurrency(400)
    again.begin_at(held.level)
    assert _serve(again, lambda s: 120, 13) >= 0.9 * 120 * 12


def test_an_outage_is_recovered_from_quickly():
    held = Concurrency(200)
    dark = lambda s: 0 if 20 <= s < 30 else 10**6  # noqa: E731
    assert _serve(held, dark, 60) >= 0.8 * 200 * 50


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 200), st.lists(st.booleans(), max_size=300))
def test_concurrency_stays_within_its_bounds(most, outcomes):
    held = Concurrency(most)
    for now, is_good in enumerate(outcomes):
        held.in_flight = int(held.allowed) - 1
        if is_good:
            held.succeeded(now - 0.5, float(now))
        else:
            held.overran(now - 0.5, float(now))
        assert 1 <= int(held.allowed) <= most
    held.in_flight = 0
    assert held.room_at(10_000.0) == 10_000.0


def test_concurrency_grows_only_when_it_is_used():
    held = Concurrency(1000)
    held.in_flight = 3
    for now in range(100):
        held.succeeded(now - 0.5, float(now))
    assert held.allowed == 16
    for _ in range(5):  # rounds in which all slots are taken
        for _ in range(int(held.allowed)):
            held.in_flight = int(held.allowed) - 1
            held.succeeded(now - 0.5, float(now))
    assert held.allowed >= 16 * 16


def test_what_is_not_committed_counts_towards_the_most():
    held = Concurrency(2)
    held.in_flight = held.num_uncommitted = 1
    assert held.room_at(5.0) == math.inf
    held.num_uncommitted = 0
    assert held.room_at(5.0) == 5.0
