"""Ten million rows in the studio: first page, filter, search, memory.

    python benchmarks/studio.py FOLDER [--rows 10000000]

makes an artifact of rows of about 200 bytes in FOLDER (once), serves it in a process of its own
and times requests of pages that no request before has asked for.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from string import Template

import duckdb
import numpy as np
import psutil
import pyarrow as pa
from playwright.sync_api import sync_playwright

from spyhop.store.artifact import RECORD, Artifact, Record, digest_of, digests
from spyhop.store.parts import PART_ROWS, PartWriter
from spyhop.store.verify import sealed

NAME = "bench.rows-0123456789abcdef"
TASKS = [f"task_{n:02d}" for n in range(24)]
WORDS = np.array("the a of number answer because then whale cup lift add step so left".split())  # noqa: SIM905
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), False), pa.field("task", pa.string(), False),
        pa.field("collection", pa.string(), False), pa.field("text", pa.string(), False),
        pa.field("tokens", pa.int64(), False), pa.field("score", pa.float64(), True),
    ]
)  # fmt: skip


def make(store: Path, num_rows: int) -> Artifact:
    """Write the artifact: every row has its own text, of about 150 characters."""
    folder = store / NAME
    folder.mkdir(parents=True)
    rng, writer = np.random.default_rng(7), PartWriter(folder, SCHEMA)
    for start in range(0, num_rows, PART_ROWS):
        num = min(PART_ROWS, num_rows - start)
        words = WORDS[rng.integers(len(WORDS), size=(num, 28))]
        texts = [f"{' '.join(row)} {start + place}" for place, row in enumerate(words)]
        if start + num >= num_rows:
            texts[-1] += " needle"
        scores = rng.normal(3, 1, num)
        columns = [
            pa.array([f"{number:016x}" for number in rng.integers(1 << 62, size=num)]),
            pa.array(np.array(TASKS)[rng.integers(len(TASKS), size=num)]),
            pa.array(np.array(["cot", "flan", "niv2", "t0"])[rng.integers(4, size=num)]),
            pa.array(texts), pa.array(rng.integers(10, 500, num)),
            pa.array(scores, mask=rng.random(num) < 0.02),
        ]  # fmt: skip
        writer.add_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
    writer.close()
    return finished(folder, NAME, num_rows)


RATED = "curate.rate-0123456789abcdef"
RATINGS = """COPY (
    SELECT format('{:016x}', hash(i)) AS id, 'Question ' || i AS instruction,
    repeat('word ', 4 + (hash(i, 1) % 45)::INT) || i AS response,
    {'score': 1.0 + hash(i, 2) % 5, 'missing': '', 'value': random() * 4 + 1,
     'written': 1.0 + hash(i, 3) % 5, 'second_score': if(i % 10 = 0, 1.0 + hash(i, 4) % 5, NULL),
     'probabilities': [0.1, 0.2, 0.4, 0.2, 0.1], 'judge': 'toy', 'reason': ''} AS rating
    FROM range($start, $end) rows(i)) TO '$file' (FORMAT parquet, COMPRESSION zstd)"""


def make_rated(store: Path, num_rows: int) -> Artifact:
    """Write rated pairs, of about 200 bytes each, to rank for labelling."""
    folder = store / RATED
    folder.mkdir(parents=True)
    for place, start in enumerate(range(0, num_rows, PART_ROWS)):
        file = folder / f"part-{place:05d}.parquet"
        values = {"start": start, "end": min(start + PART_ROWS, num_rows), "file": file}
        duckdb.execute(Template(RATINGS).substitute(values))
    return finished(folder, RATED, num_rows)


def finished(folder: Path, name: str, num_rows: int) -> Artifact:
    """Write the record of a folder of parts."""
    found = digests(folder)
    record = Record(
        key=name[-16:], stage=name[:-17], version=1, config={}, inputs={}, rows=num_rows,
        digest=digest_of(found), files={name: short for name, (_, short) in found.items()},
    )  # fmt: skip
    (folder / RECORD).write_bytes(sealed(record.model_dump_json(indent=1)))
    return Artifact(folder, record)


REQUESTS = {
    "first page": "",
    "next page": "?after=0.49",
    "page in the middle": "?after=100.20000",
    "facet filter, page": "?is.task=task_03",
    "facet filter, counts": "/counts?is.task=task_03",
    "numeric filter, page": "?in.score=4.9:5",
    "numeric filter, counts": "/counts?in.score=4.9:5",
    "rare numeric filter, page": "?in.score=7.5:7.6",
    "counts and histograms": "/counts",
    "sorted by a number": "?sort=score&desc=1",
    "one row": "/row?at=150.4000",
    "common text, 50 hits": "/hits?q=whale",
    "text in the last row": "/hits?q=needle",
}
TIMES = 5


def timed(
    process: psutil.Process, address: str | urllib.request.Request
) -> tuple[float, float, float]:
    """Return seconds to the first bytes and to the last, and processor seconds of the server."""
    used, began = sum(process.cpu_times()[:2]), time.perf_counter()
    with urllib.request.urlopen(address, timeout=300) as reply:
        reply.read1(1)
        first = time.perf_counter() - began
        reply.read()
    return first, time.perf_counter() - began, sum(process.cpu_times()[:2]) - used


def paints(address: str) -> list[float]:
    """Return seconds to the first paint of a page in a new browser window, several times."""
    script = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        found = []
        for _ in range(TIMES):
            page = browser.new_context().new_page()
            page.goto(address)
            while not page.evaluate(script.partition("[")[0] + ".length"):
                page.wait_for_timeout(20)
            found.append(page.evaluate(script))
        browser.close()
    return found


def measure(store: Path) -> dict[str, dict[str, float]]:
    """Serve the store and time each request; filters differ a little from time to time."""
    code = "from spyhop.studio.app import serve; import sys; from pathlib import Path; "
    code += "serve([Path(sys.argv[1])], port=0)"
    server = subprocess.Popen(
        [sys.executable, "-c", code, str(store)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        base, process = server.stdout.readline().strip(), psutil.Process(server.pid)
        rows, found = f"{base}rows/{store.name}/{NAME}", {}
        for name, query in REQUESTS.items():
            sign = "&" if "?" in query else "?"
            is_new = "counts" in name or "filter" in name
            times = [
                timed(
                    process, f"{rows}{query}{sign}in.tokens={n}:10000" if is_new else rows + query
                )
                for n in range(TIMES)
            ]
            columns = ("first_byte_s", "whole_s", "cpu_s")
            found[name] = {
                f"{column}_{kind}": round(of(values), 3)
                for column, values in zip(columns, zip(*times, strict=True), strict=True)
                for kind, of in (("least", min), ("median", statistics.median))
            }
            print(f"{name:28} {found[name]} load {psutil.getloadavg()[0]:.1f}", flush=True)
        shown = paints(rows)
        found["first paint"] = {"least_s": min(shown), "worst_s": max(shown)}
        label = f"{base}label/{store.name}/{RATED}"
        found["label, page"] = {"whole_s": timed(process, label)[1]}
        part = urllib.request.Request(label, headers={"hx-request": "true"})
        _, seconds, cpu = timed(process, part)
        found["suspicious rows first"] = {"whole_s": seconds, "cpu_s": cpu}
        status = Path(f"/proc/{server.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        found["memory"] = {"peak_mb": round(int(peak.split()[1]) / 1000)}
        return found
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="its name may have letters and digits only")
    parser.add_argument("--rows", type=int, default=10_000_000)
    given = parser.parse_args()
    for name, write in ((NAME, make), (RATED, make_rated)):
        if not (given.folder / name / RECORD).exists():
            write(given.folder, given.rows)
    print(json.dumps(measure(given.folder.resolve()), indent=1))
    print(f"load average {psutil.getloadavg()}")
