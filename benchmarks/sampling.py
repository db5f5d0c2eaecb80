"""Draw 2.5 M of 30 M rows by Algorithm 1: spyhop, reading alone, polars and datasets.

    python benchmarks/sampling.py generate FOLDER
    python benchmarks/sampling.py run FOLDER read spyhop polars datasets --rounds 2 --drawn 2500000

Each way runs in a process of its own; wall and processor seconds and the peak of resident memory
are printed.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS, FILES, TASKS, DRAWN = 30_000_000, 15, 200, 2_500_000


def generate(folder: Path, rows: int) -> None:
    """Rows of some 280 bytes, in 200 tasks of very different sizes."""
    import duckdb

    folder.mkdir(parents=True, exist_ok=True)
    base = duckdb.connect(config={"threads": 2, "memory_limit": "2GB"})
    each = rows // FILES
    for number in range(FILES):
        base.execute(
            f"""COPY (
                SELECT 'task' || least({TASKS - 1}, (u * u * {TASKS})::int) AS task,
                    'Question ' || i || ': ' || md5(i::varchar) || ' what follows from '
                    || md5((i + 1)::varchar) || ' when ' || md5((i + 2)::varchar) || ' and '
                    || md5((i * 7)::varchar) || ' as well as ' || md5((i * 11)::varchar) || '?'
                    AS inputs,
                    md5((i * 3)::varchar) AS targets
                FROM (SELECT i, ((i * 2654435761) % 1000003) / 1000003.0 AS u
                      FROM range({number * each}, {(number + 1) * each}) t(i))
            ) TO '{folder}/part-{number:03d}.parquet' (COMPRESSION zstd, ROW_GROUP_SIZE 100000)"""
        )


def read(folder: Path, out: Path, drawn: int) -> int:
    """Every column of every row, and nothing done with it."""
    import pyarrow.parquet as pq

    return sum(
        batch.num_rows
        for path in sorted(folder.glob("*.parquet"))
        for batch in pq.ParquetFile(path).iter_batches(batch_size=16_384)
    )


def spyhop(folder: Path, out: Path, drawn: int) -> int:
    """The stage, its record and digest included; the source's own digest is taken before."""
    from spyhop.collect import DrawConfig, SourceTable, draw
    from spyhop.stage import Runtime
    from spyhop.store import Source

    config = DrawConfig(num_rows=drawn, table=SourceTable(collection="flan2021"))
    made = draw.run(
        out, config, runtime=Runtime(threads=2), queries={"one": Source(folder).open(out)}
    )
    return made.num_rows


def polars(folder: Path, out: Path, drawn: int) -> int:
    """Quotas from the counts, then a shuffled number within each task, in the lazy engine."""
    import polars as pl

    from spyhop.collect.draw import quotas

    table = pl.scan_parquet(folder / "*.parquet")
    counts = table.group_by("task").len().sort("task").collect(engine="streaming")
    wanted = counts.with_columns(quota=pl.Series(quotas(counts["len"].to_list(), drawn, 0)))
    place = pl.int_range(pl.len()).shuffle(seed=0).over("task")
    chosen = table.with_columns(place=place).join(wanted.lazy(), on="task")
    chosen = chosen.filter(pl.col("place") < pl.col("quota")).select("task", "inputs", "targets")
    chosen.sink_parquet(out / "drawn.parquet")
    return pl.scan_parquet(out / "drawn.parquet").select(pl.len()).collect().item()


def datasets(folder: Path, out: Path, drawn: int) -> int:
    """The tasks as numpy, places drawn per task, then `select` and one Parquet file."""
    import numpy as np
    from datasets import load_dataset

    from spyhop.collect.draw import quotas

    files = sorted(str(path) for path in folder.glob("*.parquet"))
    table = load_dataset("parquet", data_files=files, split="train", cache_dir=str(out / "cache"))
    tasks = np.array(table.with_format("arrow")[:]["task"].to_numpy(zero_copy_only=False))
    _, codes, counts = np.unique(tasks, return_inverse=True, return_counts=True)
    wanted = quotas(counts.tolist(), drawn, 0)
    random = np.random.default_rng(0)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(counts)
    places = np.concatenate(
        [random.choice(order[end - n : end], q, replace=False)
         for end, n, q in zip(ends, counts, wanted, strict=True)]
    )  # fmt: skip
    table.select(places).to_parquet(str(out / "drawn.parquet"))
    return len(places)


WAYS = {way.__name__: way for way in (read, spyhop, polars, datasets)}


def main() -> None:
    """Read the arguments and run one way, or all of them in processes of their own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("do", choices=["generate", "run", "one"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("ways", nargs="*", choices=[*WAYS, []])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--drawn", type=int, default=DRAWN)
    given = parser.parse_args()
    if given.do == "generate":
        generate(given.folder, given.rows)
    elif given.do == "one":
        with tempfile.TemporaryDirectory(dir=given.folder.parent) as out:
            if given.ways[0] == "spyhop":
                from spyhop.store import Source

                Source(given.folder).open(Path(out))
            used = resource.getrusage(resource.RUSAGE_SELF)
            before = used.ru_utime + used.ru_stime
            started = time.perf_counter()
            rows = WAYS[given.ways[0]](given.folder, Path(out), given.drawn)
            seconds = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu = used.ru_utime + used.ru_stime - before
        figures = {"rows": rows, "seconds": round(seconds, 1), "cpu_s": round(cpu, 1)}
        print(json.dumps({**figures, "peak_gb": round(used.ru_maxrss / 1e6, 2)}))
    else:
        for _ in range(given.rounds):
            for way in given.ways:
                command = [sys.executable, __file__, "one", str(given.folder), way]
                command += ["--drawn", str(given.drawn)]
                done = subprocess.run(command, capture_output=True, text=True)
                last = (done.stdout or done.stderr).strip().splitlines()[-1:]
                print(way, *last, f"exit {done.returncode}", flush=True)


if __name__ == "__main__":
    main()
