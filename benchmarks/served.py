"""How much of their rates four replicas give while one of them dies each minute.

    python benchmarks/served.py --num 100000

Four servers (`tests/server.py`, each a process of its own) stand for replicas: each has `--slots`
requests in work at a time, lets others wait, and takes `--latency-ms` for each: its rate is slots
over latency. A folder holds their URLs. Each minute one is killed (SIGKILL); after `--away-s` it is
started again, on another port, as a scheduler would. The client is the one that runs use. Two
rates are told: of all four servers all the time, and of those that were up.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from asking import KEY_ENV, SHORT, opened, requests
from server import KEY, ServerProcess
from spyhop.models import Service

SERVERS, PERIOD_S = 4, 60.0


class Replica:
    """A server and its file; `up_s` is how long it has been up."""

    def __init__(self, folder: Path, name: str, options: list[str]) -> None:
        self.file, self.options, self.up_s = folder / name, options, 0.0
        self.num_requests = self.num_deaths = 0
        self.start()

    def start(self) -> None:
        """Start the server and register its URL."""
        self.server = ServerProcess(*self.options).__enter__()
        self.began = time.monotonic()
        aside = self.file.with_name("." + self.file.name)
        aside.write_text(self.server.url)
        aside.rename(self.file)

    def kill(self) -> None:
        """Kill the server; its file stays, as after a lost host."""
        self.up_s += time.monotonic() - self.began
        self.num_requests += self.server.num_requests()
        self.server.__exit__()


def disturb(replicas: list[Replica], away_s: float, is_over: threading.Event) -> None:
    """Kill one replica each minute, in turn."""
    turn = 0
    while not is_over.wait(PERIOD_S - away_s if turn else PERIOD_S / 2):
        replica = replicas[turn % SERVERS]
        replica.kill()
        replica.num_deaths += 1
        is_over.wait(away_s)
        replica.start()
        turn += 1


def main(num: int, slots: int, latency_ms: float, away_s: float) -> None:
    """Ask, and print the rate beside those of the servers."""
    os.environ[KEY_ENV] = KEY
    options = ["--slots", str(slots), "--latency-ms", str(latency_ms), "--answer-chars", "400"]
    with tempfile.TemporaryDirectory() as folder:
        urls, is_over = Path(folder, "urls"), threading.Event()
        urls.mkdir()
        replicas = [Replica(urls, f"replica-{place}", options) for place in range(SERVERS)]
        endpoint = {"urls": urls, "key_env": KEY_ENV}  # 64 in flight at each, as by default
        where = Service.model_validate({"endpoints": [endpoint]})
        killer = threading.Thread(target=disturb, args=(replicas, away_s, is_over))
        killer.start()
        began, cpu = time.monotonic(), time.process_time()
        for replica in replicas:
            replica.began = began
        with opened(Path(folder, "out"), where) as (model, _):
            asked = (each for start in range(0, num, 10_000)
                     for each in requests(min(10_000, num - start), start=start))  # fmt: skip
            good = sum(reply.error is None for reply in model.generate(asked, SHORT, total=num))
            took_s = time.monotonic() - began
        cpu = time.process_time() - cpu
        is_over.set()
        killer.join()
        for replica in replicas:
            replica.kill()
        rate = slots / latency_ms * 1000
        late_s = time.monotonic() - began - took_s
        up_s = sum(replica.up_s for replica in replicas) - SERVERS * late_s
        print(
            f"{datetime.now(UTC):%Y-%m-%d}: {good:,} of {num:,} answers in {took_s:.1f} s, "
            f"{good / took_s:.1f}/s; {SERVERS} servers of {rate:.0f}/s; "
            f"{sum(each.num_deaths for each in replicas)} deaths of {away_s:g} s\n"
            f"of the rate of all: {good / took_s / rate / SERVERS:.1%}; of those that were up: "
            f"{good / rate / up_s:.1%}; calls begun: {sum(r.num_requests for r in replicas):,}; "
            f"client: {1000 * cpu / num:.2f} ms of processor time an answer"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=1_000_000)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--latency-ms", type=float, default=400.0)
    parser.add_argument("--away-s", type=float, default=5.0)
    chosen = parser.parse_args()
    main(chosen.num, chosen.slots, chosen.latency_ms, chosen.away_s)
