"""Ten million rows in the studio: first page, filter, search, memory.

    python benchmarks/studio.py FOLDER [--rows 10000000]

makes an artifact of rows of about 200 bytes in FOLDER (once), serves it in a process of its own
and times requests of pages that no request before has asked for.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa

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
    found = digests(folder)
    record = Record(
        key=NAME[-16:], stage="bench.rows", version=1, config={}, inputs={}, rows=num_rows,
        digest=digest_of(found), files={name: short for name, (_, short) in found.items()},
    )  # fmt: skip
    (folder / RECORD).write_bytes(sealed(record.model_dump_json(indent=1)))
    return Artifact(folder, record)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    given = parser.parse_args()
    if not (given.folder / NAME / RECORD).exists():
        make(given.folder, given.rows)
