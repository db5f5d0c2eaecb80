"""Segments and workers, measured on public pages.

    SPYHOP_DATA=... python benchmarks/corpus.py segments    # the how-to pages, by reason
    SPYHOP_DATA=... python benchmarks/corpus.py workers     # one and two processes

Main text itself: `corpus_pages.py`.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from spyhop.corpus import SegmentConfig, segment
from spyhop.stage import Runtime
from spyhop.store import Source

DATA = Path(os.environ["SPYHOP_DATA"])
ROUNDS = 3
COPIES = 12
"""Times that the article pages are repeated, so that two processes have something to do."""


def measure_segments() -> None:
    """Print what became of the how-to pages."""
    with tempfile.TemporaryDirectory() as folder:
        source = Source(DATA / "html_scipy_lectures").open(Path(folder))
        made = segment.run(Path(folder), SegmentConfig(), pages={"one": source})
        pages = made.record.counts["pages"]
        print(f"{made.num_rows} segments of {pages} inputs, {made.num_rows / pages:.2f} a page")
        for reason, num in sorted(made.record.dropped.items(), key=lambda pair: -pair[1]):
            print(f"  {reason} {num}")


def measure_workers() -> None:
    """Print pages a second of the whole stage with one and with two processes, and CPU seconds.

    Two processes that share nothing tell what the machine has for a second one.
    """
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "in"
        for path in (DATA / "html_article_extraction_benchmark/html").iterdir():
            for copy in range(COPIES):
                target = folder / f"{copy:02d}/{path.name}"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        source = Source(folder).open(Path(root))
        rates: dict[int, list[float]] = {1: [], 2: []}
        spent: dict[int, list[str]] = {1: [], 2: []}
        gains = []
        for turn in range(ROUNDS):
            gains.append(_bare_seconds(1) * 2 / _bare_seconds(2))
            for num in rates:
                before = _cpu_seconds()
                out = Path(root) / f"out{turn}{num}"
                started = time.perf_counter()
                runtime = Runtime(processes=num)
                made = segment.run(out, SegmentConfig(), runtime=runtime, pages={"one": source})
                rate = made.record.counts["pages"] / (time.perf_counter() - started)
                rates[num].append(rate)
                parent, children = (b - a for a, b in zip(before, _cpu_seconds(), strict=True))
                spent[num].append(f"{parent:.1f} + {children:.1f}")
        for num, values in rates.items():
            shown = ", ".join(f"{value:.0f}" for value in sorted(values))
            print(f"{num} processes: {statistics.median(values):.0f} pages/s ({shown})")
            print(f"  CPU seconds of the parent and its workers: {', '.join(spent[num])}")
        print(f"two that share nothing: {statistics.median(gains):.2f} times one ({gains})")


def _cpu_seconds() -> tuple[float, float]:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    parent, children = (sum(resource.getrusage(kind)[:2]) for kind in kinds)
    return parent, children


def _bare_seconds(num: int) -> float:
    """Return how long so many processes take, each for the same loop."""
    code = "d = {}\nfor n in range(10_000_000): d[n & 4095] = n"
    started = time.perf_counter()
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(num)]
    for each in running:
        each.wait()
    return time.perf_counter() - started


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("segments", "workers"))
    globals()[f"measure_{parser.parse_args().what}"]()


if __name__ == "__main__":
    main()
