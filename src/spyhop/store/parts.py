"""Rows to Parquet parts and back: typed, streamed, never a whole table in memory."""

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

PART_ROWS = 50_000
GROUP_ROWS = 2_000
"""Rows held in memory before they are written as one row group."""

_SCALARS = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def arrow_schema(row_type: type[BaseModel]) -> pa.Schema:
    """Return the Arrow schema of a row type; every column carries its nullability."""
    return pa.schema(
        [_field(name, info.annotation) for name, info in row_type.model_fields.items()]
    )


def _field(name: str, annotation: Any) -> pa.Field:  # noqa: ANN401 (a type expression)
    is_optional = type(None) in get_args(annotation)
    if is_optional:
        (annotation,) = [each for each in get_args(annotation) if each is not type(None)]
    return pa.field(name, _arrow_type(annotation), nullable=is_optional)


def _arrow_type(annotation: Any) -> pa.DataType:  # noqa: ANN401 (a type expression)
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    origin, options = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return _arrow_type(type(options[0]))
    if origin is list:
        return pa.list_(_field("item", options[0]))
    if origin is dict and options[0] is str:
        return pa.map_(pa.string(), _field("value", options[1]))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct(list(arrow_schema(annotation)))
    raise TypeError(f"a row column cannot have the type {annotation!r}")


class PartWriter:
    """Write dicts or record batches as `part-00000.parquet`, ... with a fixed number of rows each.

    The same rows give the same files, byte for byte, with the same pyarrow.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.num_rows = 0
        self._folder = folder
        self._schema = schema
        self._held: list[dict[str, Any]] = []
        self._file: pq.ParquetWriter | None = None
        self._rows_in_part = 0
        self._num_parts = 0

    def add(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self._held.append(row)
        if len(self._held) >= GROUP_ROWS:
            self._flush()

    def add_batch(self, batch: pa.RecordBatch) -> None:
        """Append a record batch of the writer's schema."""
        self._flush()
        self._write(batch.cast(self._schema) if batch.schema != self._schema else batch)

    def close(self) -> None:
        """Write what is held; with no rows at all, one empty part keeps the schema."""
        self._flush()
        if self._num_parts == 0:
            self._write(pa.RecordBatch.from_pylist([], schema=self._schema))
        self._end_part()

    def _flush(self) -> None:
        if self._held:
            self._write(pa.RecordBatch.from_pylist(self._held, schema=self._schema))
            self._held.clear()

    def _write(self, batch: pa.RecordBatch) -> None:
        while True:
            if self._file is None:
                path = self._folder / f"part-{self._num_parts:05d}.parquet"
                self._file = pq.ParquetWriter(path, self._schema, compression="zstd")
                self._num_parts += 1
                self._rows_in_part = 0
            room = PART_ROWS - self._rows_in_part
            head = batch.slice(0, room)
            self._file.write_batch(head)
            self._rows_in_part += head.num_rows
            self.num_rows += head.num_rows
            if self._rows_in_part >= PART_ROWS:
                self._end_part()
            if batch.num_rows <= room:
                return
            batch = batch.slice(room)

    def _end_part(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
