"""Any JSONL, CSV or Parquet files as queries: a setting for each column says what it is called."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import model_validator

from spyhop.collect.reading import Reading
from spyhop.schema import Config, InputError, Query
from spyhop.stage import Context, pooled, stage
from spyhop.store import Artifact
from spyhop.store.files import field, json_lines, lines, matching, parquet_batches

csv.field_size_limit(1 << 27)


class Columns(Config):
    """Which column holds what. A dotted name leads into objects and lists of JSON rows."""

    query: str = "inputs"
    target: str = "targets"
    """Empty where the files hold no gold answers."""
    task: str = "task"
    """Empty makes each file a task, named like the file."""
    template: str = ""
    licence: str = ""


class RecordsConfig(Config):
    """Files of rows, and what they are."""

    collection: str
    pattern: str = "*"
    """Files of the folder; their ending tells the form: .jsonl, .json, .csv, .tsv or .parquet."""
    columns: Columns = Columns()
    licence: str = ""
    """Licence of the rows, where no column tells it."""

    @model_validator(mode="after")
    def _has_a_query(self) -> "RecordsConfig":
        if not self.columns.query:
            raise ValueError("columns.query is empty; name the column that holds the queries")
        return self


@stage(version=1, writes=Query, plan=lambda config, folder: pooled([folder]))
def read_records(ctx: Context, config: RecordsConfig, *, folder: Artifact) -> Iterator[Query]:
    """Read the rows of every file; some 10^7 of them, for larger tables see `draw`.

    Rows whose query is empty or null are dropped as `no_query`.

    Raises:
        InputError: Naming the file, the line or row and what is wrong with it.
    """
    reading = Reading(ctx, config.collection, config.licence)
    names = config.columns
    for path in matching(folder.path, config.pattern):
        for number, (where, row) in enumerate(read_rows(path, names), 1):
            query = reading.query(
                _text(row, names.task, where) or path.name.split(".")[0],
                _text(row, names.query, where).strip(),
                _text(row, names.target, where).strip(),
                f"{path.name}:{number}",
                template=_text(row, names.template, where),
                licence=_text(row, names.licence, where),
            )
            if query.query:
                yield query
            else:
                ctx.drop(query, "no_query")


def read_rows(path: Path, columns: Columns | None = None) -> Iterator[tuple[str, Any]]:
    """Yield where each row of a file stands, and the row.

    Raises:
        InputError: If the ending is unknown or the file is broken.
    """
    kind = file_kind(path)
    if kind == ".jsonl":
        return json_lines(path)
    if kind == ".parquet":
        return _parquet_rows(path, columns)
    return _csv_rows(path, "\t" if kind == ".tsv" else ",")


def file_kind(path: Path) -> str:
    """Return the form of a file by its ending: `.jsonl`, `.csv`, `.tsv` or `.parquet`.

    Raises:
        InputError: If the ending is unknown.
    """
    kind = next((s for s in reversed(path.suffixes) if s not in (".gz", ".bz2", ".zst")), "")
    if kind in (".json", ".ndjson"):
        return ".jsonl"
    if kind not in (".jsonl", ".csv", ".tsv", ".parquet"):
        raise InputError(f"{path}: unknown form {kind!r}; known: .jsonl, .csv, .tsv, .parquet")
    return kind


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[str, dict[str, str]]]:
    reader = csv.reader((f"{line}\n" for _, line in lines(path)), delimiter=delimiter, strict=True)
    try:
        heading = next(reader, [])
        for row in reader:
            if not row:  # an empty line
                continue
            where = f"{path}: line {reader.line_num}"
            if len(row) != len(heading):
                raise InputError(f"{where} has {len(row)} fields, the heading {len(heading)}")
            yield where, dict(zip(heading, row, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num} is not CSV ({error})") from None


def _parquet_rows(path: Path, columns: Columns | None) -> Iterator[tuple[str, dict[str, Any]]]:
    wanted = None
    if columns is not None:
        wanted = {name.split(".")[0] for name in columns.model_dump().values() if name}
    rows = (row for batch in parquet_batches(path, wanted) for row in batch.to_pylist())
    for number, row in enumerate(rows, 1):
        yield f"{path}: row {number}", row


def _text(row: Any, column: str, where: str) -> str:  # noqa: ANN401 (a row of any form)
    """Return a cell as text; numbers are written out, null is empty, of a list the first counts."""
    if not column:
        return ""
    value = field(row, column, where, (str, int, float, list, type(None)))
    if isinstance(value, list):
        value = value[0] if value else ""
    return "" if value is None else str(value)
