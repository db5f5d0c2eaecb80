"""The client of a served model, against a real server: whatever happens, one reply a prompt."""

import json
import math
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from asking import (
    KEY_ENV,
    SHORT,
    ask,
    change_state,
    committed,
    left_state,
    opened,
    requests,
    rows,
    server_key,
    service,
    until,
)
from server import FAULTS, KEY, Fault, Limits, Said, Server, chances, each, in_order, told
from spyhop.models import Request, Sampling, Service, endpoint_state
from spyhop.models.base import Model
from spyhop.models.endpoint import Remote
from spyhop.schema import ArtifactError, Message, ModelError, Unfinished

TWICE = {"max_attempts": 3}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)


def text_of(request: Request) -> str:
    """What the test server answers."""
    turns = [{"role": turn.role, "content": turn.content} for turn in request.messages]
    return told(turns)


def at_number(faults: dict[int, str], *, always: bool = False):
    """Faults of single prompts, at their first attempt or at all."""

    def plan(call):
        number = int(call.text.split()[1])
        return faults.get(number) if always or call.attempt == 0 else None

    return plan


def fault(monkeypatch: pytest.MonkeyPatch, **fields: object) -> str:
    monkeypatch.setitem(FAULTS, "own", Fault(**fields))
    return "own"


# ---------------------------------------------------------------- one reply a prompt, in order


def test_replies_come_in_order_each_asked_once(tmp_path: Path):
    asked = requests(300)
    with Server(latency_s=0.01, latency_sigma=1.0) as server:
        found = ask(tmp_path, service(server.url), asked)
        assert set(server.billed().values()) == {1} and len(server.billed()) == 300
    assert [reply.id for reply in found] == [request.id for request in asked]
    assert [reply.text for reply in found] == [text_of(request) for request in asked]
    assert {reply.finish_reason for reply in found} == {"stop"}
    assert len(committed(tmp_path)) == 300


def test_windows_go_on_together_and_come_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Model, "window", 16)
    asked = requests(200)
    with Server(latency_s=0.02) as server:
        found = ask(tmp_path, service(server.url), asked)
        assert server.stats()["max_in_flight"] > 16
    assert [reply.text for reply in found] == [text_of(request) for request in asked]


def test_equal_prompts_are_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Model, "window", 8)
    asked = [
        request.model_copy(update={"id": f"{request.id} {turn}"})
        for turn in range(5)
        for request in requests(10)
    ]
    with Server(latency_s=0.02, plan=at_number({3: "429", 4: "400"})) as server:
        found = ask(tmp_path, service(server.url), asked)
        assert set(server.billed().values()) == {1}
    assert [reply.id for reply in found] == [request.id for request in asked]
    pairs = zip(found, asked, strict=True)
    good = [(reply, request) for reply, request in pairs if not reply.error]
    assert all(reply.text == text_of(request) for reply, request in good) and len(good) >= 45


def test_a_second_run_asks_only_what_is_new(tmp_path: Path):
    with Server() as server:
        ask(tmp_path, service(server.url), requests(30))
        found = ask(tmp_path, service(server.url), requests(50))
        assert set(server.billed().values()) == {1} and len(server.entries()) == 50
    found_again = ask(tmp_path, service(server.url), requests(50))  # nobody is there any more
    assert found_again == found and len(found) == 50


def test_another_address_is_the_same_model_and_other_settings_are_not(tmp_path: Path):
    with Server() as one, Server() as other:
        first = ask(tmp_path, service(one.url), requests(10))
        assert ask(tmp_path, service(other.url, concurrency=2), requests(10)) == first
        assert other.entries() == []
        ask(tmp_path, service(other.url), requests(10), SHORT.model_copy(update={"seed": 1}))
        remote = Remote(model="teacher", revision="2")
        ask(tmp_path, service(other.url), requests(10), remote=remote)
        assert len(other.entries()) == 20


PASSING = [
    "429", "429-seconds", "429-date", "429-ms", "429-nonsense", "429-past", "429-negative",
    "429-html", "408", "409", "500", "500-empty", "502", "503", "503-seconds", "504", "529",
    "reset", "close", "html", "error-200", "reset-billed", "cut", "cut-reset", "cut-chunked",
    "empty-body", "json", "not-utf8", "array", "no-choices", "empty-choices", "null-message",
]  # fmt: skip


def test_what_passes_is_tried_again(tmp_path: Path):
    asked = requests(60)
    plan = at_number(dict(enumerate(PASSING)))
    with Server(plan=plan, retry_after_s=0.1) as server:
        found = ask(tmp_path, service(server.url), asked)
        assert len(server.entries()) == 60 + len(PASSING)
    assert [reply.text for reply in found] == [*map(text_of, asked)]
    query = "SELECT message, f.endpoint, f.attempt, f.at, reply FROM failures f "
    query += "JOIN replies USING (key)"
    failures = rows(tmp_path, query)
    for message, url, attempt, at, _ in failures:
        assert message and "\n" not in message and url == server.url
        assert attempt == 1 and abs(at - time.time()) < 30
    numbers = [int(json.loads(reply)["id"][1:]) for *_, reply in failures]
    assert sorted(numbers) == list(range(len(PASSING)))  # each is told, once


@pytest.mark.parametrize("name", ["chunked", "drip", "last", "twice", "slow", "no-finish"])
def test_odd_ways_to_answer_well(tmp_path: Path, name: str):
    with Server(plan=each([name]), slow_s=0.1) as server:
        found = ask(tmp_path, service(server.url), requests(10))
        assert set(server.billed().values()) == {1}
    assert [reply.text for reply in found] == [text_of(request) for request in requests(10)]


@pytest.mark.parametrize(
    ("name", "text", "ending"),
    [
        ("null", "", "empty"),
        ("empty", "", "empty"),
        ("length", "", "cut"),
        ("filter", "", "refused"),
        ("refusal", "I cannot help with that.", "refused"),
    ],
)
def test_outcomes_that_are_data_are_asked_once(tmp_path: Path, name, text, ending):
    with Server(plan=lambda call: name) as server:
        [found] = ask(tmp_path, service(server.url), requests(1))
        assert ask(tmp_path, service(server.url), requests(1)) == [found]
        assert len(server.entries()) == 1
    assert (found.ending, found.error) == (ending, None)
    assert found.text == text or name == "length"


SMALL_FAULTS = ["429", "500", "503", "reset", "reset-billed", "close", "cut", "cut-chunked",
                "html", "json", "empty-choices", "429-ms", "error-200"]  # fmt: skip


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))]
)
def test_any_mixture_ends_with_one_reply_a_prompt(tmp_path: Path, seed: int):
    draw = random.Random(seed)
    parts = {name: 0.04 for name in draw.sample(SMALL_FAULTS, 8)}
    asked = requests(60, start=1000 * seed)
    plan = chances(parts, seed=seed, attempts=2)
    with Server(plan=plan, latency_s=0.005, retry_after_s=0.1) as server:
        where = service(server.url, at_all={"max_attempts": 1 + seed % 3})
        for _ in range(4):
            try:
                found = ask(tmp_path, where, asked)
                break
            except Unfinished as error:
                assert "run again" in str(error)
                before = committed(tmp_path)
                assert before  # what came is kept
        undelivered = server.stats()["billed_undelivered"]
        odd = sum(server.stats()["outcomes"].get(name, 0) for name in ("json", "empty-choices"))
        assert sum(server.billed().values()) <= 60 + undelivered + odd
    assert [reply.id for reply in found] == [request.id for request in asked]
    good = {r.id: r.text for r in found if r.error is None}
    assert good == {r.id: text_of(r) for r in asked if r.id in good}
    assert committed(tmp_path).keys() == good.keys()


def test_exhausted_retries_leave_the_run_unfinished_and_the_rest_done(tmp_path: Path):
    plan = {"is_down": True}
    asked = requests(40)

    def faults(call):
        return "500" if plan["is_down"] and call.text == "number 7" else None

    with Server(plan=faults) as server:
        where = service(server.url, at_all={"max_attempts": 2})
        with pytest.raises(Unfinished, match=r"1 requests have no reply yet \(overloaded: 1\)"):
            ask(tmp_path, where, asked)
        assert len(committed(tmp_path)) == 39
        plan["is_down"] = False
        assert [reply.text for reply in ask(tmp_path, where, asked)] == [*map(text_of, asked)]
        assert set(server.billed().values()) == {1}
    assert len(rows(tmp_path, "SELECT 1 FROM failures")) == 2


def test_a_model_that_left_requests_answers_them_later(tmp_path: Path):
    plan = {"is_down": True}
    with Server(plan=lambda call: "500" if plan["is_down"] else None) as server:
        where = service(server.url, at_all={"max_attempts": 1})
        with opened(tmp_path, where) as (model, _):
            with pytest.raises(Unfinished):
                list(model.generate(requests(3), SHORT))
            plan["is_down"] = False
            assert len(list(model.generate(requests(3), SHORT))) == 3


def test_what_is_never_an_answer_is_an_error_and_asked_again_by_another_run(tmp_path: Path):
    plan = at_number({2: "json"}, always=True)
    with Server(plan=plan) as server:
        where = service(server.url, at_all={"max_attempts": 2})
        found = ask(tmp_path, where, requests(5))
        assert [reply.error is None for reply in found] == [True, True, False, True, True]
        assert (found[2].finish_reason, found[2].text) == ("error", "")
        assert "not a reply" in found[2].error
        count = len(server.entries())
        ask(tmp_path, where, requests(5))
        assert len(server.entries()) == count + 2


@pytest.mark.parametrize(
    ("name", "finish_reason"),
    [
        ("400", "error"),
        ("400-length", "error"),
        ("413", "error"),
        ("422", "error"),
        ("400-filter", "content_filter"),
    ],
)
def test_rejected_prompts_are_data_and_failures_are_not_replayed(
    tmp_path: Path, name: str, finish_reason: str
):
    with Server(plan=at_number({2: name}, always=True)) as server:
        for turn in (1, 2):
            found = ask(tmp_path, service(server.url), requests(5))
            assert (found[2].finish_reason, found[2].text) == (finish_reason, "")
            assert found[2].error and found[2].error.startswith(name[:3])
            assert [reply.error for reply in found if reply.id != "r2"] == [None] * 4
            assert len(server.entries()) == 4 + turn
    kinds = {kind for (kind,) in rows(tmp_path, "SELECT kind FROM failures")}
    assert kinds == {"refused" if finish_reason == "content_filter" else "rejected"}
    assert "r2" not in committed(tmp_path)


# ---------------------------------------------------------------- what stops a run


@pytest.mark.parametrize("name", ["401", "403", "404", "quota"])
def test_what_nobody_will_answer_stops_the_run(tmp_path: Path, name: str):
    with Server(plan=lambda call: name if call.place >= 5 else None, latency_s=0.02) as server:
        with pytest.raises(ModelError) as error:
            ask(tmp_path, service(server.url, concurrency=4), requests(500))
        is_at_once = name in ("401", "quota")  # others may concern one prompt: 20 in a row
        assert len(server.entries()) <= 5 + 4 + (0 if is_at_once else 2 * 20)
    said = str(error.value)
    assert isinstance(error.value, Unfinished) == (name != "401")
    assert len(said.splitlines()) == 1 and server.url in said and KEY not in said
    if name in ("401", "403"):
        assert f"set the environment variable {KEY_ENV}" in said
    elif name == "404":
        assert "check url and model ('teacher')" in said
    else:
        assert "no credit" in said
    assert len(committed(tmp_path)) == 5


def test_a_key_that_is_not_set_is_told_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(KEY_ENV, " ")
    with Server() as server:
        with pytest.raises(ModelError, match=f"set the environment variable {KEY_ENV}"):
            ask(tmp_path, service(server.url), requests(3))
        assert server.entries() == []


def test_the_first_requests_all_rejected_are_a_wrong_setting(tmp_path: Path):
    remote = Remote(model="teacher", extra={"nonsense": 1})
    with Server() as server:
        with pytest.raises(ModelError, match=r"400 .* \(all of the first 20 requests\)") as error:
            ask(tmp_path, service(server.url), requests(500), remote=remote)
        assert len(server.entries()) < 60
    assert not isinstance(error.value, Unfinished)


def test_a_run_whose_rest_is_rejected_is_no_wrong_setting(tmp_path: Path):
    plan = at_number(dict.fromkeys(range(100), "400"), always=True)
    asked = requests(140)
    with Server(plan=plan) as server:
        ask(tmp_path, service(server.url), asked[100:])
        found = ask(tmp_path, service(server.url), asked)
    assert Counter(reply.finish_reason for reply in found) == {"error": 100, "stop": 40}


def test_an_outage_ends_the_run_after_its_patience(tmp_path: Path):
    with Server() as server:
        url = server.url
    began = time.monotonic()
    with pytest.raises(Unfinished, match="run again"):
        ask(tmp_path, service(url, at_all={"patience_s": 0.5}), requests(50))
    assert time.monotonic() - began < 5
    with Server(port=server.port):
        assert len(ask(tmp_path, service(url), requests(50))) == 50


@pytest.mark.timeout(15)
def test_an_endless_retry_after_ends_the_run_after_its_patience(tmp_path: Path):
    began = time.monotonic()
    with (
        Server(plan=each(["429-seconds"]), retry_after_s=3600) as server,
        pytest.raises(Unfinished, match="run again"),
    ):
        ask(tmp_path, service(server.url, at_all={"patience_s": 0.5}), requests(3))
    assert time.monotonic() - began < 5


def test_a_server_that_restarts_in_mid_run(tmp_path: Path):
    asked = requests(120)
    with Server(latency_s=0.02) as server:

        def restart() -> None:
            until(lambda: len(server.service.books.keys) > 40)
            server.stop()
            time.sleep(0.3)
            server.start()

        other = threading.Thread(target=restart)
        other.start()
        found = ask(tmp_path, service(server.url, concurrency=8), asked)
        other.join()
    assert [reply.text for reply in found] == [*map(text_of, asked)]
    assert max(server.billed().values()) <= 2


def test_timeouts_are_possibly_billed_and_tried_again(tmp_path: Path):
    with Server(plan=at_number({1: "hang", 2: "hang-billed"})) as server:
        with opened(tmp_path, service(server.url, timeout_s=0.3)) as (model, ctx):
            found = list(model.generate(requests(5), SHORT))
        assert len(server.entries()) == 7
    assert [reply.error for reply in found] == [None] * 5
    failures = rows(tmp_path, "SELECT kind, message, maybe_billed FROM failures")
    assert failures == [("lost", "no reply within timeout_s = 0.3", 1)] * 2
    assert ctx.usage["maybe_billed"] == 2 and ctx.usage["failed_attempts/lost"] == 2


# ---------------------------------------------------------------- budget and limits

PRICED = {"usd_per_million_prompt": 1_000.0, "usd_per_million_response": 10_000.0}


def test_a_budget_stops_and_a_larger_one_goes_on(tmp_path: Path):
    asked = requests(40)
    with Server(latency_s=0.01) as server:
        small = service(server.url, **PRICED, at_all={"budget_usd": 2.0})
        with pytest.raises(Unfinished, match="budget_usd = 2 has no room"):
            ask(tmp_path, small, asked)
        kept = committed(tmp_path)
        first, spent = len(kept), sum(reply.usd for reply in kept.values())
        assert sum(server.billed().values()) == first
        assert 2.0 - 0.45 <= spent <= 2.0  # a call may cost 0.41 before it is answered
        assert left_state(tmp_path).spent_usd == pytest.approx(spent)
        with pytest.raises(Unfinished):
            ask(tmp_path, small, asked)
        assert len(committed(tmp_path)) <= first + 1
        large = service(server.url, **PRICED, at_all={"budget_usd": 5.0})
        found = ask(tmp_path, large, asked)
        assert set(server.billed().values()) == {1}
    assert sum(reply.usd for reply in found) == pytest.approx(sum(
        (reply.prompt_tokens * 1_000 + reply.response_tokens * 10_000) * 1e-6 for reply in found
    ))  # fmt: skip
    assert left_state(tmp_path).spent_usd == pytest.approx(sum(reply.usd for reply in found))


@pytest.mark.timeout(15)
def test_wrong_usage_figures_neither_spend_the_budget_nor_stop_the_run(tmp_path: Path):
    plan = at_number({3: "huge-usage"})
    limits = {"tokens_per_min": 100_000, **PRICED}
    with Server(plan=plan) as server:
        where = service(server.url, **limits, at_all={"budget_usd": 100.0})
        found = ask(tmp_path, where, requests(40))
    assert [reply.error for reply in found] == [None] * 40
    assert left_state(tmp_path).spent_usd < 10


@pytest.mark.parametrize("name", ["no-usage", "zero-usage"])
def test_silent_usage_is_guessed_once_and_the_guess_does_not_grow(tmp_path: Path, name: str):
    with Server(plan=lambda call: name) as server:
        found = ask(tmp_path, service(server.url), requests(400))
    assert all(0 < reply.prompt_tokens < 20 for reply in found)
    assert all(0 < reply.response_tokens <= 16 for reply in found)


def test_no_limit_is_broken_and_429_is_never_heard(tmp_path: Path):
    declared = {"requests_per_min": 600, "tokens_per_min": 30_000}
    with Server(limits=Limits(requests=600, tokens=30_000), latency_s=0.02) as server:
        found = ask(tmp_path, service(server.url, **declared), requests(25))
        assert server.violations() == []
        assert server.stats()["outcomes"] == {"ok": 25}
        times = [entry.time for entry in server.entries()]
    assert len(found) == 25
    assert 0.9 < times[-1] - times[0] < 6  # at 10 a second, one second ahead


def test_undeclared_limits_are_found_out(tmp_path: Path):
    limits = Limits(requests=30, window_s=0.5, concurrency=8, retry_after="ms")
    with Server(limits=limits, latency_s=0.01) as server:
        found = ask(tmp_path, service(server.url), requests(60))
        outcomes = server.stats()["outcomes"]
    assert [reply.error for reply in found] == [None] * 60
    assert outcomes["ok"] == 60 and outcomes["limit"] < 120


def test_concurrency_is_kept(tmp_path: Path):
    with Server(latency_s=0.01) as server:
        ask(tmp_path, service(server.url, concurrency=5), requests(60))
        assert server.stats()["max_in_flight"] == 5


def test_a_pause_that_is_asked_for_is_made(tmp_path: Path):
    with Server(plan=in_order(["429-ms"]), retry_after_s=0.8) as server:
        ask(tmp_path, service(server.url, concurrency=1), requests(3))
        times = [entry.time for entry in server.entries()]
    assert 0.8 <= times[1] - times[0] < 1.5 and times[3] - times[1] < 0.5


@pytest.mark.timeout(15)
def test_what_was_held_is_forgotten_while_nobody_runs(tmp_path: Path):
    with Server() as server:
        where = service(server.url, requests_per_min=1)
        ask(tmp_path, where, requests(1))
        assert [len(held) for held in left_state(tmp_path).held.values()] == [1]
        change_state(tmp_path, at=time.time() - 100)
        ask(tmp_path, where, requests(1, start=1))


def test_the_state_knows_how_a_run_ended(tmp_path: Path):
    with Server() as server:
        ask(tmp_path, service(server.url, **PRICED), requests(10))
    state = left_state(tmp_path)
    assert state.is_closed and state.reserved_usd == pytest.approx(0) and state.ceiling >= 10
    assert abs(state.at - time.time()) < 10


# ---------------------------------------------------------------- several endpoints


def test_several_endpoints_fail_over(tmp_path: Path):
    asked = requests(100)
    with Server(latency_s=0.01) as one, Server(plan=lambda call: "500") as other:
        found = ask(tmp_path, service(one.url, other.url), asked)
        assert one.stats()["outcomes"] == {"ok": 100}
        assert 0 < other.stats()["requests"] < 100
    assert [reply.text for reply in found] == [*map(text_of, asked)]


def test_an_endpoint_that_went_away_is_made_up_for(tmp_path: Path):
    with Server() as gone:
        pass
    with Server() as server:
        found = ask(tmp_path, service(server.url, gone.url), requests(50))
    assert [reply.error for reply in found] == [None] * 50


def test_each_endpoint_is_asked_for_no_more_samples_than_it_gives(tmp_path: Path):
    with Server(keeps_bodies=True) as one, Server(keeps_bodies=True) as other:
        where = Service(
            endpoints=(
                *service(one.url).endpoints,
                *service(other.url, max_n=4).endpoints,
            )
        )
        found = ask(tmp_path, where, requests(20, samples=4))
        assert {body.get("n", 1) for body in one.service.bodies.values()} <= {1}
        assert {body.get("n", 1) for body in other.service.bodies.values()} <= {1, 2, 3, 4}
    assert len(found) == 80 and len({reply.id for reply in found}) == 80


@pytest.mark.timeout(15)
def test_a_prompt_too_large_for_the_other_endpoint_is_asked_where_it_fits(tmp_path: Path):
    with Server(plan=each(["500"])) as one, Server() as small:
        where = Service(
            endpoints=(
                *service(one.url).endpoints,
                *service(small.url, tokens_per_min=30).endpoints,
            )
        )
        assert [reply.error for reply in ask(tmp_path, where, requests(3))] == [None] * 3
        assert small.entries() == []


def test_a_prompt_that_fits_nowhere_is_an_error(tmp_path: Path):
    large = requests(1, start=9, words=" word" * 12_000)
    with Server() as server:
        found = ask(tmp_path, service(server.url, tokens_per_min=3_000), [*requests(2), *large])
        assert len(server.entries()) == 2
    assert [reply.error is None for reply in found] == [True, True, False]
    assert "tokens 3000/min" in found[2].error


def test_azure(tmp_path: Path):
    azure = {"api": "azure", "model": "teacher"}
    with Server() as server:
        where = service(server.azure_url, **azure)
        found = ask(tmp_path, where, requests(10), remote=Remote(model="my-teacher"))
        assert server.stats()["outcomes"] == {"ok": 10}
        wrong = service(server.azure_url, **(azure | {"model": "other"}))
        with pytest.raises(ModelError, match="check url and model"):
            ask(tmp_path / "other", wrong, requests(1))
    assert [reply.text for reply in found] == [*map(text_of, requests(10))]


# ---------------------------------------------------------------- samples and choices


def samples_of(found: list, num: int) -> list[list[str]]:
    texts = [reply.text for reply in found]
    return [texts[start : start + num] for start in range(0, len(texts), num)]


def test_several_samples_in_one_request(tmp_path: Path):
    asked = requests(10, samples=3)
    with Server(keeps_bodies=True) as server:
        found = ask(tmp_path, service(server.url, max_n=3), asked)
        assert [body.get("n") for body in server.service.bodies.values()] == [3] * 10
        assert ask(tmp_path, service(server.url), asked) == found
        assert len(server.entries()) == 10
        used = sum(entry.output_used for entry in server.entries())
    turns = [[{"role": "user", "content": f"number {place}"}] for place in range(10)]
    assert samples_of(found, 3) == [[told(one, index) for index in range(3)] for one in turns]
    assert sum(reply.response_tokens for reply in found) == used


def test_fewer_samples_than_were_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = fault(monkeypatch, change=lambda reply: {**reply, "choices": reply["choices"][:2]})
    asked = requests(4, samples=5)
    with Server(plan=lambda call: name, keeps_bodies=True) as server:
        found = ask(tmp_path, service(server.url, max_n=5), asked)
        asked_for = Counter(body.get("n", 1) for body in server.service.bodies.values())
    assert asked_for == {5: 4, 3: 4, 1: 4}
    assert [reply.id for reply in found] == [request.id for request in asked]
    assert all(reply.error is None and reply.text for reply in found)


def test_samples_one_by_one_have_seeds_of_their_own(tmp_path: Path):
    with Server(keeps_bodies=True) as server:
        ask(tmp_path, service(server.url), requests(2, samples=3), SHORT)
        seeds = Counter(body["seed"] for body in server.service.bodies.values())
    assert seeds == {0: 2, 1: 2, 2: 2}


def choices(root: Path, where: Service, asked: list[Request]) -> list:
    with opened(root, where) as (model, _):
        return list(model.choose(asked))


def with_options(num: int) -> list[Request]:
    return [each_.model_copy(update={"options": ["A", "B"]}) for each_ in requests(num)]


def test_choices_from_log_probabilities(tmp_path: Path):
    top = {"A": math.log(0.3), "B": math.log(0.6)}
    said = Said(text="B", logprobs=[("B", math.log(0.6), top)])
    with Server(answer=lambda call: said) as server:
        found = choices(tmp_path, service(server.url), with_options(3))
        assert choices(tmp_path, service(server.url), with_options(3)) == found
        assert len(server.entries()) == 3
    for choice in found:
        assert choice.probabilities == pytest.approx([1 / 3, 2 / 3]) and not choice.is_parsed


def test_an_answer_begun_anew_is_not_weighed_by_what_is_left_over(tmp_path: Path):
    """A server that passes over `continue_final_message`: its digits have almost no probability."""
    top = {"The": math.log(0.99), "5": -14.0, "4": -14.3}
    begun = Said(text="The answer", logprobs=[("The", math.log(0.99), top), (" answer", -0.1, {})])
    with Server(answer=lambda call: begun, is_strict=False) as server:
        change = {"options": list("12345"), "continuation": "Good.\nScore: "}
        asked = [each_.model_copy(update=change) for each_ in requests(1)]
        [found] = choices(tmp_path, service(server.url), asked)
    assert (found.probabilities, found.is_parsed) == ([], True)


def test_choices_without_log_probabilities_are_read_from_the_text(tmp_path: Path):
    with Server(answer=lambda call: "(B)", plan=lambda call: "no-logprobs") as server:
        found = choices(tmp_path, service(server.url), with_options(2))
    assert [(choice.probabilities, choice.is_parsed) for choice in found] == [([0, 1], True)] * 2


@pytest.mark.timeout(15)
@pytest.mark.parametrize("content", [7, [{"token": "A", "top_logprobs": 5}], [{"token": "A",
                         "logprob": math.inf}]])  # fmt: skip
def test_odd_log_probabilities_hang_nobody(tmp_path: Path, monkeypatch, content):
    def change(reply):
        return {**reply, "choices": [{**c, "logprobs": {"content": content}}
                for c in reply["choices"]]}  # fmt: skip

    name = fault(monkeypatch, change=change)
    with Server(answer=lambda call: "(A)", plan=lambda call: name) as server:
        where = service(server.url, at_all={"max_attempts": 1})
        for _ in range(2):  # what is in the journal can be read again
            [found] = choices(tmp_path, where, with_options(1))
    assert found.error or found.probabilities in ([], [1.0, 0.0])


def test_a_rejected_choice_is_an_error(tmp_path: Path):
    with Server(plan=lambda call: "400") as server:
        [found] = choices(tmp_path, service(server.url), with_options(1))
    assert found.error and found.probabilities == []


def test_a_given_text_cannot_be_scored(tmp_path: Path):
    with (
        Server() as server,
        opened(tmp_path, service(server.url)) as (model, _),
        pytest.raises(ModelError, match="no log-probabilities of a given text"),
    ):
        list(model.logprobs(requests(1)))


def test_what_extra_and_omit_say_is_sent(tmp_path: Path):
    remote = Remote(model="teacher", extra={"reasoning_effort": "low"}, omit=("seed", "top_p"))
    with Server(keeps_bodies=True) as server:
        ask(tmp_path, service(server.url), requests(1), remote=remote)
        [body] = server.service.bodies.values()
    assert body["reasoning_effort"] == "low" and not {"seed", "top_p"} & body.keys()


def test_the_servers_books_know_a_request_by_its_body(tmp_path: Path):
    """What other tests rest on."""
    with Server() as server:
        ask(tmp_path, service(server.url), requests(3))
        assert server.billed().keys() == {server_key(request) for request in requests(3)}


# ---------------------------------------------------------------- keys


def nowhere(root: Path, *texts: str, key: str = KEY) -> None:
    """Assert that no file and no text holds the key, or a large part of it."""
    files = [path for path in root.rglob("*") if path.is_file()]
    assert any(path.suffix == ".sqlite" for path in files)
    found = [path.read_bytes() for path in files] + [text.encode() for text in texts]
    for part in (key[start : start + 8] for start in range(len(key) - 7)):
        assert not any(part.encode() in each_ for each_ in found), part


LONG = "x" * 280


@pytest.mark.parametrize("status", [400, 401, 500])
@pytest.mark.parametrize("pad", ["", LONG])
def test_a_key_that_the_server_repeats_is_kept_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, pad: str
):
    said = {"error": {"message": f"{pad} bad key Bearer {KEY} {pad}", "code": f"for {KEY}"}}
    name = fault(monkeypatch, status=status, error=said)
    notices: list[str] = []
    texts = []
    with Server(plan=in_order([name])) as server:
        where = service(server.url, at_all={"max_attempts": 1})
        try:
            found = ask(tmp_path, where, requests(3), notices=notices)
            texts = [reply.model_dump_json() for reply in found]
        except ModelError as error:
            texts = [str(error), repr(error)]
    nowhere(tmp_path, *texts, *notices)


@pytest.mark.parametrize("pad", [270, 282, 290])
def test_a_key_in_what_is_no_answer_is_kept_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pad: int
):
    raw = json.dumps({"choices": [], "said": "x" * (pad - 24) + KEY}).encode()
    name = fault(monkeypatch, text=raw)
    with Server(plan=lambda call: name) as server:
        [found] = ask(tmp_path, service(server.url, at_all={"max_attempts": 1}), requests(1))
    assert found.error
    nowhere(tmp_path, found.error)


def test_a_key_that_json_writes_otherwise_is_kept_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    key = "ab/cdefgh+ijkl/mnop=="
    monkeypatch.setenv(KEY_ENV, key)
    raw = json.dumps({"error": {"message": f"bad key {key}"}}).replace("/", "\\/").encode()
    name = fault(monkeypatch, status=400, text=raw)
    with Server(plan=lambda call: name, key=key) as server:
        [found] = ask(tmp_path, service(server.url), requests(1))
    nowhere(tmp_path, found.error, key=key)


# ---------------------------------------------------------------- ends


def test_a_second_run_at_the_same_time_is_one_clear_line(tmp_path: Path):
    with Server() as server:
        with opened(tmp_path, service(server.url)) as (model, _):
            list(model.generate(requests(1), SHORT))
            with pytest.raises(ArtifactError, match="another run is using this model") as error:
                ask(tmp_path, service(server.url), requests(1))
        assert len(str(error.value).splitlines()) == 1
        assert len(ask(tmp_path, service(server.url), requests(2))) == 2


def _interrupt(server: Server, num: int, *later: float) -> threading.Thread:
    """Ctrl-C, once the server has so many requests, and again after some seconds."""

    def wait() -> None:
        until(lambda: len(server.service.books.keys) >= num)
        for seconds in (0.1, *later):
            time.sleep(seconds)
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_an_interrupt_takes_in_what_is_on_its_way(tmp_path: Path):
    notices: list[str] = []
    with Server(latency_s=1.0) as server:
        other = _interrupt(server, 16)
        with pytest.raises(KeyboardInterrupt):
            ask(tmp_path, service(server.url), requests(100), notices=notices)
        other.join()
        num = len(server.entries())
        assert 16 <= num < 100
        assert len(committed(tmp_path)) == num == sum(server.billed().values())
        assert any("waiting for in-flight replies" in notice for notice in notices)
        assert left_state(tmp_path).is_closed
        server.service.latency_s = 0.0
        assert len(ask(tmp_path, service(server.url), requests(100))) == 100
        assert set(server.billed().values()) == {1}


@pytest.mark.timeout(60)
def test_a_second_interrupt_leaves_what_is_on_its_way(tmp_path: Path):
    notices: list[str] = []
    began = time.monotonic()
    with Server(plan=lambda call: "hang" if call.attempt == 0 else None) as server:
        other = _interrupt(server, 8, 0.4)
        with pytest.raises(KeyboardInterrupt):
            ask(tmp_path, service(server.url, concurrency=8), requests(8))
        other.join()
        assert time.monotonic() - began < 8
        assert not left_state(tmp_path).is_closed
        ask(tmp_path, service(server.url, concurrency=8), requests(8), notices=notices)
    assert any(
        "up to 8 in-flight requests" in notice and "billed twice" in notice for notice in notices
    )


def test_a_stage_that_stops_reading_leaves_nothing_behind(tmp_path: Path):
    with Server(latency_s=0.05) as server:
        with opened(tmp_path, service(server.url, concurrency=10)) as (model, _):
            replies = model.generate(requests(500), SHORT)
            assert next(iter(model.generate(requests(1, start=900), SHORT))).id == "r900"
            replies.close()
        num = len(server.entries())
        assert len(committed(tmp_path)) == num
    assert left_state(tmp_path).is_closed


def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(small_disk: Path):
    asked = requests(600, words=" word" * 200)
    with Server(answer=lambda call: "x" * 2_000, latency_s=0.01) as server:
        long = Sampling(max_new_tokens=1_000)
        with pytest.raises(OSError, match="full"):
            ask(small_disk, service(server.url), asked, long)
        kept = committed(small_disk)
        before = Counter({key: num for key, num in server.billed().items()})
        assert 0 < len(kept) < 600
        os.system(f"mount -o remount,size=16m {small_disk}")
        found = ask(small_disk, service(server.url), asked, long)
        again = Counter(server.billed()) - before
    assert [reply.id for reply in found] == [request.id for request in asked]
    for request in asked:
        if request.id in kept:
            assert again[server_key(request, long)] == 0


@pytest.mark.timeout(15)
def test_a_disk_that_is_full_from_the_start_hangs_nobody(small_disk: Path):
    with Server() as server, opened(small_disk, service(server.url)) as (model, _):
        fill = small_disk / "fill"
        with pytest.raises(OSError), fill.open("wb", buffering=0) as stream:
            while True:
                stream.write(b"x" * 512)
        with pytest.raises(OSError, match="full"):
            list(model.generate(requests(30), SHORT))
        fill.unlink()


@pytest.mark.timeout(15)
def test_a_prompt_that_is_no_unicode_is_an_error_of_its_own(tmp_path: Path):
    odd = Request(id="odd", messages=[Message(role="user", content="\ud800")])
    with Server() as server:
        found = ask(tmp_path, service(server.url), [odd, *requests(2)])
        assert len(server.entries()) == 2
    assert [bool(reply.error) for reply in found] == [True, False, False]
    assert "no valid Unicode" in (found[0].error or "")


def test_a_prompt_that_is_always_too_much_for_a_limit_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(endpoint_state, "LEAST_TOLD_PAUSE_S", 0.01)
    asked = requests(30)
    large = asked[3].messages[-1].content
    with Server(
        plan=lambda call: "429-ms" if call.text == large else None, retry_after_s=0.01
    ) as s:
        where = service(s.url, at_all={"max_attempts": 2})
        with pytest.raises(Unfinished, match=r"1 requests have no reply yet .throttled: 1"):
            ask(tmp_path, where, asked)
    assert len(committed(tmp_path)) == 29
