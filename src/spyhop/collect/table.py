"""SQL for draws: the rows of Parquet, JSONL, CSV and TSV files as queries, and their strata.

Columns are plain: the keys or headings themselves. Null is the empty text, numbers come as they are
written, nearly (`1.50` in JSON is `1.5`), and of a list of gold answers the first counts.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from spyhop.collect.columns import Columns
from spyhop.schema import Config, InputError, Row
from spyhop.store import Artifact
from spyhop.store.files import lines, matching, parquet_head
from spyhop.store.rows import PARQUET, kind_of

OBJECT_BYTES = 1 << 25
"""Longest line of JSON or CSV."""


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


def relations(folders: Sequence[Artifact], table: SourceTable | None) -> Iterator[tuple[Path, str]]:
    """Yield each file, and SQL that gives its rows the columns of a query and `is_in`.

    Rows of a `SourceTable` have no id yet, and no `multiple_choice` flag; those with `is_in` false
    are to be passed over. A file that is broken or lacks a column is an `InputError`.
    """
    for folder in folders:
        if table is None:
            for part in folder.parts():
                yield part, f"SELECT *, true AS is_in FROM read_parquet({quoted(str(part))})"
            continue
        for path in matching(folder.path, table.pattern):
            name = path.name if path == folder.path else path.relative_to(folder.path).as_posix()
            yield path, _query_rows(path, name, table)


def _query_rows(path: Path, name: str, table: SourceTable) -> str:
    columns = table.columns
    wanted = sorted({*columns.keys(), *table.only})
    reader, texts = _reader(path, wanted, columns.target)

    def text(column: str, default: str = "") -> str:
        """Return SQL for a column or a template of columns."""
        if not column:
            return quoted(default)
        parts = re.split(r"\{([A-Za-z_][\w.]*)\}", column) if "{" in column else ["", column, ""]
        found = [texts[part] if n % 2 else quoted(part) for n, part in enumerate(parts)]
        return f"concat({', '.join(found)})"

    query, target = text(columns.query), text(columns.target)
    if columns.context:
        context = text(columns.context)
        query = f"if({context} = '', {query}, concat({context}, chr(10), chr(10), {query}))"
    if columns.target_after:
        target = f"string_split({target}, {quoted(columns.target_after)})[-1]"
    is_in = " AND ".join(
        f"({' OR '.join(f'{texts[column]} GLOB {quoted(each)}' for each in patterns)})"
        for column, patterns in table.only.items()
    )
    return f"""
        SELECT '' AS id, {quoted(table.collection)} AS collection,
            {text(columns.task, path.name.split(".")[0])} AS task,
            {query} AS query, {target} AS target, false AS multiple_choice,
            concat({quoted(name)}, ':', number) AS origin, {text(columns.template)} AS template,
            {text(columns.licence, table.licence)} AS licence, {is_in or "true"} AS is_in
        FROM ({reader})"""


def _reader(path: Path, wanted: Sequence[str], target: str) -> tuple[str, dict[str, str]]:
    """Return SQL for the rows of a file with their `number`, and for each column as text."""
    file, kind = quoted(str(path)), kind_of(path)
    texts = {name: f"coalesce({_name(name)}, '')" for name in wanted}
    names, reader = list(wanted), "json"
    options = f"format = 'newline_delimited', records = true, maximum_object_size = {OBJECT_BYTES}"
    if kind == PARQUET:
        schema = parquet_head(path).schema.to_arrow_schema()
        names = schema.names
    elif kind != ".jsonl":
        delimiter = "\t" if kind == ".tsv" else ","
        first = next((line for _, line in lines(path)), "")
        names, reader = next(csv.reader([first], delimiter=delimiter), []), "csv"
        options = (
            f"auto_detect = false, header = true, delim = {quoted(delimiter)}, quote = '\"', "
            f"escape = '\"', max_line_size = {OBJECT_BYTES}"
        )
    if missing := [name for name in wanted if name not in names]:
        raise InputError(f"{path}: no column {missing[0]!r}; found: {', '.join(names)}")
    if kind == PARQUET:
        texts = {
            each: _as_text(path, schema.field(each), is_target=each == target) for each in wanted
        }
        source = f"read_parquet({file}, file_row_number = true)"
        return f"SELECT *, file_row_number + 1 AS number FROM {source}", texts
    types = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in names)
    source = f"read_{reader}({file}, columns = {{{types}}}, {options})"
    return f"SELECT *, row_number() OVER () AS number FROM {source}", texts


def _as_text(path: Path, column: pa.Field, *, is_target: bool) -> str:
    """Return SQL for a column of a Parquet file as text."""
    kind, value = column.type, _name(column.name)
    if is_target and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        kind, value = kind.value_type, f"{value}[1]"
    if pa.types.is_binary(kind):
        value = f"decode({value})"
    elif pa.types.is_nested(kind):
        raise InputError(
            f"{path}: column {column.name!r} ({column.type!s:.80}) is not text (nor a number)"
        )
    return f"coalesce(CAST({value} AS VARCHAR), '')"


def quoted(text: str) -> str:
    """Return a text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


FACTS = r"\d+(?:[.,]\d+)*|[.!?;\n]"


class Difficulty(Row):
    """How hard a query is; `id` is the query's."""

    value: float


class Stratum(Config):
    """A property that divides the rows of a task into classes, which are drawn from evenly.

    * `length`: words of the query, as spaces part them.
    * `complexity`: facts to keep in mind at once: numbers, and ends of sentences and clauses (`.`,
      `!`, `?`, `;`, line breaks) in the query.
    * `topic`: the first topic whose pattern is found in the query, else the last class.
    * `difficulty`: a figure for each row made elsewhere: 1 where a teaching assistant's verified
      answer was wrong, or a model's loss on the target. Rows without one make a class of their own.
    """

    by: Literal["length", "complexity", "topic", "difficulty"]
    """Property of a row that defines its stratum."""
    edges: tuple[float, ...] = ()
    """Where a class ends and the next begins: (20, 100) makes three classes of the measure."""
    topics: tuple[str, ...] = Field(())
    """Regular expressions (RE2), one for each topic; the case of letters does not matter."""

    @model_validator(mode="after")
    def _has_classes(self) -> "Stratum":
        given, other = ("topics", "edges") if self.by == "topic" else ("edges", "topics")
        if not getattr(self, given) or getattr(self, other):
            raise ValueError(f"by = {self.by!r} needs {given}, and no {other}")
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError(f"edges = {list(self.edges)}: they must rise")
        for topic in self.topics:
            try:
                pc.match_substring_regex(pa.array([""]), topic)
            except pa.ArrowInvalid as error:
                reason = f"topics: {topic!r} is not a pattern of RE2 ({error!s:.80})"
                raise ValueError(reason) from None
        return self

    @property
    def classes(self) -> list[str]:
        """Names of the classes in the record, with that of the rows without a topic or figure."""
        if self.by == "topic":
            return [*self.topics, "other"]
        ends = [f"{edge:g}" for edge in self.edges]
        between = (f"{low} to {high}" for low, high in pairwise(ends))
        unknown = ["unknown"] if self.by == "difficulty" else []
        every = (f"below {ends[0]}", *between, f"from {ends[-1]}", *unknown)
        return [f"{self.by} {name}" for name in every]


def class_sql(strata: Sequence[Stratum]) -> str:
    """Return SQL for the class of a row: a number below the product of the strata's classes."""
    total = "0"
    for stratum in strata:
        if stratum.by == "topic":
            cases = " ".join(
                f"WHEN regexp_matches(query, {quoted(topic)}, 'is') THEN {place}"
                for place, topic in enumerate(stratum.topics)
            )
            own = f"CASE {cases} ELSE {len(stratum.topics)} END"
        else:
            pattern = {"length": r"\S+", "complexity": FACTS}.get(stratum.by)
            value = f"len(regexp_extract_all(query, {quoted(pattern)}))" if pattern else stratum.by
            above = " + ".join(f"({value} >= {edge!r})::BIGINT" for edge in stratum.edges)
            own = f"coalesce({above}, {len(stratum.edges) + 1})"
        total = f"({total}) * {len(stratum.classes)} + {own}"
    return total


def class_names(strata: Sequence[Stratum], place: int) -> str:
    """Return the names of a cell's classes."""
    names = []
    for stratum in reversed(strata):
        place, own = divmod(place, len(stratum.classes))
        names.append(stratum.classes[own])
    return ", ".join(reversed(names))
