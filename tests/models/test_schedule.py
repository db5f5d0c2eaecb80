"""Which call goes where and when, by a simulated clock and simulated answers."""

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from asking import requests
from spyhop.models.calls import Request, Sampling
from spyhop.models.endpoint_state import EndpointState, Reservation, TokenEstimate
from spyhop.models.failures import Failure
from spyhop.models.guess import Size
from spyhop.models.journal import State
from spyhop.models.replies import Usage
from spyhop.models.schedule import Admission, PendingBatch, PendingCall, Rejected, Schedule
from spyhop.models.service import Endpoint
from spyhop.schema import Message, Unfinished

LOST = Failure("overloaded", "500 server error", 500)
THROTTLED = Failure("throttled", "429", 429, retry_after_s=1.0, is_overrun=True)


def endpoint(name: str = "one", **fields: object) -> Endpoint:
    return Endpoint.model_validate({"url": f"http://{name}/v1", **fields})


def schedule(*endpoints: Endpoint, budget: float | None = None, state: State | None = None):
    return Schedule(
        [EndpointState(each, "teacher") for each in endpoints], budget, state or State()
    )


def call(words: str = "number 1", *, most: int = 40, samples: int = 1) -> PendingCall:
    turns = [Message(role="user", content=words)]
    found = [
        Request(id=f"{words} {place}", messages=turns, sample_index=place)
        for place in range(samples)
    ]
    members = [(request.id, request) for request in found]
    return PendingCall("generate", Sampling(max_new_tokens=most), members, PendingBatch(samples))


def calls(num: int, **more: int) -> list[PendingCall]:
    return [call(request.messages[0].content, **more) for request in requests(num)]


class World:
    """Endless calls, endpoints that answer after a while, and a clock that jumps."""

    def __init__(
        self,
        one: Schedule,
        *,
        latency_s: float = 2.0,
        prompt: int | Callable[[PendingCall], int] = 10,
        response: int = 20,
        fails: Callable[[EndpointState, int], Failure | None] = lambda line, place: None,
    ) -> None:
        self.schedule, self.latency_s = one, latency_s
        self.tokens = prompt if callable(prompt) else lambda call: prompt
        self.response = response
        self.fails = fails
        self.now = 100.0
        self.sent: list[tuple[float, EndpointState, PendingCall]] = []
        self.answered: Counter[str] = Counter()
        self.nevers: list[Rejected] = []
        self._flying: list[tuple[float, int, PendingCall, EndpointState, Reservation]] = []
        self._number = itertools.count()

    def run(self, until: float = math.inf) -> None:
        """Go on until all is answered, or the clock is there."""
        while self.now < until:
            found = self.schedule.take(self.now)
            if isinstance(found, Admission):
                self.sent.append((self.now, found.endpoint, found.call))
                due = self.now + self.latency_s
                heapq.heappush(self._flying, (due, next(self._number), *found))
            elif isinstance(found, Rejected):
                self.nevers.append(found)
            else:
                assert found > self.now
                next_answer = self._flying[0][0] if self._flying else math.inf
                wake = min(found, next_answer)
                if wake == math.inf:
                    assert not len(self.schedule), "it waits for what never comes"
                    return
                self.now = wake
                if wake == next_answer:
                    self._answer()

    def _answer(self) -> None:
        _, place, one, line, ticket = heapq.heappop(self._flying)
        self.schedule.release(ticket)
        told = self.fails(line, place)
        if told is None:
            usage = Usage(self.tokens(one), 0, self.response, 0)
            self.schedule._state.spent_usd += line.answered(ticket, usage, {}, self.now)
            self.schedule.guess.learn(one.size, usage.prompt_tokens)
            self.answered[line.config.url] += 1
        else:
            line.failed(ticket, told, self.now)
            one.avoid = line
            self.schedule.put_back(one)

    def most_in_60_s(self, most: int) -> int:
        """The tokens that any 60 s of sending hold, a response counted as long as it may be."""
        largest = held = first = 0
        for when, _, each in self.sent:
            held += self.tokens(each) + most
            while self.sent[first][0] <= when - 60:
                held -= self.tokens(self.sent[first][2]) + most
                first += 1
            largest = max(largest, held)
        return largest

    def per_line(self) -> Counter[str]:
        return Counter(line.config.url[7:-3] for _, line, _ in self.sent)


def _endless(world: World, **more: int) -> Iterator[float]:
    """Keep the queue full, minute by minute."""
    while True:
        world.schedule.add(calls(3_000, **more))
        yield world.now


# ---------------------------------------------------------------- shares and failing over


@pytest.mark.parametrize("weights", [(3, 1, 0.5), (0.9, 0.1), (90, 10), (1, 1), (10, 1, 1)])
def test_weights_are_shares_while_all_are_free(weights):
    one = schedule(*(endpoint(str(place), weight=w) for place, w in enumerate(weights)))
    world = World(one, latency_s=0.01)
    for each in calls(900):
        one.add([each])
        world.run()
    shares = [world.per_line()[str(place)] / 900 for place in range(len(weights))]
    assert shares == pytest.approx([w / sum(weights) for w in weights], abs=0.03)


def test_a_full_endpoint_leaves_its_share_to_the_others():
    one = schedule(endpoint("a", weight=9, requests_per_min=10), endpoint("b", weight=1))
    world = World(one, latency_s=0.5)
    one.add(calls(400))
    world.run()
    assert world.per_line()["b"] >= 380
    assert world.now - 100 < 30  # the endpoint with the limit holds nobody up


def test_one_that_was_away_does_not_catch_up_at_once():
    one = schedule(endpoint("a", concurrency=1), endpoint("b", concurrency=1))
    one.endpoints[0].paused_until = 110.0
    world = World(one, latency_s=0.1)
    one.add(calls(300))
    world.run()
    after = [line.config.url for when, line, _ in world.sent if when >= 110.0][:40]
    assert 15 <= after.count("http://a/v1") <= 25


def test_spares_are_used_only_when_no_other_can():
    one = schedule(endpoint("a"), endpoint("spare", weight=0))
    world = World(one)
    one.add(calls(100))
    world.run()
    assert world.per_line() == {"a": 100}
    one.endpoints[0].paused_until = world.now + 60
    one.add(calls(10))
    world.run()
    assert world.per_line()["spare"] == 10 and world.now < one.endpoints[0].paused_until


def test_a_call_goes_to_another_endpoint_than_the_one_that_failed_it():
    one = schedule(endpoint("a"), endpoint("b"))
    world = World(one, fails=lambda line, place: LOST if "//a/" in line.config.url else None)
    one.add(calls(12))
    world.run()
    tries: dict[int, list[str]] = {}
    for _, line, each in world.sent:
        tries.setdefault(id(each), []).append(line.config.url[7])
    assert set(map(tuple, tries.values())) <= {("b",), ("a", "b")}
    assert ("a", "b") in set(map(tuple, tries.values()))


def test_an_only_endpoint_is_asked_again():
    one = schedule(endpoint("a"))
    world = World(one, fails=lambda line, place: LOST if place < 2 else None)
    one.add(calls(1))
    world.run()
    assert len(world.sent) == 3 and world.answered.total() == 1


def test_a_call_too_large_for_the_other_endpoint_stays_where_it_fits():
    one = schedule(endpoint("a"), endpoint("small", tokens_per_min=30))
    one.endpoints[1].turn = 5.0
    world = World(one, fails=lambda line, place: LOST if place == 0 else None)
    one.add([call()])
    world.run()
    assert world.answered == {"http://a/v1": 1}


def test_a_call_too_large_for_all_but_a_spare_goes_there():
    one = schedule(endpoint("small", tokens_per_min=30), endpoint("spare", weight=0))
    world = World(one)
    one.add([call()])
    world.run()
    assert world.answered == {"http://spare/v1": 1}


def test_a_call_waits_for_a_paused_endpoint_if_only_that_one_can():
    one = schedule(endpoint("a"), endpoint("small", tokens_per_min=30))
    one.endpoints[0].paused_until = 105.0
    world = World(one)
    one.add([call()])
    world.run()
    assert [(when, line.config.url) for when, line, _ in world.sent] == [(105.0, "http://a/v1")]


def test_a_pause_that_ends_sooner_than_the_others_limit_is_not_overslept():
    one = schedule(endpoint("a", requests_per_min=1), endpoint("b"))
    one.endpoints[1].paused_until = 103.0
    world = World(one, latency_s=0.1)
    one.add(calls(20))
    world.run()
    assert world.now < 104


def test_one_failed_call_does_not_hold_up_the_free_endpoint():
    one = schedule(endpoint("a", requests_per_min=6), endpoint("b"))
    world = World(one, latency_s=0.1, fails=lambda line, place: LOST if place % 20 == 19 else None)
    one.add(calls(400))
    world.run()
    assert world.answered.total() == 400
    assert world.now - 100 < 60  # `a` alone could take 10 s for each call that failed at `b`


# ---------------------------------------------------------------- the budget


def test_the_budget_is_never_exceeded_and_is_used():
    state = State()
    price = endpoint("a", usd_per_million_prompt=1_000, usd_per_million_response=10_000)
    one = schedule(price, budget=10.0, state=state)
    world = World(one, latency_s=1.0, prompt=10, response=20)
    one.add(calls(200))
    most = []
    with pytest.raises(Unfinished, match=r"budget_usd = 10 has no room .* raise it"):
        while True:
            world.run(until=world.now + 0.01)
            most.append(state.spent_usd + state.reserved_usd)
    assert max(most) <= 10.0
    assert one.num_in_flight == 0 and state.reserved_usd == pytest.approx(0.0, abs=1e-9)
    real, dearest = 0.21, 0.5  # a call's price, and at most
    assert 10.0 - dearest <= state.spent_usd <= 10.0
    assert world.answered.total() == round(state.spent_usd / real)


def test_a_larger_budget_goes_on_from_what_was_spent():
    price = endpoint("a", usd_per_million_response=10_000)
    state = State(spent_usd=9.9)
    one = schedule(price, budget=10.0, state=state)
    one.add(calls(1))
    with pytest.raises(Unfinished, match=r"\$9\.9000 spent"):
        one.take(1.0)
    more = schedule(price, budget=11.0, state=state)
    more.add(calls(1))
    assert isinstance(more.take(1.0), Admission)


def test_every_sample_of_a_call_is_paid_for():
    one = schedule(endpoint("a", usd_per_million_response=1e6, max_n=4), budget=150.0)
    one.add([call(samples=4)])
    with pytest.raises(Unfinished):
        one.take(1.0)


def test_without_a_price_no_budget_is_spent():
    one = schedule(endpoint("a"), budget=0.01)
    world = World(one)
    one.add(calls(50))
    world.run()
    assert world.answered.total() == 50


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(
    "limit", ["tokens_per_min", "prompt_tokens_per_min", "response_tokens_per_min"]
)
def test_what_no_endpoint_can_ever_take_is_never(limit):
    one = schedule(endpoint("a", **{limit: 50}), endpoint("b", **{limit: 60}))
    large = call("word " * 1_000, most=1_000)
    one.add([large, call("hi", most=5)])
    found = one.take(1.0)
    assert isinstance(found, Rejected) and found.call is large
    assert "50/min" in found.reason and "60/min" in found.reason
    assert isinstance(one.take(1.0), Admission)  # the others go on


PROSE = "The boats that came back told of a lamp on the shore. "


def prompt_of(num_bytes: int, text: str = PROSE) -> str:
    return (text * (num_bytes // len(text) + 1))[:num_bytes]


def counted(template: int, per_byte: float = 0.25) -> Callable[[PendingCall], int]:
    """Tokens as a server counts them that puts a template around a prompt."""
    return lambda one: template + round(per_byte * len(one.members[0][1].messages[0].content))


def test_short_prompts_turn_no_long_one_away():
    one = schedule(endpoint("a", tokens_per_min=30_000, concurrency=4))
    world = World(one, prompt=counted(60), latency_s=0.05)
    one.add([call(f"{number} + {number}?", most=16) for number in range(30)])
    one.add([call(prompt_of(4_000), most=16) for _ in range(10)])
    world.run()
    assert world.nevers == [] and world.answered.total() == 40
    assert world.now - 100 < 45  # 13,440 tokens: half of a minute's


def test_a_guess_above_the_limit_is_sent_alone():
    one = schedule(endpoint("a", tokens_per_min=1_000))
    world = World(one, prompt=700, latency_s=1.0)
    one.add([call(prompt_of(3_000), most=16) for _ in range(2)])  # 1,500 tokens as first guessed
    world.run()
    times = [when for when, _, _ in world.sent]
    assert world.nevers == [] and times[1] - times[0] >= 60


@pytest.mark.parametrize(("template", "latency_s"), [(8, 2.0), (60, 20.0), (200, 10.0)])
@pytest.mark.parametrize("is_noisy", [False, True])
def test_a_limit_is_used_and_kept_with_prompts_of_all_sizes(template, latency_s, is_noisy):
    """Half of them short, half long; what a byte comes to differs from prompt to prompt by 20 %."""
    draw = random.Random(template)
    one = schedule(endpoint("a", tokens_per_min=120_000, concurrency=1_000))
    sizes = [draw.randint(*draw.choice([(15, 60), (200, 6_000)])) for _ in range(2_000)]
    held = [call(f"{place} {prompt_of(size)}", most=256) for place, size in enumerate(sizes)]
    noise = {id(each): draw.uniform(0.8, 1.2) if is_noisy else 1.0 for each in held}
    exact = counted(template)
    world = World(
        one, prompt=lambda each: round(exact(each) * noise[id(each)]), latency_s=latency_s
    )
    one.add(held)
    world.run()
    assert world.most_in_60_s(256) <= 120_000 * (1.01 if is_noisy else 1.0)
    end = world.sent[-1][0] - 60
    steady = sum(world.tokens(each) + 256 for when, _, each in world.sent if 220 <= when < end)
    assert steady / (end - 220) * 60 >= 0.95 * 120_000


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("31415 92653 58979 ", 1.0),
        ("\u043c\u0438\u0440\u0443 ", 1.0),
        ("QmFzZSBhbmQgbm90IHdvcmRz", 1.25),  # nothing tells it from words before it is answered
    ],
)
def test_when_prompts_turn_to_what_takes_more_tokens(text, most):
    draw = random.Random(5)
    one = schedule(endpoint("a", tokens_per_min=120_000, concurrency=1_000))
    sizes = [draw.randint(200, 2_000) for _ in range(2_000)]
    words = [call(f"a {prompt_of(size)}", most=128) for size in sizes[:1_000]]
    others = [call(prompt_of(size, text), most=128) for size in sizes[1_000:]]
    dense, plain = counted(8, 0.6), counted(8)
    are_dense = {id(each) for each in others}
    world = World(
        one,
        prompt=lambda each: dense(each) if id(each) in are_dense else plain(each),
        latency_s=10.0,
    )
    one.add([*words, *others])
    world.run()
    assert world.answered.total() == 2_000
    assert 0.95 * 120_000 <= world.most_in_60_s(128) <= most * 120_000


def test_an_empty_queue_waits_for_a_call():
    assert schedule(endpoint("a")).take(1.0) == math.inf


def test_calls_go_in_order_and_the_one_put_back_goes_first():
    one = schedule(endpoint("a", concurrency=3))
    first, second, third = calls(3)
    one.add([first, second])
    one.add([third])
    found = one.take(1.0)
    assert found.call is first
    one.put_back(first)
    assert [one.take(1.0).call for _ in range(2)] == [first, second]


def test_concurrency_is_kept():
    one = schedule(endpoint("a", concurrency=5))
    one.add(calls(20))
    taken = [one.take(1.0) for _ in range(6)]
    assert [isinstance(found, Admission) for found in taken] == [True] * 5 + [False]
    assert taken[-1] == math.inf and one.num_in_flight == 5


QUOTA = {"requests_per_min": 300, "tokens_per_min": 120_000, "concurrency": 1_000}


@pytest.mark.parametrize("counts", ["reserved", "used"])
def test_ten_minutes_at_the_papers_quotas(counts):
    """758 tokens a call: 500 in the prompt, room for 258, of which 100 are written."""
    one = schedule(endpoint("a", counts=counts, **QUOTA))
    world = World(one, latency_s=5.0, prompt=500, response=100)
    endless = _endless(world, most=258)
    next(endless)
    for each in list(one._queue):
        each.size = Size(2_000)
    world.run(until=world.now + 600)
    counted = 758 if counts == "reserved" else 600
    times = [when for when, _, _ in world.sent]
    assert 0.95 * 120_000 * 10 <= counted * world.answered.total() <= 120_000 * 10.1
    for start in range(0, len(times), 7):
        held = sum(times[start] <= when < times[start] + 60 for when in times[start:])
        assert held * counted <= 120_000
        assert held <= 300


def test_the_limit_of_requests_binds_when_calls_are_small():
    one = schedule(endpoint("a", **QUOTA))
    world = World(one, latency_s=1.0, prompt=10, response=20)
    next(_endless(world))
    world.run(until=world.now + 600)
    assert 0.95 * 3_000 <= len(world.sent) <= 3_000


def test_what_was_not_used_lets_more_through_only_where_the_provider_counts_so():
    sent = {}
    for counts in ("reserved", "used"):
        one = schedule(endpoint("a", counts=counts, tokens_per_min=12_000, concurrency=500))
        world = World(one, latency_s=1.0, prompt=10, response=10)
        next(_endless(world, most=100))
        world.run(until=world.now + 300)
        sent[counts] = len(world.sent)
    assert sent["used"] > 3 * sent["reserved"]


def test_all_calls_wait_while_an_endpoint_rests():
    one = schedule(endpoint("a"))
    world = World(one, latency_s=0.5, fails=lambda line, place: THROTTLED if place == 0 else None)
    one.add(calls(30))
    world.run()
    assert not [when for when, _, _ in world.sent if 100.5 < when < 101.5]
    assert world.answered.total() == 30


@pytest.mark.parametrize("told_s", [0.0, 0.01, 1.0])
def test_who_says_come_at_once_and_means_it_not_is_asked_ever_more_rarely(told_s):
    throttled = Failure("throttled", "429", 429, retry_after_s=told_s, is_overrun=True)
    one = schedule(endpoint("a"))
    world = World(one, latency_s=0.02, fails=lambda *_: throttled if world.now < 125.0 else None)
    one.add(calls(40))
    world.run()
    early = [id(each) for when, _, each in world.sent if when < 125.0]
    assert len(early) <= 80 and max(Counter(early).values()) <= 25
    assert world.answered.total() == 40 and world.now < 160


def test_a_pause_is_as_long_as_told_and_no_longer():
    throttled = Failure("throttled", "429", 429, retry_after_s=3.0, is_overrun=True)
    one = schedule(endpoint("a", concurrency=1))
    world = World(one, latency_s=0.5, fails=lambda _, place: throttled if place < 4 else None)
    one.add(calls(5))
    world.run()
    times = [when for when, _, _ in world.sent]
    assert [times[k + 1] - times[k] for k in range(4)] == pytest.approx([3.5] * 4)


def test_a_free_endpoint_goes_on_when_the_budget_is_spent():
    state = State(spent_usd=1.0)
    dear = endpoint("a", usd_per_million_response=1_000.0)
    one = Schedule([EndpointState(each, "m") for each in (dear, endpoint("b"))], 1.0, state)
    world = World(one)
    one.add(calls(20))
    world.run()
    assert {line.config.url for _, line, _ in world.sent} == {endpoint("b").url}


@pytest.mark.parametrize(
    ("api", "model", "least", "most"),
    [
        ("anthropic", "claude-sonnet-4-5", 80, 100),
        ("anthropic", "claude-3-5-haiku-20241022", 10, 10),
        ("openai", "gpt-4o", 10, 10),
    ],
)
def test_cached_tokens_count_towards_the_limits_that_count_them(api, model, least, most):
    """A tenth of each prompt is new: Anthropic lets ten times as many prompts through."""
    made = Endpoint(url="https://host/v1", api=api, prompt_tokens_per_min=10_000)
    state, estimate, now, num_sent = EndpointState(made, model), TokenEstimate(1000, 10), 0.0, 0
    while (when := state.ready_at(estimate, now)) < 60.0:
        now, num_sent = when, num_sent + 1
        reservation = state.admit(estimate, now)
        state.answered(reservation, Usage(1000, 900, 10, 0), {}, now)
    assert least <= num_sent <= most
    reservation = state.admit(estimate, now + 61.0)
    state.answered(reservation, Usage(1000, 0, 10, 0), {}, now)
    slots = state.admit(estimate, now + 61.0).slots
    assert slots["prompt tokens"][1] == 1000  # a miss counts at once
