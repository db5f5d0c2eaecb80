"""Large JSONL, CSV and TSV files as record batches of text, read by engines and not line by line.

Columns are plain: the keys or headings themselves. Numbers come as they are written, nearly (`1.50`
in JSON is `1.5`), and null is null.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from spyhop.lazy import duckdb
from spyhop.schema import InputError
from spyhop.store.files import lines

MEMORY_MB = 512
BLOCK_BYTES = 1 << 24
"""A CSV row may be this long."""
OBJECT_BYTES = 1 << 27
SLOWLY = '; kind = "records" reads it line by line and names the place'


def text_batches(
    path: Path, kind: str, columns: Sequence[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file in order, with these columns as text."""
    read = _json_batches if kind == ".jsonl" else _csv_batches
    first = 1
    try:
        for batch in read(path, kind, columns, batch_rows):
            for name in columns:
                if batch.num_rows and batch[name].null_count == batch.num_rows:
                    last = first + batch.num_rows - 1
                    raise InputError(f"{path}: no {name!r} in rows {first:,} to {last:,}")
            first += batch.num_rows
            yield batch
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not whole CSV ({error!s:.150}){SLOWLY}") from None


def _json_batches(
    path: Path, kind: str, columns: Sequence[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    with duckdb.connect(config={"memory_limit": f"{MEMORY_MB}MB", "threads": 1}) as base:
        kinds = ", ".join(f"{_quoted(name)}: 'VARCHAR'" for name in columns)
        source = (
            f"read_json($1, format = 'newline_delimited', records = true, columns = {{{kinds}}}, "
            f"maximum_object_size = {OBJECT_BYTES})"
        )
        try:
            rows = base.sql(f"FROM {source}", params=[str(path)])
            yield from rows.to_arrow_reader(batch_rows)
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            told = " ".join(str(error).split())
            raise InputError(f"{path}: not whole JSON lines ({told:.200}){SLOWLY}") from None


def _csv_batches(
    path: Path, kind: str, columns: Sequence[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    delimiter = "\t" if kind == ".tsv" else ","
    first = next((line for _, line in lines(path)), "")
    heading = next(csv.reader([first], delimiter=delimiter), [])
    if missing := [name for name in columns if name not in heading]:
        raise InputError(f"{path}: no column {missing[0]!r}; found: {', '.join(heading)}")
    with pa.input_stream(str(path), compression="detect") as stream:
        reader = pa.csv.open_csv(
            stream,
            read_options=pa.csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                include_columns=list(columns),
                column_types=dict.fromkeys(columns, pa.string()),
                strings_can_be_null=False,
            ),
        )
        for batch in reader:
            for start in range(0, batch.num_rows, batch_rows):
                yield batch.slice(start, batch_rows)


def _quoted(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
