"""Candidate rows of a draw, kept on disk by priority until the exact selection is known."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spyhop.collect.priority import Hashes
from spyhop.collect.stratum_index import Counts
from spyhop.collect.table import QUERY
from spyhop.lazy import duckdb
from spyhop.store import row_id
from spyhop.text.options import NAMED, NAMED_NOT, OPTIONS

BUCKET_ROWS = 50_000
"""Approximate rows per bucket; a bucket is sorted in memory, a few of them at the same time."""
MAX_BUCKETS = 400
"""Largest number of open files."""
MEMORY_MB = 512
ROWS = QUERY.append(pa.field("cell", pa.int64())).append(pa.field("priority", pa.uint64()))
SORTED_BY = ("collection", "task", "query", "target", "origin")
"""Columns that order rows of equal priority, which have the same text."""

Made = TypeVar("Made")


class DrawnRows:
    """Rows with their cell and priority, in buckets: a bucket holds a range of priorities.

    Memory use is twelve bytes per row and a few buckets. Rows with the same text share a bucket.
    """

    def __init__(self, folder: Path, found: Counts, thresholds: Hashes) -> None:
        """Use a folder of its own, for rows below the thresholds of their cells.

        The numbers of rows in the cells determine the sizes of the buckets.
        """
        self._folder = folder
        self._edges = _edges(found, thresholds)
        self._passes: list[_Pass] = []

    def begin(self) -> None:
        """Begin another pass over the table; a cell's rows are those of its last pass."""
        self.end()
        folder = self._folder / f"pass-{len(self._passes)}"
        folder.mkdir(exist_ok=True)
        self._passes.append(_Pass(folder, [None] * (len(self._edges) + 1), [], []))

    def add(self, queries: pa.RecordBatch, cells: Counts, priorities: Hashes) -> None:
        """Add rows."""
        now = self._passes[-1]
        columns = [*queries.columns, pa.array(cells), pa.array(priorities)]
        rows = pa.RecordBatch.from_arrays(columns, schema=ROWS)
        now.cells.append(cells.astype(np.int32))
        now.priorities.append(priorities)
        buckets = np.searchsorted(self._edges, priorities, "right")
        order = np.argsort(buckets, kind="stable")
        rows = rows.take(pa.array(order))
        ends = np.searchsorted(buckets[order], np.arange(len(self._edges) + 2))
        for bucket in np.unique(buckets).tolist():
            now.write(bucket, rows.slice(ends[bucket], ends[bucket + 1] - ends[bucket]))

    def num_rows(self, num_cells: int) -> Counts:
        """Return the number of rows in each cell that the last pass found."""
        counts = np.zeros(num_cells, np.int64)
        for cells in self._passes[-1].cells:
            counts += np.bincount(cells, minlength=num_cells)
        return counts

    def end(self) -> None:
        """Close the files."""
        for each in self._passes:
            each.close()

    def batches(
        self, wanted: Counts, last_pass: Counts, *, threads: int, is_identified: bool
    ) -> Iterator[pa.RecordBatch]:
        """Yield the `wanted` rows of lowest priority in each cell, in the order of priorities.

        Rows that are not identified yet get their ids and their `multiple_choice` flag.
        """
        self.end()
        limits = _Limits.of(self._passes, wanted, last_pass)
        with duckdb.connect(config={"memory_limit": f"{MEMORY_MB}MB", "threads": threads}) as base:

            def bucket(number: int) -> pa.RecordBatch | None:
                tables = [
                    limits.within(rows, place)
                    for place, each in enumerate(self._passes)
                    if (rows := each.read(number)) is not None
                ]
                rows = pa.concat_tables([each for each in tables if len(each)] or tables[:1])
                if not len(rows):
                    return None
                rows = limits.chosen(_in_order(rows))
                if not is_identified:
                    rows = _identified(base.cursor(), rows)
                return rows.select(QUERY.names).cast(QUERY).combine_chunks()

            for rows in _ahead(bucket, len(self._edges) + 1, threads):
                if rows is not None:
                    yield from rows.to_batches()


@dataclass(slots=True)
class _Pass:
    """The rows that one reading of the table found."""

    folder: Path
    files: list[pa.ipc.RecordBatchStreamWriter | None]
    cells: list[npt.NDArray[np.int32]]
    priorities: list[Hashes]

    def write(self, bucket: int, rows: pa.RecordBatch) -> None:
        file = self.files[bucket]
        if file is None:
            file = self.files[bucket] = pa.ipc.new_stream(
                str(self.folder / f"{bucket}.arrow"), ROWS
            )
        file.write_batch(rows)

    def close(self) -> None:
        for file in self.files:
            if file is not None:
                file.close()

    def read(self, bucket: int) -> pa.Table | None:
        if self.files[bucket] is None:
            return None
        with pa.memory_map(str(self.folder / f"{bucket}.arrow")) as file:
            return pa.ipc.open_stream(file).read_all()


@dataclass(frozen=True, slots=True)
class _Limits:
    """For each cell: the pass to use, the last priority to take, and how many rows have it."""

    last_pass: Counts
    last: Hashes
    num_last: Counts

    @staticmethod
    def of(passes: list[_Pass], wanted: Counts, last_pass: Counts) -> _Limits:
        last = np.zeros(len(wanted), np.uint64)
        num_last = np.zeros(len(wanted), np.int64)
        for place, each in enumerate(passes):
            if not each.cells:
                continue
            cells, priorities = np.concatenate(each.cells), np.concatenate(each.priorities)
            order = np.lexsort((priorities, cells))
            cells, priorities = cells[order], priorities[order]
            ends = np.searchsorted(cells, np.arange(len(wanted) + 1))
            for cell in np.flatnonzero((last_pass == place) & (wanted > 0)).tolist():
                own = priorities[ends[cell] : ends[cell + 1]]
                last[cell] = own[wanted[cell] - 1]
                num_last[cell] = wanted[cell] - np.searchsorted(own, last[cell])
        return _Limits(last_pass, last, num_last)

    def within(self, rows: pa.Table, place: int) -> pa.Table:
        """Return the rows of a pass that may be chosen."""
        cells, priorities = (rows[name].to_numpy() for name in ("cell", "priority"))
        is_in = (self.last_pass[cells] == place) & (priorities <= self.last[cells])
        return rows.filter(pa.array(is_in & (self.num_last[cells] > 0)))

    def chosen(self, rows: pa.Table) -> pa.Table:
        """Return the rows without those beyond their cell's limit, the last ones in order."""
        cells, priorities = (rows[name].to_numpy() for name in ("cell", "priority"))
        at_last = np.flatnonzero(priorities == self.last[cells])
        order = np.argsort(cells[at_last], kind="stable")
        _, first, num = np.unique(cells[at_last][order], return_index=True, return_counts=True)
        place = np.arange(len(at_last)) - np.repeat(first, num)
        is_over = place >= self.num_last[cells[at_last][order]]
        if not is_over.any():
            return rows
        kept = np.ones(len(rows), bool)
        kept[at_last[order[is_over]]] = False
        return rows.filter(pa.array(kept))


def _edges(found: Counts, thresholds: Hashes) -> Hashes:
    """Return priorities that split the expected rows into buckets of about `BUCKET_ROWS`."""
    top = thresholds / 2.0**64
    total = float((found * top).sum())
    num = int(min(MAX_BUCKETS, total // BUCKET_ROWS))
    low, high = np.zeros(num), np.ones(num)
    goals = total * np.arange(1, num + 1) / (num + 1)
    for _ in range(50):
        middle = (low + high) / 2
        reached = np.array([float((found * np.minimum(top, each)).sum()) for each in middle])
        low, high = np.where(reached < goals, middle, low), np.where(reached < goals, high, middle)
    return (low * 2.0**64).astype(np.uint64)


def _in_order(rows: pa.Table) -> pa.Table:
    """Return rows by priority; rows of equal priority by their content."""
    priorities = rows["priority"].to_numpy()
    order = np.argsort(priorities, kind="stable")
    is_same = np.diff(priorities[order]) == 0
    if is_same.any():
        again = np.flatnonzero(np.append(is_same, False) | np.append(False, is_same))
        some = rows.select(["priority", *SORTED_BY]).take(pa.array(order[again]))
        keys = list(zip(*(some[name].to_pylist() for name in some.column_names), strict=True))
        order[again] = order[again][sorted(range(len(keys)), key=keys.__getitem__)]
    return rows.take(pa.array(order))


def _identified(base: duckdb.DuckDBPyConnection, rows: pa.Table) -> pa.Table:
    """Add ids to rows; a repeated row's number is part of its id."""
    base.register("given", rows)
    told = base.sql(_IDENTIFIED, params=[NAMED_NOT, NAMED, OPTIONS]).to_arrow_table()
    ids = told["id"].combine_chunks()
    equal = np.flatnonzero(pa.compute.equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False))
    if len(equal):
        names = ids.to_pylist()
        num = 1
        for place, before in zip(equal + 1, [-1, *(equal[:-1] + 1)], strict=True):
            num = num + 1 if place == before + 1 else 2
            names[place] = row_id(ids[int(place)].as_py(), str(num))
        ids = pa.array(names, pa.string())
    place = rows.schema.get_field_index("id")
    rows = rows.set_column(place, "id", ids)
    place = rows.schema.get_field_index("multiple_choice")
    return rows.set_column(place, "multiple_choice", told["multiple_choice"])


_IDENTIFIED = """
    SELECT
        left(sha256(concat_ws(chr(31), collection, task, query, target)), 16) AS id,
        CASE WHEN regexp_matches(lower(template), $1) THEN false
             WHEN regexp_matches(lower(template), $2) THEN true
             ELSE regexp_matches(query, $3) END AS multiple_choice
    FROM given"""


def _ahead(work: Callable[[int], Made], num: int, threads: int) -> Iterator[Made]:
    """Yield `work(0)`, `work(1)`, ... in order; a few are computed ahead."""
    with ThreadPoolExecutor(threads) as pool:
        due: deque[Future[Made]] = deque()
        for number in range(num):
            due.append(pool.submit(work, number))
            if len(due) > threads + 1:
                yield due.popleft().result()
        while due:
            yield due.popleft().result()
