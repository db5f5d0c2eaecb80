"""A run that is killed at any moment loses nothing that was committed, and keeps the limits."""

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from asking import (
    KEY_ENV,
    SPAWN,
    ask,
    committed,
    left_state,
    requests,
    rows,
    run_to_end,
    server_key,
    service,
    until,
)
from server import KEY, ServerProcess
from spyhop.models import Service

MIXED = ["429=0.03", "500=0.03", "reset=0.02", "reset-billed=0.02", "cut=0.02", "json=0.02",
         "503-seconds=0.01", "empty-choices=0.01", "close=0.01", "slow=0.02"]  # fmt: skip
FAULTS = [word for part in MIXED for word in ("--fault", part)]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)


def start(root: Path, where: Service, num: int) -> Any:
    root.mkdir(exist_ok=True)
    process = SPAWN.Process(target=run_to_end, args=(str(root), where, num))
    process.start()
    return process


def finish(root: Path, where: Service, num: int, seconds: float = 120.0) -> list[list[Any]]:
    """Run again until it is done; return the rows."""
    end = time.monotonic() + seconds
    while not (root / "rows.jsonl").exists():
        assert time.monotonic() < end, "it never ends"
        process = start(root, where, num)
        process.join(seconds)
        assert process.exitcode is not None
    return [json.loads(line) for line in (root / "rows.jsonl").read_text().splitlines()]


def kill_when(process: Any, server: ServerProcess, num: int, more_s: float) -> None:
    """Kill a client some time after the server has heard of so many requests."""
    until(lambda: server.num_requests() >= num or not process.is_alive(), 60)
    time.sleep(more_s)
    process.kill()
    process.join()


def check_kills(root: Path, where: Service, server: ServerProcess, num: int, kills: int, seed: int):
    draw = random.Random(seed)
    asked = {request.id: server_key(request) for request in requests(num)}
    twice = 0
    for turn in range(1, kills + 1):
        process = start(root, where, num)
        seen = server.num_requests()
        kill_when(process, server, seen + draw.randint(1, num // kills), draw.uniform(0, 0.15))
        if process.exitcode != -signal.SIGKILL:
            break  # it was quicker
        kept = committed(root)
        before = Counter(server.billed())
        assert left_state(root).is_closed is False
        ceiling = left_state(root).ceiling
        # what was billed and did not come to be committed was in flight, or told as possibly billed
        told = rows(root, "SELECT key FROM failures WHERE maybe_billed")
        lost = sum(before.values()) - len(kept) - len(told)
        twice += ceiling
        assert lost <= twice, (turn, lost, twice)
        yield kept, before, asked


def check_rows(found: list[list[Any]], num: int) -> None:
    assert [row[0] for row in found] == [request.id for request in requests(num)]
    assert all(row[1].startswith("The answer is ") for row in found if row[2] is None)


def check_never_again(kept: dict, before: Counter, asked: dict, after: Counter) -> None:
    again = {name for name in kept if after[asked[name]] > before[asked[name]]}
    assert not again, "committed, and asked again"


def test_a_kill_loses_at_most_what_was_in_flight(tmp_path: Path):
    num = 200
    with ServerProcess("--latency-ms", "20", "--slow-s", "0.2", "--retry-after-s", "0.1",
                       "--attempts", "1", *FAULTS) as server:  # fmt: skip
        where = service(server.url, concurrency=8)
        seen = list(check_kills(tmp_path, where, server, num, 1, seed=3))
        found = finish(tmp_path, where, num)
        check_rows(found, num)
        after = Counter(server.billed())
        for kept, before, asked in seen:
            check_never_again(kept, before, asked, after)
        assert seen and not [row for row in found if row[2]]
        notices = json.loads((tmp_path / "notices.json").read_text())
        assert any("did not shut down cleanly: up to" in notice for notice in notices)
        assert committed(tmp_path).keys() == {row[0] for row in found}


@pytest.mark.waits
@pytest.mark.parametrize("seed", range(5))
def test_kills_at_random_moments(tmp_path: Path, seed: int):
    num = 1_500
    with ServerProcess("--latency-ms", "20", "--latency-sigma", "1", "--slow-s", "0.5",
                       "--retry-after-s", "0.2", "--attempts", "3", "--seed", str(seed),
                       *FAULTS) as server:  # fmt: skip
        where = service(server.url, concurrency=[4, 32, 256][seed % 3])
        seen = list(check_kills(tmp_path, where, server, num, 8, seed=seed))
        found = finish(tmp_path, where, num)
        check_rows(found, num)
        after = Counter(server.billed())
        for kept, before, asked in seen:
            check_never_again(kept, before, asked, after)
    assert len(seen) >= 4


def test_what_was_set_aside_of_the_budget_is_known_after_a_kill(tmp_path: Path):
    """16 requests in flight, 0.40 dollars each at most: none is forgotten."""
    with ServerProcess("--fault", "hang-billed=1") as server:
        where = service(
            server.url, usd_per_million_response=10_000.0, concurrency=16,
            at_all={"budget_usd": 100.0},
        )  # fmt: skip
        process = start(tmp_path, where, 100)
        kill_when(process, server, 16, 0.3)
        left = left_state(tmp_path)
        num = server.num_requests()
    assert num == 16 and not left.is_closed
    assert left.ceiling >= num
    assert left.ceiling_usd >= num * 0.4 - 1e-9


def test_the_journal_knows_of_the_last_minute_after_a_kill(tmp_path: Path):
    """The next run rests for what is left of it: the journal must know when it last sent."""
    with ServerProcess("--fault", "hang=1") as server:
        where = service(server.url, requests_per_min=240)
        process = start(tmp_path, where, 100)
        kill_when(process, server, 14, 0.0)
        at = time.time()
    assert at - left_state(tmp_path).at < 1.5


@pytest.mark.waits
@pytest.mark.timeout(400)
def test_limits_hold_across_kills(tmp_path: Path):
    num = 360
    with ServerProcess("--latency-ms", "50", "--requests", "300", "--tokens", "14000", "--lax",
                       "--fault", "500=0.02", "--attempts", "1") as server:  # fmt: skip
        where = service(server.url, requests_per_min=300, tokens_per_min=14_000)
        process = start(tmp_path, where, num)
        kill_when(process, server, 200, 1.0)
        notices: list[str] = []
        ask(tmp_path, where, requests(num), notices=notices)
        stats = server.stats()
    assert any("waiting" in notice for notice in notices)
    assert stats["violations"] == 0, stats["first_violation"]
    assert stats["billed_distinct"] == num


@pytest.mark.waits
@pytest.mark.timeout(400)
def test_limits_hold_across_a_kill_before_the_first_answer(tmp_path: Path):
    """Eight requests a minute, answered after 40 s: killed before any, and at once run again."""
    with ServerProcess("--latency-ms", "40000", "--requests", "8", "--lax") as server:
        where = service(server.url, requests_per_min=8)
        process = start(tmp_path, where, 20)
        kill_when(process, server, 5, 0.5)
        process = start(tmp_path, where, 20)
        time.sleep(70)
        process.kill()
        process.join()
        stats = server.stats()
    assert stats["violations"] == 0, stats["first_violation"]


@pytest.mark.waits
@pytest.mark.timeout(400)
def test_ten_times_ten_requests_of_a_clean_run_keep_the_limit_between_runs(tmp_path: Path):
    with ServerProcess("--requests", "100", "--lax") as server:
        where = service(server.url, requests_per_min=100)
        for turn in range(12):
            ask(tmp_path, where, requests(10, start=10 * turn))
        stats = server.stats()
    assert stats["violations"] == 0, stats["first_violation"]
    assert stats["billed"] == 120


def test_a_server_that_is_killed_and_comes_back(tmp_path: Path):
    asked = requests(150)
    with ServerProcess("--latency-ms", "20") as server:
        port = server.port
        process = start(tmp_path, service(server.url, concurrency=8), 150)
        until(lambda: server.num_requests() >= 50, 30)
    with ServerProcess("--latency-ms", "20", "--port", str(port)) as server:
        process.join(60)
        again = server.billed()
    assert process.exitcode == 0
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    check_rows(lines, 150)
    assert not [row for row in lines if row[2]]
    assert len(again) <= 150 - 30 and set(again.values()) == {1}
    assert len(committed(tmp_path)) == len(asked)


EVERY = [
    *("429", "429-seconds", "429-date", "429-ms", "429-nonsense", "429-html", "408", "409", "500"),
    *("500-empty", "502", "503", "503-seconds", "504", "529", "reset", "close", "hang", "html"),
    *("error-200", "reset-billed", "hang-billed", "cut", "cut-reset", "cut-chunked", "empty-body"),
    *("json", "not-utf8", "array", "no-choices", "empty-choices", "null-message", "null", "empty"),
    *("length", "filter", "refusal", "no-finish", "number-content", "string-usage", "slow"),
    *("chunked", "drip", "last", "twice", "no-logprobs", "400", "400-filter", "413", "422"),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_bill_is_known_over_ten_kills_under_every_fault(tmp_path: Path):
    """1,200 prompts: one row each, none asked again, and the server's books as they were stated."""
    num, kills, per_prompt, per_response = 1_200, 10, 3.0, 12.0
    faults = [word for name in EVERY for word in ("--fault", f"{name}=0.006")]
    with ServerProcess("--latency-ms", "30", "--slow-s", "0.2", "--retry-after-s", "0.1",
                       "--attempts", "2", *faults) as server:  # fmt: skip
        where = service(
            server.url, concurrency=48, timeout_s=2.0,
            usd_per_million_prompt=per_prompt, usd_per_million_response=per_response,
            at_all={"budget_usd": 100.0},
        )  # fmt: skip
        seen = list(check_kills(tmp_path, where, server, num, kills, seed=11))
        assert len(seen) == kills
        found = finish(tmp_path, where, num, 300.0)
        after, entries = Counter(server.billed()), server.entries()
    assert [row[0] for row in found] == [request.id for request in requests(num)]
    for kept, before, asked in seen:
        check_never_again(kept, before, asked, after)
    prices = [1e-6 * (per_prompt * e.input_used + per_response * e.output_used) for e in entries]
    billed = [(e.key, usd) for e, usd in zip(entries, prices, strict=True) if e.is_billed]
    charged = dict(billed)
    kept, state = committed(tmp_path), left_state(tmp_path)
    stated = sum(reply.usd for reply in kept.values())
    real = sum(charged[server_key(request)] for request in requests(num) if request.id in kept)
    assert real <= stated * (1 + 1e-9) and stated <= 1.01 * real
    bill = sum(usd for _, usd in billed)
    assert state.is_closed and stated <= state.spent_usd
    assert bill <= state.spent_usd + state.unsettled_usd
    failed = [row for row in found if row[2] is not None]
    assert len(kept) + len(failed) == num and len(failed) < 0.1 * num
