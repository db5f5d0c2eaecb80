"""Large tables of any columns, read in batches and turned into queries where they are kept.

Only the columns that are needed are read; `SourceTable` says what they are called.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from spyhop.collect.columns import Columns
from spyhop.collect.lines_table import text_batches
from spyhop.schema import Config, InputError, Query
from spyhop.store import Artifact, arrow_schema
from spyhop.store.files import matching
from spyhop.store.rows import kind_of

BATCH_ROWS = 16_384
QUERY = arrow_schema(Query)


class SourceTable(Config):
    """Parquet, JSONL, CSV or TSV files as somebody else wrote them, and how they become queries."""

    collection: str
    columns: Columns = Columns()
    pattern: str = "*.parquet"
    """Files below the folder; with a `/` in it, the whole relative path is matched."""
    only: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Column to patterns: rows with another value are passed over, as in
    `_template_type = ["zs_*"]` for FLAN's zero-shot rows."""
    licence: str = ""

    @model_validator(mode="after")
    def _is_plain(self) -> "SourceTable":
        if self.columns.options:
            raise ValueError('columns.options is for kind = "records"')
        return self


@dataclass(frozen=True, slots=True)
class TableBatch:
    """A batch of rows, as the file holds them, and where it was read."""

    origin: str
    first_row: int
    batch: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows that a file holds together, and that are read on their own: all, if not of Parquet."""

    origin: str
    path: Path
    number: int
    first_row: int


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not a whole Parquet file ({error!s:.80})") from None


@dataclass(frozen=True, slots=True)
class TableReader:
    """Files of queries: those of artifacts, or those that a `SourceTable` describes."""

    table: SourceTable | None
    files: tuple[tuple[str, Path], ...]
    """Name and path of each file."""

    @staticmethod
    def of(folders: Sequence[Artifact], table: SourceTable | None) -> "TableReader":
        """Return the reader of all files in these folders."""
        if table is None:
            return TableReader(
                None, tuple((part.name, part) for each in folders for part in each.parts())
            )
        return TableReader(
            table,
            tuple(
                (path.name if path == each.path else path.relative_to(each.path).as_posix(), path)
                for each in folders
                for path in matching(each.path, table.pattern)
            ),
        )

    @property
    def columns(self) -> Columns:
        """Names of the columns in these files."""
        if self.table is None:
            return Columns(query="query", target="target", task="task")
        return self.table.columns

    def groups(self) -> Iterator[RowGroup]:
        """Yield the row groups of all files."""
        for origin, path in self.files:
            if kind_of(path) != ".parquet":
                yield RowGroup(origin, path, 0, 0)
                continue
            with _opened(path) as file:
                sizes = [
                    file.metadata.row_group(number).num_rows
                    for number in range(file.metadata.num_row_groups)
                ]
            for number in range(len(sizes)):
                yield RowGroup(origin, path, number, sum(sizes[:number]))

    def batches(self, group: RowGroup, names: Sequence[str]) -> Iterator[TableBatch]:
        """Yield the rows of a group, with the columns of these names; a table's are text."""
        wanted = sorted({name for name in names if name})
        first = group.first_row
        if (kind := kind_of(group.path)) != ".parquet":
            for batch in text_batches(group.path, kind, wanted, BATCH_ROWS):
                yield TableBatch(group.origin, first, batch)
                first += batch.num_rows
            return
        with _opened(group.path) as file:
            known = file.schema_arrow.names
            if missing := [name for name in wanted if name not in known]:
                raise InputError(
                    f"{group.path}: no column {missing[0]!r}; found: {', '.join(known)}"
                )
            for batch in file.iter_batches(
                BATCH_ROWS, row_groups=[group.number], columns=wanted, use_threads=False
            ):
                if self.table is not None:
                    batch = _as_text(batch, group.path, {self.columns.target})
                yield TableBatch(group.origin, first, batch)
                first += batch.num_rows

    @property
    def all_columns(self) -> list[str]:
        """Names of every column that a query is made from."""
        if self.table is None:
            return list(QUERY.names)
        return [*self.columns.keys(), *self.table.only]

    def query_text(self, batch: pa.RecordBatch) -> pa.Array:
        """Return the query of each row, composed of its columns."""
        query = _filled(batch, self.columns.query)
        if not self.columns.context:
            return query
        context = _filled(batch, self.columns.context)
        both = pc.binary_join_element_wise(context, query, "\n\n")
        return pc.if_else(pc.equal(context, ""), query, both)

    def texts(self, batch: pa.RecordBatch) -> list[pa.Array]:
        """Return the query and, if there is any, the gold answer of each row."""
        if not self.columns.target:
            return [self.query_text(batch)]
        target = _filled(batch, self.columns.target)
        if self.columns.target_after:
            parts = pc.split_pattern(target, self.columns.target_after, max_splits=1, reverse=True)
            target = parts.values.take(pc.subtract(parts.offsets[1:], 1))
        return [self.query_text(batch), target]

    def tasks(self, piece: TableBatch) -> pa.DictionaryArray:
        """Return each row's task; a file without a column for it is a task of its own."""
        name = self.columns.task
        if not name:
            stem = Path(piece.origin).name.split(".")[0]
            return pa.DictionaryArray.from_arrays(
                pa.array([0] * piece.batch.num_rows, pa.int32()), pa.array([stem])
            )
        return _text(piece.batch[name]).dictionary_encode()

    def queries(self, piece: TableBatch, places: pa.Array) -> pa.RecordBatch:
        """Return the rows at these places as queries.

        Those of a `SourceTable` have no id yet, and no `multiple_choice` flag.
        """
        rows = piece.batch.take(places)
        if self.table is None:
            return rows.select(QUERY.names).cast(QUERY)
        names, num = self.columns, rows.num_rows
        numbers = pc.add(places.cast(pa.int64()), piece.first_row + 1)
        empty = pa.repeat(pa.scalar(""), num)
        given = {
            "collection": pa.repeat(pa.scalar(self.table.collection), num),
            "task": self.tasks(piece).dictionary_decode().take(places),
            **{
                name: pc.utf8_trim_whitespace(text)
                for name, text in zip(("query", "target"), self.texts(rows), strict=False)
            },
            "origin": pc.binary_join_element_wise(piece.origin, numbers.cast(pa.string()), ":"),
            "template": _text(rows[names.template]) if names.template else empty,
            "licence": _text(rows[names.licence])
            if names.licence
            else pa.repeat(pa.scalar(self.table.licence), num),
            "multiple_choice": pa.repeat(pa.scalar(False), num),
        }
        columns = [given.get(field.name, empty).cast(field.type) for field in QUERY]
        return pa.RecordBatch.from_arrays(columns, schema=QUERY)


def _filled(batch: pa.RecordBatch, column: str) -> pa.Array:
    """Return a column, or a template of columns, as text."""
    if "{" not in column:
        return _text(batch[column])
    parts = re.split(r"(\{[A-Za-z_][\w.]*\})", column)
    texts = [_text(batch[part[1:-1]]) if n % 2 else part for n, part in enumerate(parts)]
    return pc.binary_join_element_wise(*texts, "")


def _as_text(batch: pa.RecordBatch, path: Path, lists: Collection[str]) -> pa.RecordBatch:
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if _is_list(column.type) and name not in lists:
            shown = next((value for value in column.to_pylist() if value is not None), None)
            raise InputError(f"{path}: column {name!r} is a list, not text: {shown!r:.80}")
        try:
            text = _text(column)
            text.validate(full=True)
        except pa.ArrowException as error:
            raise InputError(
                f"{path}: column {name!r} ({column.type!s:.80}) is not text ({error!s:.80})"
            ) from None
        columns.append(text)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _text(column: pa.Array) -> pa.Array:
    """Return a column as text; null becomes the empty text, numbers are written out.

    Of a list the first counts.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_list(column.type):
        is_filled = pc.greater(pc.list_value_length(column), 0)
        none = pa.scalar(None, column.offsets.type)
        column = column.values.take(pc.if_else(is_filled, column.offsets[:-1], none))
    text = column if column.type == pa.string() else column.cast(pa.string())
    return text.fill_null("") if text.null_count else text
