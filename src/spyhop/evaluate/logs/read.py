"""Open a log, whichever tool wrote it, and read it into one small table.

A log is a file, or a folder with the files of one model. Texts stay in the files: the table has
their lengths and the number of each row, by which the rows to show are read again.
"""

import re
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import pyarrow as pa
from pydantic_core import from_json

from spyhop.evaluate.logs.formats import FORMATS, Parse
from spyhop.evaluate.logs.inspect_log import header, inspect_row, is_inspect, samples
from spyhop.evaluate.logs.row import LogRow, need
from spyhop.processes import WorkerProcess
from spyhop.schema import InputError, SpyhopError
from spyhop.store.artifact import RECORD
from spyhop.store.files import LINE, byte_lines
from spyhop.store.rows import read_rows, row_files

INSPECT = "inspect"
_NAME = pa.dictionary(pa.int32(), pa.string())
COLUMNS = pa.schema(
    [
        ("task", _NAME),
        ("item", pa.binary(16)),
        ("sample", pa.int32()),
        ("value", pa.float64()),
        ("prompt", pa.uint32()),
        ("topic", _NAME),
        ("passage", _NAME),
        ("question_chars", pa.int32()),
        ("response_chars", pa.int32()),
        ("place", pa.int64()),
    ]
)
"""The small row: `item` and `prompt` are digests, 0 for an unknown prompt; `value` is null where a
call or verdict failed; `place` finds the row again."""
PARALLEL_BYTES = 64 << 20
"""Size of two logs from which each gets a process of its own."""
_BATCH = 1 << 16
_FILE = 1 << 40
"""Rows that a file may have: `place` is the number of the file times this, plus the row's."""
_SAMPLES = re.compile(r"samples_(.+?)(?:_(\d{4}-\d\d-\d\dT[\d.-]+))?\.jsonl")
_FOLDERS = ("scores-*.jsonl", "samples_*.jsonl", "*/samples_*.jsonl", "*.eval", "*.json",
            "*/annotations.json", "*.jsonl", f"*/{RECORD}")  # fmt: skip
"""What a folder of a log is searched for, in order."""
_KNOWN = f"{', '.join(FORMATS)} or {INSPECT}"


class LogFile(NamedTuple):
    """One file, or folder of an artifact, of one tool."""

    path: Path
    kind: str
    task: str
    """As the file's name or header says; empty if it does not."""
    model: str
    created: str


@dataclass(frozen=True, slots=True)
class Log:
    """The rows of one model, of one tool."""

    path: Path
    kind: str
    model: str
    files: tuple[LogFile, ...]
    table: pa.Table
    """Of `COLUMNS`."""
    metrics: dict[str, str]
    """The metric that `value` is, by task."""
    offered: dict[str, tuple[str, ...]]
    """Every metric that the log has, by task."""

    def rows(self, places: Collection[int]) -> dict[int, LogRow]:
        """Read the rows at these places again, with their texts."""
        found = {}
        for number, file in enumerate(self.files):
            wanted = {place % _FILE for place in places if place // _FILE == number}
            if wanted:
                for row_number, where, fields in _records(file, wanted):
                    found[number * _FILE + row_number] = _parser(file)(fields, where, file.task)
        return found


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
    files = _files(path)
    kinds, models = ({getattr(file, name) for file in files} for name in ("kind", "model"))
    if len(kinds) > 1 or len(models) > 1:
        found = ", ".join(sorted(kinds if len(kinds) > 1 else models))
        raise InputError(f"{path}: rows of {found}; name the file or folder of one model")
    if tasks:
        files = [file for file in files if not file.task or _is_wanted(file.task, tasks)]
    reading = _Reading(tasks, metric)
    batches = [batch for n, file in enumerate(files) for batch in reading.batches(n, file)]
    table = pa.Table.from_batches(batches, COLUMNS).unify_dictionaries()
    if not table.num_rows:
        raise InputError(f"{path}: {reading.reason(path)}")
    return Log(
        path=path,
        kind=files[0].kind,
        model=files[0].model or path.stem,
        files=tuple(files),
        table=table,
        metrics=reading.metrics,
        offered={task: tuple(names) for task, names in reading.offered.items()},
    )


def read_logs(
    first: Path, second: Path, tasks: Sequence[str] = (), metric: str = ""
) -> tuple[Log, Log]:
    """Read two logs as `read_log` does; large ones at the same time."""
    size = sum(file.path.stat().st_size for path in (first, second) for file in _files(path))
    if size < PARALLEL_BYTES:
        return read_log(first, tasks, metric), read_log(second, tasks, metric)
    worker = WorkerProcess("spyhop.evaluate.logs.read:serve")
    try:
        worker.send((second, tasks, metric))
        one, two = read_log(first, tasks, metric), worker.receive()
    finally:
        worker.kill()
    if isinstance(two, SpyhopError):
        raise two
    return one, two


def serve(receive: Callable[[], Any], send: Callable[[Log | SpyhopError], None]) -> None:
    """Read one log in a process of its own."""
    try:
        send(read_log(*receive()))
    except SpyhopError as error:
        send(error)


class _Reading:
    """Rows to columns; of each task one metric."""

    def __init__(self, tasks: Sequence[str], metric: str) -> None:
        self.metrics: dict[str, str] = {}
        self.offered: dict[str, dict[str, None]] = {}
        self._tasks, self._metric = tasks, metric

    def batches(self, number: int, file: LogFile) -> Iterator[pa.RecordBatch]:
        parse, columns = _parser(file), _empty()
        for row_number, where, fields in _records(file):
            row = parse(fields, where, file.task)
            name = self.metrics.get(row.task) or self._chosen(row)
            self.offered.setdefault(row.task, {}).update(dict.fromkeys(row.values))
            if self._tasks and not _is_wanted(row.task, self._tasks):
                continue
            if row.values and name not in row.values:  # another filter, or not the metric
                continue
            if name:  # a failed row has no score
                self.metrics[row.task] = name
            item = blake2b(row.item.encode(), digest_size=16).digest()
            prompt = crc32(row.prompt.encode()) if row.prompt else 0
            cells = (
                row.task, item, row.sample, row.values.get(name), prompt, row.topic,
                row.passage, len(row.question), len(row.response), number * _FILE + row_number,
            )  # fmt: skip
            for column, cell in zip(columns, cells, strict=True):
                column.append(cell)
            if len(columns[0]) == _BATCH:
                yield _batch(columns)
                columns = _empty()
        yield _batch(columns)

    def reason(self, path: Path) -> str:
        """Return why no row was taken."""
        if self._tasks and not any(_is_wanted(task, self._tasks) for task in self.offered):
            return f"no task {', '.join(self._tasks)}; it has {_listed(self.offered) or 'no rows'}"
        if self.offered:
            names = {name for found in self.offered.values() for name in found}
            return f"no metric {self._metric!r}; it has {_listed(sorted(names)) or 'no scores'}"
        return "no rows"

    def _chosen(self, row: LogRow) -> str:
        if not self._metric:
            return next(iter(row.values), "")
        names = (n for n in row.values if self._metric in (n, n.partition(",")[0]))
        return next(names, "")


def _empty() -> list[list[Any]]:
    return [[] for _ in COLUMNS]


def _batch(columns: list[list[Any]]) -> pa.RecordBatch:
    arrays = [
        pa.array(cells, pa.string()).dictionary_encode() if kind == _NAME else pa.array(cells, kind)
        for cells, kind in zip(columns, COLUMNS.types, strict=True)
    ]
    return pa.record_batch(arrays, schema=COLUMNS)


def _is_wanted(task: str, tasks: Sequence[str]) -> bool:
    return any(fnmatchcase(task, pattern) for pattern in tasks)


def _listed(names: Collection[str]) -> str:
    shown = list(names)[:8]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > 8 else "")


def _parser(file: LogFile) -> Parse:
    return inspect_row if file.kind == INSPECT else FORMATS[file.kind][2]


def _records(
    file: LogFile, wanted: Collection[int] | None = None
) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Yield number, place and fields of each row of a file, or of the wanted ones."""
    if file.kind == INSPECT:
        yield from samples(file.path, wanted)
    elif file.path.suffix == ".jsonl":
        yield from _lines(file.path, wanted)
    else:
        rows = (row for part in row_files(file.path) for row in read_rows(part))
        for number, (where, fields) in enumerate(rows):
            if wanted is None or number in wanted:
                yield number, where, fields


def _lines(
    path: Path, wanted: Collection[int] | None
) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Yield the rows of JSON lines; half of the time of `read_rows`, which names what is broken."""
    for number, line in enumerate(byte_lines(path), 1):
        if (wanted is None or number in wanted) and not line.isspace():
            try:
                fields = from_json(line.removeprefix(BOM_UTF8))
                where = f"{path}{LINE}{number}"
                yield number, where, need({"row": fields}, "row", dict, where)
            except ValueError:
                deque(read_rows(path), maxlen=0)
                raise


def _files(path: Path) -> list[LogFile]:
    """Return the files of a log.

    Of several runs of one task in a folder, the newest is taken.
    """
    if path.is_file() or (path / RECORD).is_file():
        return [_file(path)]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    for pattern in _FOLDERS:
        paths = sorted(path.glob(pattern))
        if pattern == "*.json":
            paths = [each for each in paths if is_inspect(each)]
        if pattern.endswith(RECORD):
            paths = [each.parent for each in paths if _is_scores(each.parent)]
        if paths and pattern in ("scores-*.jsonl", "*.jsonl", f"*/{RECORD}") and len(paths) > 1:
            names = _listed([str(each.relative_to(path)) for each in paths])
            raise InputError(f"{path}: several models or files: {names}; name one of them")
        if paths:
            files = sorted((_file(each) for each in paths), key=lambda file: file.created)
            newest = {(f.task, f.model) if f.task else f.path: f for f in files}
            return list(newest.values())
    raise InputError(f"{path}: a folder without a log of {_KNOWN}")


def _is_scores(folder: Path) -> bool:
    """Whether an artifact has scores."""
    parts = sorted(folder.glob("part-*.parquet"))
    return bool(parts) and {"correct", "extracted"} <= set(_first_row(parts[0]))


def _first_row(path: Path) -> dict[str, Any]:
    return next((row for _, row in read_rows(path)), {})


def _file(path: Path) -> LogFile:
    """Return a file with its tool, and the task and model that its name or header says."""
    if path.is_file() and is_inspect(path):
        spec = header(path)
        texts = (str(spec.get(name) or "") for name in ("task", "model", "created"))
        return LogFile(path, INSPECT, *texts)
    row = next((row for part in row_files(path) if (row := _first_row(part))), None)
    if row is None:
        raise InputError(f"{path}: no rows")
    kind = next((kind for kind, (one, two, _) in FORMATS.items() if one in row and two in row), "")
    if not kind:
        raise InputError(
            f"{path}: not a log of {_KNOWN}; the fields of its first row: {_listed(row)}"
        )
    name = _SAMPLES.fullmatch(path.name) if kind == "lm-eval" else None
    model = row.get("model") or row.get("generator_2") or (path.parent.name if name else "")
    task, created = (name[1], name[2] or "") if name else ("", "")
    return LogFile(path, kind, task, str(model), created)
