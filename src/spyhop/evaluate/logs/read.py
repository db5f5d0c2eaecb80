"""Open a log, whichever tool wrote it, and read it into one small table.

A log is a file, or a folder with the files of one model. Texts stay in the files: the table has
their lengths and the place of each row, by which the rows to show are read again.
"""

import re
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import pyarrow as pa
from pydantic_core import from_json

from spyhop.evaluate.logs.formats import (
    FORMATS,
    Fields,
    LogRow,
    header,
    inspect_row,
    is_inspect,
    samples,
)
from spyhop.schema import InputError
from spyhop.store.artifact import RECORD
from spyhop.store.files import LINE, byte_lines
from spyhop.store.rows import read_rows, row_files

INSPECT = "inspect"
_NAME = pa.dictionary(pa.int32(), pa.string())
COLUMNS = {
    "task": _NAME, "item": pa.binary(16), "sample": pa.int32(), "value": pa.float64(),
    "prompt": pa.uint32(), "topic": _NAME, "passage": _NAME, "question": pa.int32(),
    "response": pa.int32(), "place": pa.int64(),
}  # fmt: skip
"""The small row: `item` and `prompt` are digests, 0 for an unknown prompt; `value` is null where a
call or verdict failed; `question` and `response` are numbers of characters."""
_BATCH = 1 << 16
_FILE = 1 << 40
"""Rows that a file may have: a place is the number of the file times this, plus the row's."""
_SAMPLES = re.compile(r"samples_(.+?)(?:_(\d{4}-\d\d-\d\dT[\d.-]+))?\.jsonl")
_FOLDERS = {
    "scores-*.jsonl": False, "samples_*.jsonl": True, "*/samples_*.jsonl": True, "*.eval": True,
    "*.json": True, "*/annotations.json": True, f"*/{RECORD}": False, "*.jsonl": False,
}  # fmt: skip
"""What a folder is searched for, in order, and whether several such files are one log."""
_KNOWN = f"{', '.join(FORMATS)} or {INSPECT}"


class LogFile(NamedTuple):
    """One file, or folder of an artifact, of one tool; what its name or header says of it."""

    path: Path
    kind: str
    task: str = ""
    model: str = ""
    created: str = ""


@dataclass(frozen=True, slots=True)
class Log:
    """The rows of one model, of one tool."""

    path: Path
    files: tuple[LogFile, ...]
    table: pa.Table
    """Of `COLUMNS`."""
    metrics: dict[str, str]
    """The metric that `value` is, by task."""
    offered: dict[str, dict[str, None]]
    """Every metric that the log has, by task."""

    @property
    def kind(self) -> str:
        """The tool."""
        return self.files[0].kind

    @property
    def model(self) -> str:
        """The model's name as the log says it, else the file's."""
        return self.files[0].model or self.path.stem

    def rows(self, places: Collection[int]) -> dict[int, LogRow]:
        """Read the rows at these places again, with their texts."""
        return {
            number * _FILE + place: row
            for number, file in enumerate(self.files)
            if (wanted := {place % _FILE for place in places if place // _FILE == number})
            for place, row in _rows(file, wanted)
        }


def read_log(path: Path, tasks: Sequence[str] = (), metric: str = "") -> Log:
    """Read a log.

    Args:
        path: A file, or a folder with the files of one model.
        tasks: Names or patterns of tasks; default: all.
        metric: Name of the metric, with or without lm-eval's filter (`exact_match`,
            `exact_match,strict-match`); default: of each task, the first that the log has.

    Raises:
        InputError: If it is no log, has rows of several models, a broken row, or no such metric.
    """
    files = log_files(path)
    for found in ({file.kind for file in files}, {file.model for file in files}):
        if len(found) > 1:
            names = _listed(sorted(found))
            raise InputError(f"{path}: rows of {names}; name the file or folder of one model")
    log = Log(path, tuple(files), pa.schema(COLUMNS).empty_table(), {}, {})
    rows = (
        row
        for number, file in enumerate(files)
        if not (tasks and file.task) or _is_wanted(file.task, tasks)
        for row in _small_rows(log, number, tasks, metric)
    )
    batches = []
    while columns := [*zip(*islice(rows, _BATCH), strict=True)]:
        batch = dict(zip(COLUMNS, columns, strict=True))
        batches.append(pa.RecordBatch.from_pydict(batch, pa.schema(COLUMNS)))
    if batches:
        return replace(log, table=pa.Table.from_batches(batches).unify_dictionaries())
    known = {file.task: None for file in files if file.task} | log.offered
    if tasks and not any(_is_wanted(task, tasks) for task in known):
        raise InputError(f"{path}: no task {_listed(tasks)}; it has {_listed(known) or 'none'}")
    offered = {name for names in log.offered.values() for name in names}
    reason = f"no metric {metric!r}; it has {_listed(sorted(offered))}" if offered else "no rows"
    raise InputError(f"{path}: {reason}")


def _small_rows(
    log: Log, number: int, tasks: Sequence[str], metric: str
) -> Iterator[tuple[Any, ...]]:
    """Yield the values of `COLUMNS` of each row of a file, of each task those of one metric."""
    for place, row in _rows(log.files[number]):
        log.offered.setdefault(row.task, {}).update(dict.fromkeys(row.values))
        if tasks and not _is_wanted(row.task, tasks):
            continue
        names = (name for name in row.values if metric in ("", name, name.partition(",")[0]))
        name = log.metrics.get(row.task) or next(names, "")
        if row.values and name not in row.values:  # another filter, or without the metric
            continue
        if name:  # a failed row has no score
            log.metrics[row.task] = name
        item = blake2b(row.item.encode(), digest_size=16).digest()
        prompt = crc32(row.prompt.encode()) if row.prompt else 0
        yield (
            row.task, item, row.sample, row.values.get(name), prompt, row.topic, row.passage,
            len(row.question), len(row.response), number * _FILE + place,
        )  # fmt: skip


def _is_wanted(task: str, tasks: Sequence[str]) -> bool:
    return any(fnmatchcase(task, pattern) for pattern in tasks)


def _listed(names: Collection[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(list(names)[:8]) + more


def _rows(file: LogFile, wanted: Collection[int] | None = None) -> Iterator[tuple[int, LogRow]]:
    """Yield number and row of every row of a file, or of the wanted ones."""
    parse = inspect_row if file.kind == INSPECT else FORMATS[file.kind][2]
    for number, where, fields in log_records(file, wanted):
        try:
            yield number, parse(fields, where, file.task)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise InputError(f"{where}: no row of {file.kind} ({error!s:.80})") from None


def log_records(
    file: LogFile, wanted: Collection[int] | None = None
) -> Iterator[tuple[int, str, Fields]]:
    """Yield number, place and fields of every row of a file, or of the wanted ones."""
    if file.kind == INSPECT:
        yield from samples(file.path, wanted)
    elif file.path.suffix == ".jsonl":  # in half of the time of `read_rows`, which names errors
        for number, line in enumerate(byte_lines(file.path), 1):
            if (wanted is None or number in wanted) and not line.isspace():
                try:
                    fields = from_json(line.removeprefix(BOM_UTF8))
                except ValueError:
                    deque(read_rows(file.path), maxlen=0)
                    raise
                yield number, f"{file.path}{LINE}{number}", fields
    else:
        rows = (row for part in row_files(file.path) for row in read_rows(part))
        for number, (where, fields) in enumerate(rows):
            if wanted is None or number in wanted:
                yield number, where, fields


def log_files(path: Path) -> list[LogFile]:
    """Return the files of a log; of several runs of one task in a folder, the newest."""
    if path.is_file() or (path / RECORD).is_file():
        return [_file(path)]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    for pattern, are_one_log in _FOLDERS.items():
        paths = sorted(path.glob(pattern))
        if pattern == "*.json":
            paths = [each for each in paths if is_inspect(each)]
        elif pattern.endswith(RECORD):
            paths = [each.parent for each in paths if "extracted" in _first_row(each.parent)]
        if len(paths) > 1 and not are_one_log:
            names = _listed([str(each.relative_to(path)) for each in paths])
            raise InputError(f"{path}: several models or files: {names}; name one of them")
        if paths:
            files = sorted(map(_file, paths), key=lambda file: file.created)
            newest = {(file.task, file.model) if file.task else file.path: file for file in files}
            return list(newest.values())
    raise InputError(f"{path}: a folder without a log of {_KNOWN}")


def _file(path: Path) -> LogFile:
    if path.is_file() and is_inspect(path):
        spec = header(path)
        texts = (str(spec.get(name) or "") for name in ("task", "model", "created"))
        return LogFile(path, INSPECT, *texts)
    row = _first_row(path)
    if not row:
        raise InputError(f"{path}: no rows")
    kind = next((kind for kind, (one, two, _) in FORMATS.items() if one in row and two in row), "")
    if not kind:
        fields = f"the fields of its first row: {_listed(row)}"
        raise InputError(f"{path}: not a log of {_KNOWN}; {fields}")
    name = _SAMPLES.fullmatch(path.name) if kind == "lm-eval" else None
    model = row.get("model") or row.get("generator_2") or (path.parent.name if name else "")
    return LogFile(path, kind, name[1] if name else "", str(model), (name and name[2]) or "")


def _first_row(path: Path) -> Fields:
    """Return the first row of a file or an artifact; empty if there is no row."""
    parts = path.glob("part-*.parquet") if path.is_dir() else row_files(path)
    return next((row for part in parts for _, row in read_rows(part)), {})
