"""How fast answers come from an endpoint that fails now and then, or whose capacity changes.

    python benchmarks/teacher_faults.py               # a real server, over HTTP
    python benchmarks/teacher_faults.py --simulate    # the real schedule and retries, made-up clock

The plain loop has as many workers as may be in flight, each retrying at once until it has its
answer: the most that can be had, at the price of hammering the endpoint.
"""

import argparse
import asyncio
import heapq
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

from spyhop.models import Endpoint, Remote, Request, Sampling, Service
from spyhop.models.base import ModelUse
from spyhop.models.endpoint_state import EndpointState
from spyhop.models.failures import Failure
from spyhop.models.journal import State
from spyhop.models.replies import Usage
from spyhop.models.schedule import Admission, PendingBatch, PendingCall, RetryPolicy, Schedule
from spyhop.schema import Message
from spyhop.stage import Context, Runtime

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
KEY_ENV = "TEACHER_FAULTS_KEY"
NUM, CONCURRENCY = 2_600, 200
FAULTS = ("--fault", "429=0.01", "--fault", "529=0.02")


# ---------------------------------------------------------------- a real server


def plain(url: str, num: int, key: str) -> float:
    """Seconds of the plain loop."""

    async def main() -> None:
        stream = iter(range(num))
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"}, connector=aiohttp.TCPConnector(limit=0)
        ) as session:

            async def worker() -> None:
                for number in stream:
                    turns = [{"role": "user", "content": f"plain {number}"}]
                    body = {"model": "teacher", "messages": turns, "max_tokens": 40}
                    status = 0
                    while status != 200:
                        async with session.post(f"{url}/chat/completions", json=body) as response:
                            status = response.status
                            json.loads(await response.read())

            await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))

    began = time.monotonic()
    asyncio.run(main())
    return time.monotonic() - began


def ours(root: Path, url: str, num: int, start: int) -> float:
    """Seconds of a served model as a stage uses it."""
    where = Service(endpoints=(Endpoint(url=url, key_env=KEY_ENV, concurrency=CONCURRENCY),))
    requests = [
        Request(id=str(n), messages=[Message(role="user", content=f"ours {n}")])
        for n in range(start, start + num)
    ]
    ctx = Context(root, root, root, Runtime(device="cpu"), lambda progress: None)
    began = time.monotonic()
    with ctx.resources:
        model = ModelUse(Remote(model="teacher"), service=where).open(ctx)
        replies = list(model.generate(requests, Sampling(max_new_tokens=40)))
        seconds = time.monotonic() - began
    assert all(reply.error is None for reply in replies)
    return seconds


def real(latency_ms: int, num: int) -> None:
    """Both clients, without faults and with; ours twice, since it learns what is borne."""
    from server import KEY, ServerProcess

    os.environ[KEY_ENV] = KEY
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, faults in (("no faults", ()), ("1 % 429, 2 % 529", FAULTS)):
            with ServerProcess("--latency-ms", str(latency_ms), *faults, "--port", "0") as server:
                rows = [("plain loop", plain(server.url, num, KEY))]
                for run in range(2):
                    start = 10**6 * (len(faults) + run)
                    rows.append(
                        (f"spyhop, run {run + 1}", ours(root / name, server.url, num, start))
                    )
            for client, seconds in rows:
                share = rows[0][1] / seconds
                print(
                    f"{name:18} {client:14} {seconds:6.2f} s  {num / seconds:7.1f}/s  {share:.0%}"
                )


# ---------------------------------------------------------------- simulated


def simulate(capacity: Callable[[float], float], fails: float, seconds: float, most: int) -> float:
    """Good replies a second of the real schedule and retry policy at an endpoint of 1 s latency."""
    endpoint = EndpointState(Endpoint(url="http://x/v1", concurrency=most), "m")
    schedule, policy = Schedule([endpoint], None, State()), RetryPolicy(10**6, 10**9)
    batch, sampling = PendingBatch(num_pending=0), Sampling(max_new_tokens=40)
    source, number = random.Random(7), itertools.count()
    now, coming, busy, good = 0.0, [], 0, 0
    while now < seconds:
        if len(schedule) < most:
            turns = [Message(role="user", content="Why?")]
            calls = (Request(id=str(next(number)), messages=turns) for _ in range(most))
            schedule.add(PendingCall("generate", sampling, [(r.id, r)], batch) for r in calls)
        while isinstance(found := schedule.take(now), Admission):
            is_full = busy >= capacity(now)
            busy += not is_full
            latency_s = 0.02 if is_full else source.uniform(0.9, 1.1)
            is_bad = is_full or source.random() < fails
            heapq.heappush(coming, (now + latency_s, next(number), found, is_full, is_bad))
        if not coming or found < coming[0][0]:
            now = found
            continue
        now, _, event, is_full, is_bad = heapq.heappop(coming)
        if isinstance(event, PendingCall):
            schedule.put_back(event)
            continue
        busy -= not is_full
        schedule.release(event.reservation)
        if not is_bad:
            good += 1
            event.endpoint.answered(event.reservation, Usage(9, 0, 9, 0), {}, now)
            policy.answered()
            continue
        failure = Failure("throttled" if is_full else "overloaded", "no", 429, is_overrun=True)
        event.endpoint.failed(event.reservation, failure, now)
        wait_s, _ = policy.judge(event.call, failure, "", 0.0, is_large=False)
        heapq.heappush(coming, (now + wait_s, next(number), event.call, True, False))
    return good / seconds


def fixed(capacity: Callable[[float], float], fails: float, seconds: float, num: int) -> float:
    """The same with a fixed number in flight, each retried after 1 s."""
    source, good, busy = random.Random(7), 0, 0
    coming = [(source.random(), n, None) for n in range(num)]
    heapq.heapify(coming)
    while coming[0][0] < seconds:
        now, n, is_good = heapq.heappop(coming)
        if is_good is not None:
            busy -= 1
            good += is_good
        if busy >= capacity(now):
            heapq.heappush(coming, (now + 1.0, n, None))
            continue
        busy += 1
        heapq.heappush(coming, (now + source.uniform(0.9, 1.1), n, source.random() >= fails))
    return good / seconds


def simulated() -> None:
    """Print every case beside the best fixed concurrency."""
    cases: list[tuple[str, Callable[[float], float], float]] = [
        ("no faults", lambda s: 10**6, 0.0),
        ("3 % fail by chance", lambda s: 10**6, 0.03),
        ("10 % fail by chance", lambda s: 10**6, 0.10),
        ("100 are borne", lambda s: 100, 0.0),
        ("3 are borne", lambda s: 3, 0.0),
        ("150, for 2 minutes 75, 150", lambda s: 75 if 120 <= s < 240 else 150, 0.0),
        ("the same, 3 % fail by chance", lambda s: 75 if 120 <= s < 240 else 150, 0.03),
        ("10 s without any in 6 minutes", lambda s: 0 if 120 <= s < 130 else 10**6, 0.0),
    ]
    for name, capacity, fails in cases:
        rate = simulate(capacity, fails, 360, CONCURRENCY)
        best = max(fixed(capacity, fails, 360, num) for num in (3, 50, 75, 100, 150, 200))
        print(f"{name:32} {rate:6.1f}/s, best fixed {best:6.1f}/s: {rate / best:.0%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--latency-ms", type=int, default=1000)
    parser.add_argument("--num", type=int, default=NUM)
    chosen = parser.parse_args()
    if chosen.simulate:
        simulated()
    else:
        real(chosen.latency_ms, chosen.num)
