"""What a hostile batch API and kills cost: requests lost, requests paid twice.

    python benchmarks/batches.py --api openai --num 100000 --kills 50

The server of the tests (`tests/batch_server.py`) runs in a process of its own. Of each request's
first turn half expire; of all turns 5 % fail with 500, 3 % are missing from the results and 12 %
come twice; results are shuffled, and some calls to start a batch or to read results are cut off
after their effect. The client is killed (SIGKILL) at random moments and started again, then runs
to its end. It is forked from a process with everything loaded, so that kills hit its work and not
its imports; the journal then says where they hit. The server's books say what was paid.
"""

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from asking import KEY_ENV, SPAWN, left_state, requests, rows
from asking import ask as replies
from batch_server import KEY, serve
from spyhop.models import Request, Service, batch_client

BREAKS = {"create": 6, "results": 6, "upload": 3}
PRICES = {"usd_per_million_prompt": 2.0, "usd_per_million_response": 10.0}


def ask(root: str, url: str, api: str, asked: list[Request]) -> None:
    """Ask everything, in a process of its own."""
    os.environ[KEY_ENV] = KEY
    batch_client.FIRST_POLL_S, batch_client.LONGEST_POLL_S, batch_client.SETTLE_S = 0.01, 0.05, 3.0
    endpoint = {"url": url, "api": api, "key_env": KEY_ENV, "batch": True, **PRICES}
    found = replies(Path(root), Service.model_validate({"endpoints": [endpoint]}), asked)
    good = [reply.text == f"re: number {place}" for place, reply in enumerate(found)]
    Path(root, "done").write_text(str(sum(good)))


def moment(root: Path) -> str:
    """Where a kill hit, by what the journal then holds."""
    if not list((root / ".journal").glob("*.sqlite")):
        return "before the journal"
    jobs = [job for (job,) in rows(root, "SELECT job FROM jobs")]
    if any('"ids": []' in job and '"uploaded": ""' in job for job in jobs):
        return "before the upload was confirmed"
    if any('"ids": []' in job for job in jobs):
        return "between upload and confirmed start"
    return "while batches were open" if jobs else "while no batch was open"


def main(api: str, num: int, kills: int, longest_s: float) -> None:
    """Run, and print what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        root, draw = Path(folder), random.Random(7)
        ours, theirs = SPAWN.Pipe()
        server = SPAWN.Process(target=serve, args=(api, BREAKS, theirs), daemon=True)
        server.start()
        url, began, num_kills, moments = ours.recv(), time.monotonic(), 0, Counter[str]()
        asked, fork = requests(num), multiprocessing.get_context("fork")
        while not (root / "done").exists():
            process = fork.Process(target=ask, args=(folder, url, api, asked))
            process.start()
            process.join(draw.uniform(0.1, longest_s) if num_kills < kills else None)
            if process.is_alive():
                process.kill()
                process.join()
                num_kills += 1
                moments[moment(root)] += 1
                print(f"{num_kills} kills, {time.monotonic() - began:.0f} s", file=sys.stderr)
            elif process.exitcode:
                print(f"the client ended with {process.exitcode}", file=sys.stderr)
        ours.send("books")
        paid, num_jobs = ours.recv()
        ours.send("end")
        good, state = int((root / "done").read_text()), left_state(root)
        twice = sum(times - 1 for times in paid.values())
        print(
            f"{datetime.now(UTC):%Y-%m-%d}, {api}: {num:,} requests, {num_jobs} batches, "
            f"{num_kills} kills, {time.monotonic() - began:.0f} s\n"
            f"lost or wrong: {num - good:,}; paid: {len(paid):,}; paid twice: {twice:,}, reported "
            f"as perhaps paid twice: {state.num_maybe_twice:,}\n"
            f"${state.spent_usd:.4f} counted, ${len(paid) * 0.5 * (10 * 2e-6 + 5 * 10e-6):.4f} due"
        )
        for name, times in moments.most_common():
            print(f"killed {name}: {times}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--api", choices=["openai", "anthropic", "gemini"], default="openai")
    parser.add_argument("--num", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest-s", type=float, default=6.0)
    chosen = parser.parse_args()
    main(chosen.api, chosen.num, chosen.kills, chosen.longest_s)
