"""Draw queries from collections of any size: count, run Algorithm 1 on the counts, read once more.

Source: Orca (arXiv:2306.02707), section 3.1.2, Table 3 and Algorithm 1.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from spyhop.collect.table import SourceTable, Stratum, class_names, class_sql, relations
from spyhop.lazy import duckdb
from spyhop.schema import Config, InputError, Query, RecipeError
from spyhop.stage import TABLES, Context, Estimate, Estimates, stage, sum_estimates
from spyhop.store import Artifact, Artifacts, arrow_schema, row_id
from spyhop.store.rows import PARQUET
from spyhop.text.choices import NAMED, NAMED_NOT, OPTIONS
from spyhop.text.overlap import BASE, Hashes, mixed, powers

Counts = npt.NDArray[np.int64]
QUERY = arrow_schema(Query)
_CANDIDATES = QUERY.append(pa.field("cell", pa.int64())).append(pa.field("priority", pa.uint64()))
EVERY = np.uint64(2**64 - 1)
MEMORY_MB, THREAD_MB = 512, 100
"""Memory of DuckDB and of each of its threads, beyond which it spills to disk."""
BATCH_ROWS = 16_384
LONG = 1 << 15
_MIX = np.uint64(0xBF58476D1CE4E5B9)
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
    config: DrawConfig, queries: Estimates, difficulty: Estimate | None = None
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
    ctx: Context, config: DrawConfig, *, queries: Artifacts, difficulty: Artifact | None = None
) -> Iterator[pa.RecordBatch]:
    """Draw rows, in an order that is random too, so that the first n are a sample themselves.

    The same rows whatever the files' names, order and number, and the number of threads. With the
    same seed, a smaller draw is part of a larger one. Candidates are kept on disk.

    Counts: `found/<task>` and `drawn/<task>`; with strata, `stratum/<classes>`.
    """
    has_difficulty = any(stratum.by == "difficulty" for stratum in config.strata)
    if has_difficulty and (difficulty is None or config.table is not None):
        raise RecipeError("strata by difficulty need queries with ids, and the input `difficulty`")
    limits: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{MEMORY_MB + THREAD_MB * ctx.runtime.threads}MB",
        "temp_directory": str(ctx.state / "spilled"),
        "threads": ctx.runtime.threads,
    }
    with duckdb.connect(config=limits) as base:
        if has_difficulty and difficulty is not None:
            rated = pa.Table.from_batches(difficulty.batches(["id", "value"]))
            base.register("rated", rated.rename_columns(["id", "difficulty"]))
        relation = "({}) LEFT JOIN rated USING (id)" if has_difficulty else "({})"
        files = [
            (path, f"SELECT *, {class_sql(config.strata)} AS class FROM {relation.format(rows)}")
            for path, rows in relations(list(queries.values()), config.table)
        ]
        yield from _Draw(ctx, config, base, files).rows()


@dataclass(frozen=True, slots=True)
class _Draw:
    """Draws from cells: the tasks, or their strata."""

    ctx: Context
    config: DrawConfig
    base: "duckdb.DuckDBPyConnection"
    files: Sequence[tuple[Path, str]]
    """Files, and SQL for their rows as queries."""

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Yield the wanted rows of lowest priority in each cell, in the order of priorities."""
        found, wanted = self._cells()
        thresholds = _thresholds(found, wanted)
        last_pass, passes = np.zeros_like(wanted), 0
        while thresholds.any():
            got = self._collect(passes, thresholds)
            short = (got < wanted) & (thresholds > 0)
            thresholds = np.where(short, EVERY, np.uint64(0))  # six sigma out, or rows of one text
            last_pass[short] += 1
            passes += 1
        limits = {"cell": np.arange(len(wanted)), "num": wanted, "pass": last_pass}
        self.base.register("limits", pa.table(limits))
        values = {"files": str(self.ctx.state / "pass-*.parquet")}
        is_identified, columns = self.config.table is None, ", ".join(QUERY.names)
        if not is_identified:
            values |= {"not": NAMED_NOT, "named": NAMED, "options": OPTIONS}
        chosen = _CHOSEN if is_identified else _IDENTIFIED
        sql = f"SELECT {columns} FROM ({chosen}) ORDER BY {_ORDER}"
        batches = self.base.sql(sql, params=values).to_arrow_reader(BATCH_ROWS)
        for batch in batches if is_identified else _numbered(batches):
            yield batch.cast(QUERY)

    def _batches(self, path: Path, sql: str) -> Iterator[pa.RecordBatch]:
        """Yield the result of a query over a file; a broken file is one line."""
        try:
            yield from self.base.sql(sql).to_arrow_reader(BATCH_ROWS)
        except (duckdb.Error, pa.ArrowException) as error:
            raise InputError(
                f"{path}: not a whole table ({' '.join(str(error).split()):.200}); "
                'kind = "records" reads it line by line and names the place'
            ) from None

    def _cells(self) -> tuple[Counts, Counts]:
        """Number the cells, as a table; return their rows, and how many of them to draw."""
        totals, config = self._rows_by_cell(), self.config
        num_classes = math.prod(len(stratum.classes) for stratum in config.strata)
        tasks = sorted({task for task, _ in totals})
        cells = [(task, place) for task in tasks for place in range(num_classes)]
        found = np.array([totals[cell] for cell in cells], np.int64)
        wanted = np.minimum(found, config.max_per_task or found)
        if config.num_rows is not None:
            wanted = quotas(wanted.tolist(), config.num_rows, config.seed)
        for (task, place), had, num in zip(cells, found.tolist(), wanted.tolist(), strict=True):
            self.ctx.count(f"found/{task}", had)
            self.ctx.count(f"drawn/{task}", num)
            if config.strata:
                self.ctx.count(f"stratum/{class_names(config.strata, place)}", num)
        names, places = zip(*cells, strict=True)
        table = {"task": names, "class": places, "cell": np.arange(len(cells))}
        self.base.register("cells", pa.table(table))
        return found, wanted

    def _rows_by_cell(self) -> Counter[tuple[str, int]]:
        """Return the number of rows of each task and class; count those that are passed over."""
        totals, over = Counter[tuple[str, int]](), Counter[str]()
        files = self.ctx.track(self.files, "counting", total=len(self.files), unit="files")
        for path, rows in files:
            text = "'x'" if path.suffix == PARQUET else "query"  # whose columns are there
            sql = (
                f"SELECT task, is_in, class, count(*) AS num, max({text}) AS text "
                f"FROM ({rows}) GROUP BY ALL"
            )
            groups = [each for batch in self._batches(path, sql) for each in batch.to_pylist()]
            if groups and not any(group["text"] for group in groups):
                raise InputError(f"{path}: no row has a query; name its column")
            for group in groups:
                task, num = group["task"], group["num"]
                if not group["is_in"]:
                    over["other_value"] += num
                elif any(fnmatchcase(task, pattern) for pattern in self.config.exclude):
                    over["excluded_task"] += num
                else:
                    totals[task, group["class"]] += num
        if not totals:
            raise RecipeError(f"nothing to draw from; passed over: {dict(over)}")
        for reason, num in over.items():
            self.ctx.count(f"passed_over/{reason}", num)
        return totals

    def _collect(self, number: int, thresholds: Hashes) -> Counts:
        """Write the rows below their cells' thresholds to disk; return the rows of each cell."""
        table = self.config.table
        hashed = ["query", "target"] if table is None or table.columns.target else ["query"]
        counts = np.zeros(len(thresholds), np.int64)
        target = self.ctx.state / f"pass-{number}.parquet"
        with pq.ParquetWriter(target, _CANDIDATES, compression="lz4") as file:
            files = self.ctx.track(self.files, "drawing", total=len(self.files), unit="files")
            for path, rows in files:
                sql = f"SELECT * FROM ({rows}) JOIN cells USING (task, class) WHERE is_in"
                for batch in self._batches(path, sql):
                    places = batch["cell"].to_numpy()
                    found = priorities([batch[name] for name in hashed], self.config.seed)
                    kept = np.flatnonzero((found <= thresholds[places]) & (thresholds[places] > 0))
                    if not len(kept):
                        continue
                    counts += np.bincount(places[kept], minlength=len(counts))
                    drawn = batch.take(pa.array(kept))
                    columns = {name: drawn[name] for name in drawn.schema.names}
                    columns["priority"] = pa.array(found[kept])
                    for name in ("query", "target") if table is not None else ():
                        columns[name] = pc.utf8_trim_whitespace(columns[name])
                    arrays = [columns[field.name].cast(field.type) for field in _CANDIDATES]
                    file.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_CANDIDATES))
        return counts


def _thresholds(found: Counts, wanted: Counts) -> Hashes:
    """Return a priority for each cell that its drawn rows lie below, with near certainty.

    Of n random numbers the q-th lowest is below (q + 6 sqrt(q) + 12) / n.
    """
    share = (wanted + 6 * np.sqrt(wanted) + 12) / np.maximum(found, 1)
    highest = np.where(share >= 1, 0.0, share) * 2.0**64
    thresholds = np.where(share >= 1, EVERY, highest.astype(np.uint64))
    return np.where(wanted > 0, thresholds, np.uint64(0))


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


def quotas(available: Sequence[int], num_rows: int, seed: int) -> Counts:
    """Return how many rows each task gives, as Algorithm 1 would; `available` are those it has.

    The paper's algorithm draws a live task uniformly, then one of its rows without replacement,
    until there are enough. The rows of a task are a uniform choice apart from all that, so only the
    *number* of draws from each task is simulated. Every task has a clock that strikes at rate 1 (a
    Poisson process), and a strike takes a row while there is one: the next strike of a live task is
    equally likely to come from any of them. The strikes of an interval are drawn at once; halving
    one spreads its strikes binomially. Each interval has random numbers of its own, hence the same
    strikes for any `num_rows`: with more rows, no task gives fewer.
    """
    rows = np.asarray(available, np.int64)
    if num_rows >= rows.sum():
        return rows.copy()
    taken = np.zeros_like(rows)
    start, length = 0.0, 1.0
    strikes = _random(seed, start, length).poisson(length, len(rows))
    while np.minimum(rows, taken + strikes).sum() < num_rows:
        taken += strikes
        start, length = start + length, start + length
        strikes = _random(seed, start, length).poisson(length, len(rows))
    while np.minimum(rows, taken).sum() < num_rows:
        length /= 2
        first = _random(seed, start, length).binomial(strikes, 0.5)
        if np.minimum(rows, taken + first).sum() >= num_rows:
            strikes = first
        else:
            taken, strikes = taken + first, strikes - first
            start += length
        if strikes.sum() == 1:
            taken += strikes
    return np.minimum(rows, taken)


def _random(seed: int, start: float, length: float) -> np.random.RandomState:
    """Return the interval's own generator; RandomState's numbers never change between versions."""
    digest = hashlib.sha256(f"{seed}/{start!r}/{length!r}".encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, np.uint32))


def priorities(columns: list[pa.Array], seed: int) -> Hashes:
    """Return the priority of each row, given its columns of text; null is the empty text.

    The rows with the lowest priorities are drawn. It is 64 bits that text and seed decide, the same
    on any machine: the texts (without space around them, UTF-8) are put one after the other and
    filled up with zero bytes to whole words of eight, little end first. The hash is the sum of
    mix(word at i) * B^i modulo 2^64; seed, lengths and sum are then mixed in turn by the end of
    splitmix64. Of a row above `LONG` words the sum is the beginning of its SHA-256.
    """
    filled = (column.cast(pa.large_string()).fill_null("") for column in columns)
    texts = [pc.utf8_trim_whitespace(text).cast(pa.large_binary()) for text in filled]
    lengths = [pc.binary_length(text).to_numpy().astype(np.uint64) for text in texts]
    start = np.full(1, seed % 2**64, np.uint64) * np.uint64(BASE) + np.uint64(1)
    total = np.repeat(mixed(start), len(columns[0]))
    for each in lengths:
        total = mixed(total ^ each)
    return mixed(total ^ _sums(texts, np.sum(lengths, axis=0)))


def _sums(texts: list[pa.Array], lengths: Hashes) -> Hashes:
    """Return the sum of each row's words."""
    missing = pa.array((-lengths % np.uint64(8)).astype(np.int8))
    choices = pa.array([bytes(num) for num in range(8)], pa.large_binary())
    fillings = pa.DictionaryArray.from_arrays(missing, choices).dictionary_decode()
    nothing = pa.scalar(b"", pa.large_binary())
    filled = pc.binary_join_element_wise(*texts, fillings, nothing)
    _, offsets, data = filled.buffers()
    ends = np.frombuffer(offsets, np.int64)[filled.offset : filled.offset + len(filled) + 1] // 8
    words = np.frombuffer(data, "<u8", ends[-1]) if ends[-1] else np.zeros(0, np.uint64)
    found = np.zeros(len(filled), np.uint64)
    first = 0
    while first < len(filled):  # as many rows as fit, at least one
        last = max(first + 1, int(np.searchsorted(ends, ends[first] + LONG, "right")) - 1)
        found[first:last] = _summed(
            words[ends[first] : ends[last]], np.diff(ends[first : last + 1])
        )
        first = last
    return found


def _summed(words: Hashes, lengths: npt.NDArray[np.int64]) -> Hashes:
    if len(words) > LONG:
        return np.frombuffer(hashlib.sha256(words.tobytes()).digest()[:8], "<u8")
    sums = np.zeros(len(lengths), np.uint64)
    filled = np.flatnonzero(lengths)
    if len(filled):
        factors, inverses = powers(LONG)
        terms = words >> np.uint64(32)
        terms ^= words
        terms *= _MIX
        terms ^= terms >> np.uint64(29)
        terms *= factors[: len(words)]
        # Each sum begins at a power of its own place in the lot; this is taken away again.
        begins = (np.cumsum(lengths) - lengths)[filled]
        sums[filled] = np.add.reduceat(terms, begins) * inverses[begins]
    return sums
