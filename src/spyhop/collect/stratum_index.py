"""Cells: the tasks of a collection, or their strata, that rows are drawn from."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spyhop.collect.columns import column_names
from spyhop.collect.quotas import Counts
from spyhop.collect.spread import spread
from spyhop.collect.strata import Classes, Difficulty, Stratum, classes
from spyhop.collect.table import RowGroup, TableBatch, TableReader
from spyhop.store import Artifact


@dataclass(slots=True)
class StratumIndex:
    """Numbers the cells of rows. A task's cells follow each other; -1 is a row to pass over."""

    reader: TableReader
    strata: tuple[Stratum, ...]
    exclude: tuple[str, ...]
    tasks: list[str] = field(default_factory=list)
    """Known after `count`, sorted."""
    per_task: int = 1
    """Cells of each task."""
    passed_over: Counter[str] = field(default_factory=Counter)
    _places: dict[str, int] = field(default_factory=dict)
    _known: npt.NDArray[np.uint64] | None = None
    _values: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Count the cells of each task."""
        self.per_task = math.prod(stratum.num_classes for stratum in self.strata)

    def rate(self, difficulty: Artifact) -> None:
        """Take in the difficulty of rows: sixteen bytes for each."""
        rows = [(int(row.id, 16), row.value) for row in difficulty.rows(Difficulty)]
        rows.sort()
        self._known = np.array([name for name, _ in rows], np.uint64)
        self._values = np.array([value for _, value in rows], np.float64)

    def count(self, threads: int) -> Counts:
        """Read what is needed of every row, and return the number of rows in each cell."""
        totals: Counter[tuple[str, int]] = Counter()
        for found in spread(self.reader.groups(), self._count_group, threads):
            totals.update(found)
        self.passed_over["other_value"] = sum(n for (_, cell), n in totals.items() if cell < 0)
        totals = Counter({name: n for name, n in totals.items() if name[1] >= 0})
        self._name_tasks(totals)
        counts = np.zeros(len(self.tasks) * self.per_task, np.int64)
        for (task, cell), rows in totals.items():
            if task in self._places:
                counts[self._places[task] * self.per_task + cell] = rows
        return counts

    def _count_group(self, group: RowGroup) -> Iterator[Counter[tuple[str, int]]]:
        found: Counter[tuple[str, int]] = Counter()
        for piece in self.reader.batches(group, self.columns):
            tasks = self.reader.tasks(piece)
            inside = self._inside(piece) * self.per_task + self._class(piece)
            codes = tasks.indices.to_numpy().astype(np.int64) * self.per_task
            cells = np.where(inside >= 0, codes + inside, -1)
            names = tasks.dictionary.to_pylist()
            for cell, rows in zip(*(each.tolist() for each in _counted(cells)), strict=True):
                name = names[cell // self.per_task] if cell >= 0 else ""
                found[name, cell % self.per_task if cell >= 0 else -1] += rows
        yield found

    def _name_tasks(self, totals: Counter[tuple[str, int]]) -> None:
        for (task, _), rows in totals.items():
            if any(fnmatchcase(task, pattern) for pattern in self.exclude):
                self.passed_over["excluded_task"] += rows
            elif task not in self._places:
                self._places[task] = 0
        self.tasks = sorted(self._places)
        self._places = {task: place for place, task in enumerate(self.tasks)}

    @property
    def columns(self) -> list[str]:
        """Names of the columns that tell a row's cell."""
        names = [self.reader.columns.task, *(self.reader.table.only if self.reader.table else ())]
        if any(stratum.by != "difficulty" for stratum in self.strata):
            names += column_names(self.reader.columns.query)
            names += column_names(self.reader.columns.context)
        if self._known is not None:
            names.append("id")
        return names if any(names) else column_names(self.reader.columns.query)

    def of(self, piece: TableBatch) -> Counts:
        """Return each row's cell."""
        tasks = self.reader.tasks(piece)
        names = tasks.dictionary.to_pylist()
        places = np.array([self._places.get(name, -1) for name in names] + [-1], np.int64)
        found = places[tasks.indices.to_numpy()]
        is_in = (found >= 0) & (self._inside(piece) >= 0)
        return np.where(is_in, found * self.per_task + self._class(piece), -1)

    def _inside(self, piece: TableBatch) -> Counts:
        """Return 0 where a row's values match what is asked for, else a number below 0."""
        inside = np.zeros(piece.batch.num_rows, np.int64)
        for column, patterns in (self.reader.table.only if self.reader.table else {}).items():
            values = piece.batch[column].cast(pa.string()).fill_null("").dictionary_encode()
            fits = [
                any(fnmatchcase(value, pattern) for pattern in patterns)
                for value in values.dictionary.to_pylist()
            ]
            inside[~np.array([*fits, False])[values.indices.to_numpy()]] = -1
        return inside

    def _class(self, piece: TableBatch) -> Classes:
        found = np.zeros(piece.batch.num_rows, np.int64)
        for stratum in self.strata:
            queries = pa.nulls(piece.batch.num_rows, pa.string())
            if stratum.by != "difficulty":
                queries = self.reader.query_text(piece.batch)
            found = found * stratum.num_classes + classes(stratum, queries, self._difficulty(piece))
        return found

    def _difficulty(self, piece: TableBatch) -> npt.NDArray[np.float64] | None:
        if self._known is None or self._values is None:
            return None
        ids = np.array([int(name, 16) for name in piece.batch["id"].to_pylist()], np.uint64)
        if not len(self._known):
            return np.full(len(ids), np.nan)
        near = np.minimum(np.searchsorted(self._known, ids), len(self._known) - 1)
        return np.where(self._known[near] == ids, self._values[near], np.nan)


def _counted(cells: Counts) -> tuple[Counts, Counts]:
    num = np.bincount(cells + 1)
    present = np.flatnonzero(num)
    return present - 1, num[present]


def class_names(strata: Sequence[Stratum], place: int) -> str:
    """Return the names of a cell's classes."""
    names = []
    for stratum in reversed(strata):
        place, own = divmod(place, stratum.num_classes)
        names.append(stratum.name(own))
    return ", ".join(reversed(names))
