"""Rows of an artifact through DuckDB on its files: pages by key, filters, order, search, counts.

A row's address is its part and its place in that part (`3.120`), so that a page follows another
without counting rows. Without an order, parts are read one after the other until a page is full;
each is verified first. Orders and counts read a column of all parts at once.
"""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf, nextafter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from spyhop.lazy import duckdb
from spyhop.schema import ArtifactError, InputError
from spyhop.store import Artifact
from spyhop.store.artifact import DROPPED
from spyhop.store.files import parquet_head

PAGE_ROWS = 50
SHOWN_CHARS = 240
"""Characters of a cell in a list of rows."""
MOST_PARTS = 16
"""Parts that one step of a scan reads at most; a step ends within about a second."""
MOST_FACETS, FACET_VALUES, NUM_BINS = 40, 12, 20
SETTINGS = {"threads": 2, "memory_limit": "192MB", "max_temp_directory_size": "4GB"}


class Position(NamedTuple):
    """Where a row is: its part, and its place in the part."""

    part: int
    row: int

    def __str__(self) -> str:
        """Return it as an address contains it."""
        return f"{self.part}.{self.row}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read a position from an address."""
        if not re.fullmatch(r"\d{1,9}\.\d{1,12}", text):
            raise InputError(f"{text:.40}: not the position of a row, such as 3.120")
        return cls(*map(int, text.split(".")))


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
    """Equal ranges of a column of numbers."""

    low: float
    width: float
    num: int

    @classmethod
    def between(cls, low: float, high: float, *, is_whole: bool) -> "Bins":
        """Return about `NUM_BINS` ranges; of integers, each has as many."""
        if not is_whole:
            return cls(low, (high - low) / NUM_BINS, NUM_BINS)
        width = ceil((high - low + 1) / NUM_BINS)
        return cls(low, width, ceil((high - low + 1) / width))

    def of(self, sql: str) -> str:
        """Return the number of a value's range, as SQL."""
        place = f"least(floor(({sql} - ({self.low!r})) / {self.width!r}), {self.num - 1})::INT"
        return f"CASE WHEN isfinite({sql}::DOUBLE) THEN {place} END"

    def edges(self, place: int) -> tuple[float, float]:
        """Return the ends of a range: from the first to below the second."""
        end = self.low + (place + 1) * self.width
        return self.low + place * self.width, nextafter(end, inf) if place == self.num - 1 else end


@dataclass(frozen=True, slots=True)
class RowQuery:
    """Which rows, in which order."""

    facets: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    """Values by column; None is a missing value."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    text: str = ""
    sort: str = ""
    is_descending: bool = False

    @property
    def is_filtered(self) -> bool:
        """Whether it leaves out any row."""
        return bool(self.facets or self.ranges or self.text)


class Engine:
    """One DuckDB for all pages: capped in memory, and unable to read outside the stores."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._connection = duckdb.connect(config=SETTINGS)
        self._connection.execute(
            "SET allowed_directories = $folders", {"folders": [*map(str, folders)]}
        )
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
        pattern = f"{DROPPED}/part-*.parquet" if is_dropped else "part-*.parquet"
        self.artifact = artifact
        self.names = artifact.names(pattern)
        self.num_rows = sum(artifact.record.dropped.values()) if is_dropped else artifact.num_rows
        self._engine = engine
        self._files = [str(artifact.path / name) for name in self.names]
        self.columns: dict[str, Column] = {}
        self.top: list[str] = []
        """Names of whole columns, in their order."""
        if self.names:
            schema = parquet_head(artifact.file(self.names[0])).schema.to_arrow_schema()
            self.top = schema.names
            self.columns = {each.name: each for each in _columns(schema, "", "")}

    def page(
        self,
        query: RowQuery,
        at: Position | None = None,
        *,
        is_back: bool = False,
        limit: int = PAGE_ROWS,
    ) -> list[dict[str, Any]]:
        """Return the rows after a position, or before it, in the query's order."""
        if query.sort:
            return self._sorted(query, at, is_back, limit)
        found: list[dict[str, Any]] = []
        for rows, _ in self.scan(query, at, is_back=is_back, limit=limit):
            found += rows
        return found

    def scan(
        self,
        query: RowQuery,
        at: Position | None = None,
        *,
        is_back: bool = False,
        limit: int = PAGE_ROWS,
    ) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """Yield rows in the order of the files, and how many parts are read, step by step."""
        where, values = self._where(query)
        num_parts, step = len(self.names), 1
        start = at.part if at else (num_parts - 1 if is_back else 0)
        num_read = 0
        while limit > 0 and 0 <= start < num_parts:
            parts = [start] if is_back else [*range(start, min(start + step, num_parts))]
            here, limits = where, dict(values)
            if at and at.part == start:
                later = "<" if is_back else ">"
                here = f"{where} AND (file_index > 0 OR file_row_number {later} $row)"
                limits["row"] = at.row
            order = "ORDER BY file_row_number DESC" if is_back else ""
            found = self._select(parts, f"{here} {order}", {**limits, "limit": limit})
            num_read += len(parts)
            yield found[::-1] if is_back else found, num_read
            limit -= len(found)
            start = start - 1 if is_back else start + step
            step = min(2 * step, MOST_PARTS)

    def row(self, at: Position) -> dict[str, Any]:
        """Return a whole row."""
        if at.part >= len(self.names):
            raise InputError(f"there is no row {at}; {self.artifact.path.name} has fewer parts")
        columns = ", ".join(map(_quoted, self.top))
        found = self._run(
            [at.part],
            f"SELECT {columns} FROM {{rows}} WHERE file_row_number = $row",
            {"row": at.row},
        )
        if not found:
            raise InputError(f"there is no row {at}; its part has fewer rows")
        return found[0]

    def find(self, where: str, values: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
        """Return the first rows for which a condition over column names of this module's holds."""
        return self._select([*range(len(self.names))], f"WHERE {where}", {**values, "limit": limit})

    def counts(
        self, query: RowQuery, bins: Mapping[str, "Bins"]
    ) -> dict[str, list[dict[str, Any]]]:
        """Return the number of rows by value of each column that has few values, and by bin.

        A column's own filter does not narrow its counts. The key "" holds the number of all rows.
        """
        keys = {name: f"{self.columns[name].sql}::VARCHAR" for name in self.facet_names()}
        keys |= {name: each.of(self.columns[name].sql) for name, each in bins.items()}
        own = {*query.facets, *query.ranges} & set(keys)
        shared = [name for name in keys if name not in own]
        found = self._grouped(query, {name: keys[name] for name in shared}, with_total=True)
        for name in own:
            others = RowQuery(
                {k: v for k, v in query.facets.items() if k != name},
                {k: v for k, v in query.ranges.items() if k != name}, query.text,
            )  # fmt: skip
            found |= self._grouped(others, {name: keys[name]}, with_total=False)
        return found

    def facet_names(self) -> list[str]:
        """Return the columns that have few values in the first part."""
        texts = [each for each in self.columns.values() if each.kind in ("text", "flag")]
        if not texts or not self.names:
            return []
        counted = ", ".join(f"approx_count_distinct({each.sql})" for each in texts)
        (found,) = self._run([0], f"SELECT {counted} FROM (FROM {{rows}} LIMIT 20000)", {})
        return [
            each.name
            for each, num in zip(texts, found.values(), strict=True)
            if num <= (MOST_FACETS if self.num_rows > 2 * MOST_FACETS else self.num_rows / 2)
        ]

    def bins(self) -> dict[str, "Bins"]:
        """Return the bins of each column of numbers that has more than one."""
        numbers = [each for each in self.columns.values() if each.kind in ("number", "integer")]
        if not numbers or not self.num_rows:
            return {}
        finite = [f"CASE WHEN isfinite({each.sql}::DOUBLE) THEN {each.sql} END" for each in numbers]
        asked = ", ".join(f"min({sql})::DOUBLE, max({sql})::DOUBLE" for sql in finite)
        (found,) = self._run(None, f"SELECT {asked} FROM {{rows}}", {})
        ends = [*found.values()]
        pairs = zip(numbers, ends[::2], ends[1::2], strict=True)
        return {
            each.name: Bins.between(low, high, is_whole=each.kind == "integer")
            for each, low, high in pairs
            if low is not None and low < high
        }

    def verify(self) -> None:
        """Verify every file of these rows."""
        for name in self.names:
            self.artifact.file(name)

    def _grouped(
        self, query: RowQuery, keys: Mapping[str, str], *, with_total: bool
    ) -> dict[str, list[dict[str, Any]]]:
        where, values = self._where(query)
        columns = "".join(f"{sql} AS k{place}, " for place, sql in enumerate(keys.values()))
        sets = [f"(k{place})" for place in range(len(keys))] + (["()"] if with_total else [])
        shown = "".join(f"k{place}, grouping(k{place}) AS g{place}, " for place in range(len(keys)))
        rows = self._run(
            None,
            f"SELECT {shown} count(*) AS n FROM (SELECT {columns} 1 FROM {{rows}} {where}) "
            f"GROUP BY GROUPING SETS ({', '.join(sets)}) ORDER BY n DESC",
            values,
        )
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in keys}
        for row in rows:
            of = [(name, i) for i, name in enumerate(keys) if not row[f"g{i}"]]
            name, value = (of[0][0], row[f"k{of[0][1]}"]) if of else ("", None)
            found.setdefault(name, []).append({"value": value, "n": row["n"]})
        return found

    def _sorted(
        self, query: RowQuery, at: Position | None, is_back: bool, limit: int
    ) -> list[dict[str, Any]]:
        where, values = self._where(query)
        key, is_falling = self._column(query.sort).sql, query.is_descending != is_back
        if at:
            value = f"SELECT {key} AS key FROM {{rows}} WHERE file_row_number = $row"
            found = self._run([at.part], value, {"row": at.row})
            values |= {"part": at.part, "row": at.row}
            place = f"(file_index, file_row_number) {'<' if is_back else '>'} ($part, $row)"
            if not found or found[0]["key"] is None:
                after = f"{key} IS NULL AND {place}" + (f" OR {key} IS NOT NULL" * is_back)
            else:
                values["key"] = found[0]["key"]
                after = f"{key} {'<' if is_falling else '>'} $key OR ({key} = $key AND {place})"
                after += "" if is_back else f" OR {key} IS NULL"
            where += f" AND ({after})"
        order = f"{key} {'DESC' if is_falling else 'ASC'} NULLS {'FIRST' if is_back else 'LAST'}"
        places = "DESC" if is_back else "ASC"
        order += f", file_index {places}, file_row_number {places}"
        top = f"SELECT file_index, file_row_number FROM {{rows}} {where} ORDER BY {order} "
        top += "LIMIT $limit"
        found = [
            Position(*row.values()) for row in self._run(None, top, {**values, "limit": limit})
        ]
        rows: dict[Position, dict[str, Any]] = {}
        for part in {each.part for each in found}:
            places = {"places": [each.row for each in found if each.part == part], "limit": limit}
            only = "WHERE file_row_number IN (SELECT unnest($places::BIGINT[]))"
            rows |= {row[" at"]: row for row in self._select([part], only, places)}
        return [rows[each] for each in (found[::-1] if is_back else found)]

    def _select(
        self, parts: Sequence[int] | None, rest: str, values: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Return previews of rows, each with its position as `at`."""
        shown = ", ".join(f"{self.columns[name].preview} AS {_quoted(name)}" for name in self.top)
        rows = self._run(
            parts,
            f"SELECT {shown}, file_index AS ' part', file_row_number AS ' row' FROM {{rows}} "
            f"{rest} LIMIT $limit",
            values,
        )
        first = parts[0] if parts else 0
        return [{" at": Position(row.pop(" part") + first, row.pop(" row")), **row} for row in rows]

    def _run(
        self, parts: Sequence[int] | None, sql: str, values: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Run a query over some parts, verified first, or over all of them."""
        files = self._files if parts is None else [self._files[part] for part in parts]
        try:
            if parts is not None and len(parts) <= MOST_PARTS:
                for part in parts:
                    self.artifact.file(self.names[part])
            return self._engine.rows(
                sql.replace("{rows}", "read_parquet($files)"), {**values, "files": files}
            )
        except duckdb.Error as error:
            self.verify()  # names the file, if one is not what was written
            reason = " ".join(str(error).split())
            raise ArtifactError(
                f"{self.artifact.path.name}: cannot be read ({reason:.300})"
            ) from None

    def _where(self, query: RowQuery) -> tuple[str, dict[str, Any]]:
        """Return a condition and its values; names come from the schema, values are parameters."""
        terms, values = ["true"], dict[str, Any]()
        for name, wanted in query.facets.items():
            sql, place = self._column(name).sql, len(values)
            values[f"v{place}"] = [each for each in wanted if each is not None]
            missing = f" OR {sql} IS NULL" if None in wanted else ""
            terms.append(f"({sql}::VARCHAR IN (SELECT unnest($v{place}::VARCHAR[])){missing})")
        for name, (low, high) in query.ranges.items():
            place = len(values)
            values |= {f"v{place}": low, f"v{place + 1}": high}
            sql = self._column(name).sql
            terms.append(f"{sql} >= $v{place} AND {sql} < $v{place + 1}")
        if query.text:
            values["text"] = query.text.lower()
            texts = [each.searched for each in self.columns.values() if each.searched]
            terms.append(
                f"({' OR '.join(f'contains(lower({t}), $text)' for t in texts) or 'false'})"
            )
        return f"WHERE {' AND '.join(terms)}", values

    def _column(self, name: str) -> Column:
        if name not in self.columns:
            raise InputError(f"{name:.80}: no such column; known: {', '.join(self.columns):.300}")
        return self.columns[name]


def _columns(fields: Any, path: str, prefix: str) -> Iterator[Column]:  # noqa: ANN401 (pyarrow's)
    """Yield every column, and the fields of records in one as `rating.score`."""
    for each in fields:
        sql, name, kind = f"{path}{_quoted(each.name)}", f"{prefix}{each.name}", each.type
        cut = f"left({sql}::VARCHAR, {SHOWN_CHARS})"
        if pa.types.is_struct(kind):
            yield Column(name, sql, "nested", "", cut)
            yield from _columns(
                [kind.field(i) for i in range(kind.num_fields)], f"{sql}.", f"{name}."
            )
        elif pa.types.is_boolean(kind):
            yield Column(name, sql, "flag", "", sql)
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            yield Column(name, sql, "integer" if pa.types.is_integer(kind) else "number", "", sql)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            yield Column(name, sql, "text", sql, cut)
        else:
            yield _nested(name, sql, kind, cut)


def _nested(name: str, sql: str, kind: pa.DataType, cut: str) -> Column:
    inner = kind.value_type if pa.types.is_list(kind) else None
    if inner is not None and pa.types.is_struct(inner) and inner.get_field_index("content") >= 0:
        texts = f"array_to_string(list_transform({sql}, lambda m: m.content), ' ')"
        turn = f"{{'role': m.role, 'content': left(m.content, {SHOWN_CHARS})}}"
        return Column(name, sql, "turns", texts, f"list_transform({sql}[:4], lambda m: {turn})")
    return Column(name, sql, "nested", f"{sql}::VARCHAR", cut)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
