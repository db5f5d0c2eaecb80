"""Main text, segments and workers, measured on public pages.

    SPYHOP_DATA=... python benchmarks/corpus.py extract     # F1, pages a second
    SPYHOP_DATA=... python benchmarks/corpus.py segments    # the how-to pages, by reason
    SPYHOP_DATA=... python benchmarks/corpus.py workers     # one and two processes

F1 is that of the article-extraction benchmark: runs of four words, each page weighs the same,
precision and recall are averaged before F1 is taken.
"""

import argparse
import gzip
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import trafilatura
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding
from resiliparse.parse.html import HTMLTree

from spyhop.corpus import SegmentConfig, scan, segment
from spyhop.corpus.extract import ExtractConfig, extract
from spyhop.stage import Runtime
from spyhop.store import Source

DATA = Path(os.environ["SPYHOP_DATA"])
ROUNDS = 3
COPIES = 12
"""Times that the article pages are repeated, so that two processes have something to do."""


def runs(text: str) -> Counter[tuple[str, ...]]:
    """Return the runs of four words."""
    words = re.findall(r"\w+", text)
    num = max(1, len(words) - 3) if words else 0
    return Counter(tuple(words[at : at + 4]) for at in range(num))


def precision_recall(gold: str, found: str) -> tuple[float, float]:
    """Return both for one page."""
    wanted, given = runs(gold), runs(found)
    common = (wanted & given).total()
    if wanted == given:
        return 1.0, 1.0
    return common / max(1, given.total()), common / max(1, wanted.total())


def ours(page: bytes) -> str:
    """The default; the title is no part of the gold text."""
    blocks = extract(page, "", ExtractConfig()).blocks
    return "\n".join(each.text for each in blocks if (each.kind, each.level) != ("heading", 1))


def decoded(page: bytes) -> str:
    """As resiliparse finds the encoding."""
    return bytes_to_str(page, detect_encoding(page))


EXTRACTORS: dict[str, Callable[[bytes], str]] = {
    "bare parsing (resiliparse)": lambda page: str(HTMLTree.parse(decoded(page)).title)[:0],
    "spyhop": ours,
    "spyhop, all tags new": ours,
    "resiliparse main content": lambda page: extract_plain_text(
        HTMLTree.parse(decoded(page)), main_content=True
    ),
    "trafilatura": lambda page: trafilatura.extract(page) or "",
    "trafilatura, no comments, no tables": lambda page: (
        trafilatura.extract(page, include_comments=False, include_tables=False) or ""
    ),
}


def measure_extract() -> None:
    """Print F1 and pages per second of processor time; the rounds of all take turns."""
    folder = DATA / "html_article_extraction_benchmark"
    gold = json.loads((folder / "ground-truth.json").read_text())
    names = sorted(gold)
    pages = [gzip.decompress((folder / f"html/{name}.html.gz").read_bytes()) for name in names]
    speeds: dict[str, list[float]] = {name: [] for name in EXTRACTORS}
    figures = {}
    for _ in range(ROUNDS):
        for name, extractor in EXTRACTORS.items():
            if name.endswith("new"):
                scan._KNOWN.clear()  # no tag is known, as in a new process
            started = time.process_time()
            found = [extractor(page) for page in pages]
            speeds[name].append(len(pages) / (time.process_time() - started))
            if name not in figures:
                pairs = [
                    precision_recall(gold[key]["articleBody"], text)
                    for key, text in zip(names, found, strict=True)
                ]
                precision, recall = (
                    statistics.fmean(column) for column in zip(*pairs, strict=True)
                )
                f1 = 2 * precision * recall / max(1e-9, precision + recall)
                figures[name] = f"precision {precision:.4f} recall {recall:.4f} F1 {f1:.4f}"
    for name, values in speeds.items():
        rates = ", ".join(f"{value:.0f}" for value in sorted(values))
        print(f"{name}: {figures[name]}; {statistics.median(values):.0f} pages/s ({rates})")


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
    parser.add_argument("what", choices=("extract", "segments", "workers"))
    globals()[f"measure_{parser.parse_args().what}"]()


if __name__ == "__main__":
    main()
