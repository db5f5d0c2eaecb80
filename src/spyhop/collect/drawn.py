"""Rows that may be drawn, kept on disk in DuckDB until the exact choice among them can be made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spyhop.collect.cells import Counts
from spyhop.collect.priority import Hashes
from spyhop.collect.table import QUERY
from spyhop.lazy import Lazy
from spyhop.store import row_id
from spyhop.text.options import NAMED, NAMED_NOT, OPTIONS

if TYPE_CHECKING:
    import duckdb
else:
    duckdb = Lazy("duckdb")

MEMORY_MB = 768
HELD_ROWS = 50_000
OUT_ROWS = 50_000
ROWS = QUERY.append(pa.field("cell", pa.int64())).append(pa.field("priority", pa.uint64()))


class Drawn:
    """Rows with their cell and priority, in files: one for each time that the table was read.

    Memory is capped; what does not fit lies on disk.
    """

    def __init__(self, folder: Path, *, threads: int) -> None:
        """Work in a folder that nobody else uses."""
        self._folder, self._threads = folder, threads
        self._held: list[pa.RecordBatch] = []
        self._file: pq.ParquetWriter | None = None
        self._passes: list[Path] = []

    def begin(self) -> None:
        """Begin another pass over the table; a cell's rows are those of its last pass."""
        self._end()
        self._passes.append(self._folder / f"pass-{len(self._passes)}.parquet")
        self._file = pq.ParquetWriter(
            self._passes[-1], ROWS, compression="none", use_dictionary=False
        )

    def add(self, queries: pa.RecordBatch, cells: Counts, priorities: Hashes) -> None:
        """Take in rows."""
        columns = [*queries.columns, pa.array(cells), pa.array(priorities)]
        self._held.append(pa.RecordBatch.from_arrays(columns, schema=ROWS))
        if sum(batch.num_rows for batch in self._held) >= HELD_ROWS:
            self._flush()

    def num_rows(self, num_cells: int) -> Counts:
        """Return the number of rows in each cell that the last pass found."""
        self._end()
        counts = np.zeros(num_cells, np.int64)
        with pq.ParquetFile(self._passes[-1]) as file:
            for batch in file.iter_batches(columns=["cell"]):
                counts += np.bincount(batch["cell"].to_numpy(), minlength=num_cells)
        return counts

    def batches(
        self, wanted: Counts, last_pass: Counts, *, is_identified: bool
    ) -> Iterator[pa.RecordBatch]:
        """Yield the `wanted` rows of lowest priority in each cell, in the order of priorities.

        Rows that are not identified yet get their ids, and are told to be multiple choice or not.
        """
        self._end()
        with duckdb.connect(
            config={
                "memory_limit": f"{MEMORY_MB}MB",
                "temp_directory": str(self._folder / "spilled"),
                "threads": self._threads,
                "preserve_insertion_order": False,
            }
        ) as base:
            cells = {"cell": range(len(wanted)), "num": wanted, "pass": last_pass}
            base.register("wanted", pa.table(cells))
            for number, path in enumerate(self._passes):
                base.execute(_PASS.format(number=number, path=str(path).replace("'", "''")))
            union = " UNION ALL ".join(f"FROM pass{n}" for n in range(len(self._passes)))
            base.execute(f"CREATE VIEW rows AS {union}")
            base.execute(_LAST)
            chosen = base.sql(
                _CHOSEN.format(columns="*" if is_identified else _IDENTIFIED),
                params=[] if is_identified else [NAMED_NOT, NAMED, OPTIONS],
            )
            before: tuple[str, int] = ("", 0)
            for batch in chosen.to_arrow_reader(OUT_ROWS):
                if not is_identified:
                    batch, before = _numbered(batch, before)
                yield batch.select(QUERY.names).cast(QUERY)

    def _flush(self) -> None:
        if self._held:
            assert self._file is not None
            self._file.write_table(pa.Table.from_batches(self._held))
            self._held.clear()

    def _end(self) -> None:
        self._flush()
        if self._file is not None:
            self._file.close()
            self._file = None


_PASS = """
    CREATE VIEW pass{number} AS SELECT rows.* FROM read_parquet('{path}') AS rows
    WHERE cell IN (SELECT cell FROM wanted WHERE pass = {number})"""
# Narrow columns decide: the last priority of each cell, and how many rows of that very priority
# (rows of one text) are still wanted. Whole rows are only read once, to be put in order.
_LAST = """
    CREATE TABLE last AS
    WITH placed AS (
        SELECT cell, priority, row_number() OVER (PARTITION BY cell ORDER BY priority) AS place
        FROM rows
    ), ends AS (
        SELECT cell, num, priority AS last FROM placed JOIN wanted USING (cell) WHERE place = num
    )
    SELECT cell, last, num - count(*) FILTER (priority < last) AS num_last
    FROM ends JOIN rows USING (cell) GROUP BY cell, last, num"""
_CHOSEN = """
    WITH chosen AS (
        SELECT rows.* FROM rows JOIN last USING (cell) WHERE priority < last
        UNION ALL BY NAME
        SELECT rows.* FROM rows JOIN last USING (cell) WHERE priority = last
        QUALIFY row_number() OVER (
            PARTITION BY cell ORDER BY collection, task, query, target, origin
        ) <= num_last
    )
    SELECT {columns} FROM chosen ORDER BY priority, collection, task, query, target, origin"""
_IDENTIFIED = """
    * REPLACE (
        left(sha256(concat_ws(chr(31), collection, task, query, target)), 16) AS id,
        CASE WHEN regexp_matches(lower(template), $1) THEN false
             WHEN regexp_matches(lower(template), $2) THEN true
             ELSE regexp_matches(query, $3) END AS multiple_choice
    )"""


def _numbered(
    batch: pa.RecordBatch, before: tuple[str, int]
) -> tuple[pa.RecordBatch, tuple[str, int]]:
    """Count the number of a repeated row into its id; rows of one text follow each other."""
    ids: Sequence[str] = batch["id"].to_pylist()
    last, num = before
    made = []
    for name in ids:
        num = num + 1 if name == last else 1
        last = name
        made.append(name if num == 1 else row_id(name, str(num)))
    place = batch.schema.get_field_index("id")
    return batch.set_column(place, batch.schema.field("id"), pa.array(made)), (last, num)
