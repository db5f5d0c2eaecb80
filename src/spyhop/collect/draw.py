"""Draw queries from collections of any size: count, run Algorithm 1 on the counts, read once more.

Source: Orca (arXiv:2306.02707), section 3.1.2, Table 3 and Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from spyhop.collect.priority import Hashes, priorities
from spyhop.collect.quotas import Counts, quotas
from spyhop.collect.spread import spread
from spyhop.collect.strata import Stratum
from spyhop.collect.stratum_index import StratumIndex, class_names
from spyhop.collect.table import QUERY, RowGroup, SourceTable, TableReader
from spyhop.lazy import duckdb
from spyhop.schema import Config, RecipeError
from spyhop.stage import TABLES, Context, Estimate, stage, sum_estimates
from spyhop.store import Artifact, row_id
from spyhop.text.options import NAMED, NAMED_NOT, OPTIONS

EVERY = np.uint64(2**64 - 1)
MEMORY_MB = 512
"""Memory of DuckDB, beyond which it spills to disk."""
BATCH_ROWS = 16_384
ROWS_PER_S = 550_000
"""Planning figure, from `benchmarks/sampling`."""


class DrawConfig(Config):
    """How many rows are drawn, and from what."""

    num_rows: int | None = Field(None, gt=0)
    """Rows to draw by Algorithm 1, uniformly over the live tasks; None takes all there are."""
    max_per_task: int | None = Field(None, gt=0)
    """No task gives more than this (no stratum of a task, where there are strata): 300 for Natural
    Instructions, a million for Flan 2021."""
    exclude: tuple[str, ...] = ()
    """Patterns of tasks to skip, such as `bigbench*`."""
    strata: tuple[Stratum, ...] = ()
    """Parts each task further; the draw is then uniform over the strata of the tasks."""
    table: SourceTable | None = None
    """What the columns are called where the inputs are folders of somebody else's Parquet files;
    None where they are queries already."""
    seed: int = 0


def plan_draw(
    config: DrawConfig, queries: Mapping[str, Estimate], difficulty: Estimate | None = None
) -> Estimate:
    """Rows of each task up to the limits, where the files tell the tasks; else all rows."""
    found = sum_estimates(queries.values())
    rows = found.rows
    tasks = [num for each in queries.values() for num in each.parts]
    if config.max_per_task is not None and tasks:
        rows = sum(min(num, config.max_per_task) for num in tasks)
    drawn = rows if config.num_rows is None else min(rows or config.num_rows, config.num_rows)
    return replace(found, rows=drawn, seconds=found.rows / ROWS_PER_S)


@stage(version=2, writes=TABLES, plan=plan_draw)
def draw(
    ctx: Context,
    config: DrawConfig,
    *,
    queries: Mapping[str, Artifact],
    difficulty: Artifact | None = None,
) -> Iterator[pa.RecordBatch]:
    """Draw rows, in an order that is random too, so that the first n are a sample themselves.

    The same rows whatever the files' names, order and number, and the number of threads. With the
    same seed, a smaller draw is part of a larger one. Candidates are kept on disk.

    Counts: `found/<task>` and `drawn/<task>`; with strata, `stratum/<classes>`.
    """
    reader = TableReader.of(list(queries.values()), config.table)
    cells = StratumIndex(reader, config.strata, config.exclude)
    if any(stratum.by == "difficulty" for stratum in config.strata):
        if difficulty is None or config.table is not None:
            raise RecipeError(
                "strata by difficulty need queries with ids, and the input `difficulty`"
            )
        cells.rate(difficulty)
    found = cells.count(ctx.runtime.threads)
    if not found.sum():
        raise RecipeError(f"nothing to draw from; passed over: {dict(cells.passed_over)}")
    wanted = found if config.max_per_task is None else np.minimum(found, config.max_per_task)
    if config.num_rows is not None:
        wanted = quotas(wanted.tolist(), config.num_rows, config.seed)
    _count(ctx, config, cells, found, wanted)
    thresholds = _thresholds(found, wanted)
    last_pass, passes = np.zeros_like(wanted), 0
    while thresholds.any():
        got = _collect(ctx, config, cells, passes, thresholds)
        short = (got < wanted) & (thresholds > 0)
        thresholds = np.where(short, EVERY, np.uint64(0))  # six sigma out, or rows of one text
        last_pass[short] += 1
        passes += 1
    yield from _chosen(ctx, wanted, last_pass, is_identified=config.table is None)


def _thresholds(found: Counts, wanted: Counts) -> Hashes:
    """Return a priority for each cell that its drawn rows lie below, with near certainty.

    Of n random numbers the q-th lowest is below (q + 6 sqrt(q) + 12) / n.
    """
    share = (wanted + 6 * np.sqrt(wanted) + 12) / np.maximum(found, 1)
    highest = np.where(share >= 1, 0.0, share) * 2.0**64
    thresholds = np.where(share >= 1, EVERY, highest.astype(np.uint64))
    return np.where(wanted > 0, thresholds, np.uint64(0))


def _collect(
    ctx: Context, config: DrawConfig, cells: StratumIndex, number: int, thresholds: Hashes
) -> Counts:
    """Write the rows below their cells' thresholds to disk; return the rows of each cell."""
    reader = cells.reader
    padded = np.append(thresholds, np.uint64(0))  # for the cell -1

    def below(group: RowGroup) -> Iterator[tuple[pa.RecordBatch, Counts, Hashes]]:
        for piece in reader.batches(group, reader.all_columns):
            places = cells.of(piece)
            found = priorities(reader.texts(piece.batch), config.seed)
            kept = np.flatnonzero((found <= padded[places]) & (padded[places] > 0))
            if len(kept):
                yield reader.queries(piece, pa.array(kept)), places[kept], found[kept]

    schema = QUERY.append(pa.field("cell", pa.int64())).append(pa.field("priority", pa.uint64()))
    counts = np.zeros(len(thresholds), np.int64)
    made = spread(reader.groups(), below, ctx.runtime.threads)
    with pq.ParquetWriter(ctx.state / f"pass-{number}.parquet", schema, compression="lz4") as file:
        for rows, places, found in ctx.track(made, "drawing", unit="batches"):
            counts += np.bincount(places, minlength=len(counts))
            columns = [*rows.columns, pa.array(places), pa.array(found)]
            file.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    return counts


def _chosen(
    ctx: Context, wanted: Counts, last_pass: Counts, *, is_identified: bool
) -> Iterator[pa.RecordBatch]:
    """Yield the `wanted` rows of lowest priority in each cell, in the order of priorities.

    Rows of a table get their ids and their `multiple_choice` flag.
    """
    limits = pa.table({"cell": np.arange(len(wanted)), "num": wanted, "pass": last_pass})
    values = {"files": str(ctx.state / "pass-*.parquet")}
    if not is_identified:
        values |= {"not": NAMED_NOT, "named": NAMED, "options": OPTIONS}
    rows, columns = _CHOSEN if is_identified else _IDENTIFIED, ", ".join(QUERY.names)
    with duckdb.connect(
        config={
            "memory_limit": f"{MEMORY_MB}MB",
            "temp_directory": str(ctx.state / "spilled"),
            "threads": ctx.runtime.threads,
        }
    ) as base:
        base.register("limits", limits)
        found = base.sql(f"SELECT {columns} FROM ({rows}) ORDER BY {_ORDER}", params=values)
        batches = found.to_arrow_reader(BATCH_ROWS)
        for batch in batches if is_identified else _numbered(batches):
            yield batch.cast(QUERY)


_ORDER = "priority, collection, task, query, target, origin"
"""Rows of equal priority, which have the same text, are ordered by their content."""
_CHOSEN = f"""
    SELECT rows.*
    FROM read_parquet($files, filename = true) AS rows JOIN limits
        ON rows.cell = limits.cell AND filename LIKE '%pass-' || limits.pass || '.parquet'
    QUALIFY row_number() OVER (PARTITION BY rows.cell ORDER BY {_ORDER}) <= num"""
_IDENTIFIED = f"""
    SELECT * REPLACE (
        left(sha256(concat_ws(chr(31), collection, task, query, target)), 16) AS id,
        CASE WHEN regexp_matches(lower(template), $not) THEN false
             WHEN regexp_matches(lower(template), $named) THEN true
             ELSE regexp_matches(query, $options) END AS multiple_choice)
    FROM ({_CHOSEN})"""


def _numbered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Count n into the id of the n-th row of one text; such rows follow each other."""
    before, num = "", 0
    for batch in batches:
        ids = batch["id"].to_pylist()
        for place, name in enumerate(ids):
            before, num = name, num + 1 if name == before else 1
            if num > 1:
                ids[place] = row_id(name, str(num))
        yield batch.set_column(batch.schema.get_field_index("id"), "id", pa.array(ids))


def _count(
    ctx: Context, config: DrawConfig, cells: StratumIndex, found: Counts, wanted: Counts
) -> None:
    for name, counts in (("found", found), ("drawn", wanted)):
        per_task = counts.reshape(len(cells.tasks), -1).sum(axis=1)
        for task, num in zip(cells.tasks, per_task.tolist(), strict=True):
            ctx.count(f"{name}/{task}", num)
    if config.strata:
        per_class = wanted.reshape(-1, cells.per_task).sum(axis=0)
        for place, num in enumerate(per_class.tolist()):
            ctx.count(f"stratum/{class_names(config.strata, place)}", num)
    for reason, num in cells.passed_over.items():
        ctx.count(f"passed_over/{reason}", num)
