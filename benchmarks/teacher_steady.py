"""How much of a limit per minute is used over ten minutes, and whether any window exceeds it.

    python benchmarks/teacher_steady.py

Every case has a server of its own that enforces the limit, counts what arrives in any 60 seconds,
and answers after 2 s (log-normal, sigma 0.5). The cases run side by side; eleven minutes in all.
The first minute is the climb and is not counted.
"""

import argparse
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from server import Entry, ServerProcess
from spyhop.models import Remote, Request, Sampling
from spyhop.models.base import ModelUse
from spyhop.models.service import Endpoint, Service
from spyhop.schema import Message
from spyhop.stage import Context, Runtime

KEY_ENV = "STEADY_KEY"
PROMPT_CHARS, MAX_TOKENS, ANSWER_CHARS = 1000, 500, 2000
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """A limit, as the server knows it and as it is declared to the client."""

    name: str
    server: list[str]
    limits: dict[str, Any]
    binding: int
    """The limit that binds, per minute."""
    is_tokens: bool = False


CASES = (
    Case("300 requests/min", ["--requests", "300"], {"requests_per_min": 300}, 300),
    Case("6,000 requests/min", ["--requests", "6000"], {"requests_per_min": 6000}, 6000),
    Case(
        "120,000 tokens/min, as reserved (and 300 requests/min)",
        ["--requests", "300", "--tokens", "120000"],
        {"requests_per_min": 300, "tokens_per_min": 120_000},
        120_000,
        is_tokens=True,
    ),
    Case(
        "400,000 tokens/min, as used",
        ["--tokens", "400000", "--counts", "used"],
        {"tokens_per_min": 400_000, "counts": "used"},
        400_000,
        is_tokens=True,
    ),
)


def main() -> None:
    """Run all cases side by side and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=11.0)
    minutes = parser.parse_args().minutes
    rows: dict[str, str] = {}
    threads = [threading.Thread(target=measure, args=(case, minutes, rows)) for case in CASES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cores = os.cpu_count()
    print(f"{datetime.now(UTC):%Y-%m-%d}. {cores} cores; Python {platform.python_version()}.\n")
    print("| the limit that binds | used after the first minute | lowest minute | most in any 60 s "
          "| told to wait (429) |\n|---|---|---|---|---|")  # fmt: skip
    for case in CASES:
        print(rows[case.name])


def measure(case: Case, minutes: float, rows: dict[str, str]) -> None:
    """Ask one server for so many minutes and write down what it counted."""
    options = ["--latency-ms", "2000", "--latency-sigma", "0.5", "--lenient"]
    options += ["--answer-chars", str(ANSWER_CHARS), *case.server]
    with ServerProcess(*options) as server, tempfile.TemporaryDirectory() as folder:
        os.environ[KEY_ENV] = server.key
        began = time.monotonic()
        ask(case, server.url, Path(folder), until=began + minutes * MINUTE_S)
        entries = server.entries()
    events = [(entry.time, amount(case, entry)) for entry in entries if entry.outcome == "ok"]
    first = events[0][0]
    bounds = [first + MINUTE_S * place for place in range(1, int(minutes) + 1)]
    bounds = [bound for bound in bounds if bound <= began + minutes * MINUTE_S]
    held = [
        sum(what for when, what in events if start <= when < stop) / case.binding
        for start, stop in pairwise(bounds)
    ]
    num_limited = sum(entry.outcome == "limit" for entry in entries)
    rows[case.name] = (
        f"| {case.name} | {sum(held) / len(held):.1%} of {len(held)} minutes | {min(held):.1%} "
        f"| {most(events) / case.binding:.1%} | {num_limited} |"
    )


def ask(case: Case, url: str, root: Path, *, until: float) -> None:
    """Ask prompt after prompt until the time has come."""
    for name in ("out", "state"):
        (root / name).mkdir()
    endpoint = Endpoint(url=url, key_env=KEY_ENV, concurrency=512, **case.limits)
    service = Service(endpoints=(endpoint,))
    ctx = Context(root, root / "out", root / "state", Runtime(device="cpu"), lambda _: None)
    with ctx.resources:
        model = ModelUse(Remote(model="teacher"), service=service).open(ctx)
        model.window = max(128, case.binding // 10 if not case.is_tokens else 0)

        def requests() -> Iterator[Request]:
            place = 0
            while time.monotonic() < until:
                text = f"{case.name} {place} ".ljust(PROMPT_CHARS, "x")
                yield Request(id=str(place), messages=[Message(role="user", content=text)])
                place += 1

        for _ in model.generate(requests(), Sampling(max_new_tokens=MAX_TOKENS)):
            if time.monotonic() > until:
                break


def amount(case: Case, entry: Entry) -> int:
    """Return what a request took of the limit, as the server counts it in the end."""
    return entry.input_counted + entry.output_counted if case.is_tokens else 1


def most(events: list[tuple[float, int]]) -> int:
    """Return the most that arrived in any 60 seconds."""
    best = held = start = 0
    for when, what in events:
        held += what
        while events[start][0] <= when - MINUTE_S:
            held -= events[start][1]
            start += 1
        best = max(best, held)
    return best


if __name__ == "__main__":
    main()
