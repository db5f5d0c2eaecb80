"""Any files of rows as queries: which columns are query, options and gold answer of a row.

Readers of all collections share the ids of `Reading` and the counts of `UnusedKeys`.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import model_validator

from spyhop.schema import Config, InputError, Query
from spyhop.stage import Context, stage, sum_estimates
from spyhop.store import Artifact, row_id
from spyhop.store.files import field, parquet_head
from spyhop.store.rows import PARQUET, kind_of, read_rows, row_files
from spyhop.text.choices import has_options as lists_options
from spyhop.text.choices import labels, listed, named
from spyhop.text.template import fill, names

_SCALARS = (str, int, float, type(None))
_LETTERED = re.compile(r"\s*\(?([A-Z]{1,2}|\d{1,2})[).:]\s*(.*)", re.DOTALL)
_INLINE = re.compile(r"(?:^|[\s,;])\(?([A-Z])[).:]\s?(.*?)(?=[\s,;]+\(?[A-Z][).:]|$)", re.DOTALL)
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


class Columns(Config):
    """Names of columns, or templates of columns such as `{Body} {Question}`.

    A dotted name leads into objects and lists of JSON rows.
    """

    query: str = "inputs"
    """Column of the query."""
    context: str = ""
    """Text above the query, such as a passage."""
    options: str = ""
    """Options to choose from: a list, an object of labels and texts, or text such as `(A) yes`.
    They are written below the query, and the gold answer becomes the label of its option."""
    target: str = "targets"
    """Gold answer; of a list of gold answers the first. Empty if the files have none."""
    target_after: str = ""
    """Mark inside the gold text; the gold answer is what follows its last occurrence, as in
    `####` of GSM8K."""
    task: str = "task"
    """Empty makes each file a task, named like the file."""
    template: str = ""
    """Column of the template's name, if there is one."""
    licence: str = ""
    """Column of the licence, if there is one."""

    @model_validator(mode="after")
    def _has_a_query(self) -> "Columns":
        if not self.query:
            raise ValueError("query is empty; name the column that holds the queries")
        return self

    def keys(self) -> set[str]:
        """Return the top-level names of all columns that are read."""
        texts = [self.query, self.context, self.options, self.target]
        texts += [self.task, self.template, self.licence]
        named = (names(text) if "{" in text else [text] for text in texts if text)
        return {name.split(".")[0] for each in named for name in each}


def compose(row: Mapping[str, Any], columns: Columns, where: str) -> dict[str, Any]:
    """Return the texts of a row, as `Reading.query` takes them."""
    query = _text(row, columns.query, where)
    if context := _text(row, columns.context, where):
        query = f"{context}\n\n{query}"
    name = columns.target
    golds = field(row, name, where, object) if name and "{" not in name else None
    if isinstance(golds, list) and all(isinstance(each, str | int | float) for each in golds):
        target = str(golds[0]).strip() if golds else ""
    else:
        target = _text(row, name, where)
    if columns.target_after:
        target = target.rpartition(columns.target_after)[2].strip()
    texts: list[str] = []
    if columns.options:
        given = field(row, columns.options, where, object)
        own, texts = read_options(given, where, columns.options)
        known = labels(len(texts))
        target = _label(target, own, known, texts, where)
        shown = "\n".join(f"({label}) {text}" for label, text in zip(known, texts, strict=True))
        query = f"{query}\nOptions:\n{shown}"
    more = ("task", "template", "licence")
    others = {name: _text(row, getattr(columns, name), where) for name in more}
    return {"query": query, "target": target, "has_options": bool(texts), **others}


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    """Return a column, or a template of columns, as text; numbers are written out."""
    if "{" in column:
        values = {name: _scalar(row, name, where) for name in names(column)}
        return fill(column, **values).strip()
    return _scalar(row, column, where).strip() if column else ""


def _scalar(row: Mapping[str, Any], column: str, where: str) -> str:
    value = field(row, column, where, object)
    if not isinstance(value, _SCALARS):
        inner = f"{column}.{next(iter(value), 'key') if isinstance(value, Mapping) else 0}"
        raise InputError(
            f"{where}: column {column!r} = {value!r:.60} is not text; a dotted name such as "
            f"{inner!r} leads into it"
        )
    return "" if value is None else str(value)


def read_options(value: object, where: str, column: str) -> tuple[list[str], list[str]]:
    """Return labels (those of the file, if it has any) and texts of options."""
    if isinstance(value, str) and value[:1] in "[{":
        with suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, Mapping):
        if isinstance(value.get("text"), list) and isinstance(value.get("label"), list):
            return [*map(str, value["label"])], [*map(str, value["text"])]
        if all(isinstance(text, str | int | float) for text in value.values()):
            return [*map(str, value)], [*map(str, value.values())]
    texts = listed(value)
    if isinstance(value, str) and len(texts or ()) < 2:  # all in one line
        found = _INLINE.findall(value)
        if [label for label, _ in found] == labels(len(found)):
            texts = [text.strip() for _, text in found]
    if not texts:
        raise InputError(f"{where}: column {column!r} = {value!r:.60} lists no options")
    own = [_LETTERED.fullmatch(text) for text in texts]
    if own[0] and own[0][1] in ("A", "1") and all(own):
        return [each[1] for each in own if each], [each[2].strip() for each in own if each]
    return labels(len(texts)), texts


def _label(target: str, own: list[str], known: list[str], texts: list[str], where: str) -> str:
    """Return the label that a gold answer means: a label, an option's text, or its index."""
    bare = target.strip("() .")
    for names_ in (own, texts, known):
        if target in names_ or bare in names_:
            return known[names_.index(target if target in names_ else bare)]
    if target.isdigit() and int(target) < len(known):
        return known[int(target)]
    if not target:
        return ""
    raise InputError(f"{where}: the gold answer {target!r:.60} is not among {texts!r:.80}")


class RecordsConfig(Config):
    """Files of rows, and what they are."""

    collection: str
    pattern: str = "*"
    """Files of the folder. Their ending is their format: .jsonl, .json, .csv, .tsv, .parquet or
    .arrow (a folder that `datasets` saved); text formats also as .gz, .bz2 or .zst."""
    columns: Columns = Columns()
    licence: str = ""
    """Licence of the rows, if no column holds it."""


@stage(version=2, writes=Query, plan=lambda config, folder: sum_estimates([folder]))
def read_records(ctx: Context, config: RecordsConfig, *, folder: Artifact) -> Iterator[Query]:
    """Read the rows of every file; some 10^7 of them, for larger tables see `draw`.

    Rows without a query are dropped as `no_query`. Counts: `unused/<key>`, if no column names it.
    """
    reading = Reading(ctx, config.collection, config.licence)
    keys = config.columns.keys()
    unused = UnusedKeys(ctx, folder.path.name, keys)
    files = row_files(folder.path, config.pattern)
    for path in files:
        for number, (where, row) in enumerate(read_rows(path, keys), 1):
            found = compose(row, config.columns, where)
            unused.add(row)
            found["task"] = found["task"] or path.name.split(".")[0]
            query = reading.query(origin=f"{path.name}:{number}", **found)
            if query.query:
                yield query
            else:
                ctx.drop(query, "no_query")
    unused.report(files)
