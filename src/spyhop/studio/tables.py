"""Rows of an artifact through DuckDB on its files: pages by key, filters, order, search, counts.

A row's address is its part and its place in that part (`3.120`). Without an order, parts are read
one after the other until a page is full; orders and counts read a column of all parts at once.
"""

import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from tempfile import gettempdir
from typing import Any, NamedTuple

import pyarrow as pa
from jinja2 import Environment, StrictUndefined

from spyhop.lazy import duckdb
from spyhop.schema import ArtifactError, InputError
from spyhop.store import Artifact
from spyhop.store.artifact import DROPPED
from spyhop.store.files import parquet_head

PAGE_ROWS, SHOWN_CHARS = 50, 240
"""Rows of a page, and characters of a cell in it."""
MOST_PARTS = 16
"""Parts that one step of a scan reads at most; a step ends within about a second."""
MOST_FACETS, NUM_BINS = 40, 20
SETTINGS: dict[str, Any] = {
    "threads": 2, "memory_limit": "192MB", "max_temp_directory_size": "4GB",
    "temp_directory": f"{gettempdir()}/spyhop-studio-{os.getpid()}",
}  # fmt: skip
_QUERIES = Environment(undefined=StrictUndefined, trim_blocks=True).from_string(
    Path(__file__).with_name("rows.sql").read_text()
)
Position = tuple[int, int]


def position(text: str) -> Position:
    """Read the position of a row from an address."""
    if not re.fullmatch(r"\d{1,9}\.\d{1,12}", text):
        raise InputError(f"{text:.40}: not the position of a row, such as 3.120")
    part, row = map(int, text.split("."))
    return part, row


class Column(NamedTuple):
    """A column, or a field of one, and how a query names it."""

    name: str
    sql: str
    kind: str
    """`number`, `integer`, `text`, `flag`, `turns` (a conversation) or `nested`."""
    searched: str
    """Its text for a search; empty if it has none."""
    preview: str


class Bins(NamedTuple):
    """Equal ranges of a column of numbers; of integers, each has as many."""

    low: float
    width: float
    num: int


@dataclass(frozen=True, slots=True)
class RowQuery:
    """Which rows, in which order."""

    facets: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    """Values by column; None is a missing value."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    text: str = ""
    sort: str = ""
    is_descending: bool = False


class Engine:
    """One DuckDB for all pages: capped in memory, and unable to read outside the stores."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._connection = duckdb.connect(config=SETTINGS)
        allowed = {"folders": [str(folder) for folder in folders]}
        self._connection.execute("SET allowed_directories = $folders", allowed)
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")
        self._lock = threading.BoundedSemaphore(2)

    def rows(self, sql: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        with self._lock, self._connection.cursor() as cursor:
            done = cursor.execute(sql, values)
            names = [each[0] for each in done.description]
            return [dict(zip(names, row, strict=True)) for row in done.fetchall()]


class Table:
    """The rows of an artifact, or those that its stage dropped."""

    def __init__(self, engine: Engine, artifact: Artifact, *, is_dropped: bool = False) -> None:
        self.artifact, self._engine = artifact, engine
        self.names = artifact.names(f"{DROPPED}/part-*.parquet" if is_dropped else "part-*.parquet")
        self.num_rows = sum(artifact.record.dropped.values()) if is_dropped else artifact.num_rows
        self.columns: dict[str, Column] = {}
        self.top: list[str] = []
        """Names of whole columns, in their order."""
        if self.names:
            schema = parquet_head(artifact.file(self.names[0])).schema.to_arrow_schema()
            self.top = schema.names
            self.columns = {each.name: each for each in _columns(schema, "", "")}

    def page(
        self, query: RowQuery, at: Position | None = None, *, is_back: bool = False, limit: int = 50
    ) -> list[dict[str, Any]]:
        """Return the rows after a position, or before it, in the query's order."""
        if query.sort:
            return self._sorted(query, at, is_back, limit)
        steps = [rows for rows, _ in self.scan(query, at, is_back, limit)]
        return [row for rows in (steps[::-1] if is_back else steps) for row in rows]

    def scan(
        self, query: RowQuery, at: Position | None, is_back: bool = False, limit: int = PAGE_ROWS
    ) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """Yield rows in the order of the files, and the number of parts read, step by step."""
        values, step, num_read = self._values(query), 1, 0
        start = at[0] if at else (len(self.names) - 1 if is_back else 0)
        while limit > 0 and 0 <= start < len(self.names):
            parts = [start] if is_back else [*range(start, len(self.names))][:step]
            has_row = bool(at) and at[0] == start  # type: ignore[index]
            limits = {"limit": limit} | ({"row": at[1]} if at and has_row else {})
            sql = _sql("scan", query, self.columns, self.top, has_row, is_back)
            found = [_placed(row, start) for row in self._run(parts, sql, values | limits)]
            num_read += len(parts)
            yield found[::-1] if is_back else found, num_read
            limit, start = limit - len(found), start - 1 if is_back else start + step
            step = min(2 * step, MOST_PARTS)

    def row(self, at: Position) -> dict[str, Any]:
        """Return a whole row."""
        shown = ", ".join(map(_quoted, self.top))
        sql = f"SELECT {shown} FROM read_parquet($files) WHERE file_row_number = $row"
        found = self._run([at[0]], sql, {"row": at[1]}) if at[0] < len(self.names) else []
        if not found:
            raise InputError(f"{self.artifact.path.name} has no row {at[0]}.{at[1]}")
        return found[0]

    def find(self, names: Sequence[str], ids: Sequence[str], limit: int) -> list[dict[str, Any]]:
        """Return the first rows that have one of the ids in one of the columns."""
        if not names or not ids:
            return []
        terms = " OR ".join(f"{_quoted(n)} IN (SELECT unnest($ids::VARCHAR[]))" for n in names)
        sql = f"{_sql('previews', self.columns, self.top)} WHERE ({terms}) LIMIT $limit"
        return [_placed(row) for row in self._run(None, sql, {"ids": ids, "limit": limit})]

    def counts(self, query: RowQuery, bins: Mapping[str, Bins]) -> dict[str, list[dict[str, Any]]]:
        """Return the number of rows by value of each column that has few values, and by bin.

        A column's own filter does not narrow its counts. The key "" holds the number of all rows.
        """
        texts = [each for each in self.columns.values() if each.kind in ("text", "flag")]
        few = self._run([0], _sql("distinct", texts), {})[0] if texts else {}
        most = MOST_FACETS if self.num_rows > 2 * MOST_FACETS else self.num_rows / 2
        keys = {each.name: f"{each.sql}::VARCHAR" for each in texts if few[each.name] <= most}
        keys |= {name: _sql("bin", self.columns[name].sql, *each) for name, each in bins.items()}
        own = {*query.facets, *query.ranges} & keys.keys()
        found = self._grouped(query, {k: v for k, v in keys.items() if k not in own})
        for name in own:
            facets = {key: value for key, value in query.facets.items() if key != name}
            ranges = {key: value for key, value in query.ranges.items() if key != name}
            others = replace(query, facets=facets, ranges=ranges)
            found |= {name: self._grouped(others, {name: keys[name]})[name]}
        return found

    def bins(self) -> dict[str, Bins]:
        """Return the bins of each column of numbers that has more than one."""
        numbers = [each for each in self.columns.values() if each.kind in ("number", "integer")]
        ends = self._run(None, _sql("ends", numbers), {})[0] if numbers and self.num_rows else {}
        found = {}
        for name, (low, high) in ends.items():
            if low is not None and low < high:
                is_whole = self.columns[name].kind == "integer"
                width = ceil((high - low + 1) / NUM_BINS) if is_whole else (high - low) / NUM_BINS
                num = ceil((high - low + 1) / width) if is_whole else NUM_BINS
                found[name] = Bins(low, width, num)
        return found

    def _grouped(self, query: RowQuery, keys: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in (*keys, "")}
        sql = _sql("grouped", query, self.columns, keys, True)
        for row in self._run(None, sql, self._values(query)):
            of = [(k, row[f"k{i}"]) for i, k in enumerate(keys) if not row[f"g{i}"]] or [("", None)]
            found[of[0][0]].append({"value": of[0][1], "n": row["n"]})
        return found

    def _sorted(
        self, query: RowQuery, at: Position | None, is_back: bool, limit: int
    ) -> list[dict[str, Any]]:
        values = self._values(query) | {"limit": limit}
        if at:
            value = f"SELECT {self.columns[query.sort].sql} AS key FROM read_parquet($files)"
            found = self._run([at[0]], f"{value} WHERE file_row_number = $row", {"row": at[1]})
            key = {name: each for row in found for name, each in row.items() if each is not None}
            values |= {"part": at[0], "row": at[1], **key}
        sql = _sql("sorted", query, self.columns, bool(at), "key" in values, is_back)
        places = [tuple(row.values()) for row in self._run(None, sql, values)]
        rows: dict[str, dict[str, Any]] = {}
        only = f"{_sql('previews', self.columns, self.top)} WHERE file_row_number IN "
        for part in {each[0] for each in places}:
            among = {"rows": [each[1] for each in places if each[0] == part]}
            for row in self._run([part], f"{only} (SELECT unnest($rows::BIGINT[]))", among):
                placed = _placed(row, part)
                rows[placed[" at"]] = placed
        return [rows[f"{a}.{b}"] for a, b in (places[::-1] if is_back else places)]

    def _values(self, query: RowQuery) -> dict[str, Any]:
        """Return the parameters of a query, which may name only columns that there are."""
        for name in (*query.facets, *query.ranges, *[query.sort] * bool(query.sort)):
            if name not in self.columns:
                raise InputError(f"{name:.80}: no such column; known: {', '.join(self.columns)}")
        values: dict[str, Any] = {"text": f"(?i){re.escape(query.text)}"} if query.text else {}
        for place, wanted in enumerate(query.facets.values()):
            values[f"is_{place}"] = [each for each in wanted if each is not None]
        for place, (low, high) in enumerate(query.ranges.values()):
            values |= {f"low_{place}": low, f"high_{place}": high}
        return values

    def _run(
        self, parts: Sequence[int] | None, sql: str, values: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Run a query over some parts, verified first, or over all of them."""
        names = self.names if parts is None else [self.names[part] for part in parts]
        for name in names if parts is not None else ():
            self.artifact.file(name)  # verified
        files = [str(self.artifact.path / name) for name in names]
        try:
            return self._engine.rows(sql, {**values, "files": files})
        except duckdb.Error as error:
            for name in names:
                self.artifact.file(name)  # names the one that is not what was written
            reason = " ".join(str(error).split())
            raise ArtifactError(f"{self.artifact}: cannot be read ({reason:.300})") from None


def _placed(row: dict[str, Any], first: int = 0) -> dict[str, Any]:
    return {" at": f"{row.pop(' part') + first}.{row.pop(' row')}", **row}


def _sql(macro: str, *arguments: Any) -> str:  # noqa: ANN401 (the macro's)
    return str(getattr(_QUERIES.module, macro)(*arguments))


def _columns(fields: Any, path: str, prefix: str) -> Iterator[Column]:  # noqa: ANN401 (pyarrow's)
    """Yield every column, and the fields of records in one as `rating.score`."""
    for each in fields:
        sql, name, kind = f"{path}{_quoted(each.name)}", f"{prefix}{each.name}", each.type
        cut = f"left({sql}::VARCHAR, {SHOWN_CHARS})"
        inner = kind.value_type if pa.types.is_list(kind) else None
        if pa.types.is_struct(kind):
            yield Column(name, sql, "nested", "", cut)
            yield from _columns([*kind], f"{sql}.", f"{name}.")
        elif pa.types.is_boolean(kind):
            yield Column(name, sql, "flag", "", sql)
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            yield Column(name, sql, "integer" if pa.types.is_integer(kind) else "number", "", sql)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            yield Column(name, sql, "text", sql, cut)
        elif inner and pa.types.is_struct(inner) and inner.get_field_index("content") >= 0:
            texts = f"array_to_string(list_transform({sql}, lambda m: m.content), ' ')"
            turn = f"{{'role': m.role, 'content': left(m.content, {SHOWN_CHARS})}}"
            shown = f"list_transform({sql}[:4], lambda m: {turn})"
            yield Column(name, sql, "turns", texts, shown)
        else:
            yield Column(name, sql, "nested", f"{sql}::VARCHAR", cut)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
