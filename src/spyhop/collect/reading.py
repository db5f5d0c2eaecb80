"""What readers of collections share: rows with stable ids, licence and origin, and their counts."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from spyhop.schema import Query
from spyhop.stage import Context
from spyhop.store import row_id
from spyhop.store.files import parquet_head
from spyhop.store.rows import PARQUET, kind_of
from spyhop.text.options import has_options as lists_options
from spyhop.text.options import named

MAX_UNUSED = 20
"""Keys without a meaning that are counted by name."""


def origin_of(path: Path, where: str) -> str:
    """Return the place of a row (`folder/file: line 7`) without the file's folder."""
    return f"{path.name}{where.removeprefix(str(path))}"


class UnusedKeys:
    """Counts the keys of rows that have no meaning for the reader, and reports them at the end."""

    def __init__(self, ctx: Context, source: str, known: Collection[str]) -> None:
        self._ctx, self._source, self._known = ctx, source, frozenset(known)
        self.rows: Counter[str] = Counter()
        """Rows that have a key, by the key."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Count the unknown keys of a row that have a value."""
        self.rows.update(key for key in row.keys() - self._known if row[key] is not None)

    def report(self, files: Iterable[Path] = ()) -> None:
        """Write the counts, with the columns of Parquet files that are not read; log one line."""
        for head in (parquet_head(path) for path in files if kind_of(path) == PARQUET):
            others = set(head.schema.to_arrow_schema().names) - self._known
            self.rows.update(dict.fromkeys(others, head.num_rows))
        common = sorted(self.rows.items(), key=lambda each: (-each[1], each[0]))[:MAX_UNUSED]
        for key, num in common:
            self._ctx.count(f"unused/{key}", num)
        if common:
            shown = ", ".join(f"{key} ({num:,} rows)" for key, num in common)
            self._ctx.notice(f"{self._source}: keys without a meaning here are ignored: {shown}")


class Reading:
    """Turns texts of one collection into queries.

    A row's id depends on its text, and for repetitions within its task on their number.
    """

    def __init__(self, ctx: Context, collection: str, licence: str = "") -> None:
        self._ctx, self._collection, self._licence = ctx, collection, licence
        self._task = ""
        self._seen = Counter[str]()

    def query(
        self,
        task: str,
        query: str,
        target: str,
        origin: str,
        *,
        template: str = "",
        licence: str = "",
        has_options: bool | None = None,
    ) -> Query:
        """Return the row and count it."""
        if task != self._task:
            self._task = task
            self._seen.clear()
        base = row_id(self._collection, task, query, target)
        self._seen[base] += 1
        told = named(template) if has_options is None else has_options
        is_multiple_choice = lists_options(query) if told is None else told
        self._ctx.count(f"task/{self._collection}/{task}")
        if is_multiple_choice:
            self._ctx.count(f"multiple_choice/{'text' if told is None else 'template'}")
        return Query(
            id=base if self._seen[base] == 1 else row_id(base, str(self._seen[base])),
            collection=self._collection,
            task=task,
            query=query,
            target=target,
            multiple_choice=is_multiple_choice,
            origin=origin,
            template=template,
            licence=licence or self._licence,
        )
