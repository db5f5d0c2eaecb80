"""Two models on the same items, pair by pair: second minus first, with the rows that differ."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from spyhop.evaluate.logs import Log, LogRow
from spyhop.lazy import duckdb
from spyhop.schema import InputError, Verdict
from spyhop.statistics import (
    Comparison,
    cluster_difference,
    detectable_difference,
    holm,
    paired_difference,
    paired_seed_difference,
)
from spyhop.store import Artifact

ALL = "all items"
LEAST_OVERLAP = 0.5
"""Share of the larger log's items that both need."""
_LEVEL_Z, _POWER_Z = 1.959964, 0.841621
"""Quantiles of the test's level (0.05, two-sided) and of its power (0.8)."""
_SQL = (files("spyhop.evaluate") / "comparison.sql").read_text()


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedResult:
    """Two models on one group of items; differences are second minus first."""

    group: str
    n: int
    first: float
    second: float
    """Means over the items."""
    difference: float
    low: float | None
    high: float | None
    """95 % interval; None where differences that are no shares have no spread."""
    p_value: float | None
    adjusted: float | None = None
    """The p-value after Holm's correction for the number of groups."""
    method: str
    gained: int
    lost: int
    """Items on which the second is better, and on which it is worse."""
    detectable: float | None
    """Smallest difference that as many items find with 80 % power; None if there is none."""
    is_share: bool
    """Whether every value is from 0 to 1, so that means are shares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """An item on which the two models differ, as their logs have it."""

    task: str
    first_value: float
    second_value: float
    first: LogRow
    second: LogRow


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedLogs:
    """What two logs show about their models."""

    names: tuple[str, str]
    paths: tuple[str, str]
    kind: str
    metrics: dict[str, str]
    overall: PairedResult
    """Every item counts the same (a micro average)."""
    by_task: list[PairedResult]
    by_topic: list[PairedResult]
    by_length: list[PairedResult]
    length_of: str
    """What the lengths are of: `response` (mean of both models), or `question`."""
    matched: int
    missing: int
    """Common items of which a score is missing; they are not compared."""
    other_prompts: int
    """Common items whose prompts differ."""
    counts: dict[str, dict[str, int]]
    """Rows, items, unmatched, duplicates and missing of the `first` and the `second` log."""
    disagreements: list[Disagreement]


def paired_result(
    group: str, first: ArrayLike, second: ArrayLike, passages: Sequence[str] = ()
) -> PairedResult:
    """Compare two models on the items of a group by the method that their values need.

    Right and wrong: McNemar's exact test and Tango's interval. Other values: paired t. Items that
    share a passage: bootstrap over passages and Durkalski's test. Differences that are no shares
    and all the same have no interval; their p-value is 1 if they are zero, else None.

    Values are one per item, (items,); an empty passage is that of an item of its own.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    n, change, found, detectable, method = len(a), b - a, None, None, "no spread"
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    has_spread = bool((change != change[0]).any())
    is_shared = any(name and size > 1 for name, size in Counter(passages).items())
    clusters = [name or f"\0{place}" for place, name in enumerate(passages)]
    if has_spread and is_shared and len(set(clusters)) > 1:
        method, found = "clusters", cluster_difference(a, b, clusters)
        error = (found.difference.high - found.difference.low) / (2 * _LEVEL_Z)
        detectable = (_LEVEL_Z + _POWER_Z) * error
    elif np.isin([a, b], (0, 1)).all():
        method, found = "McNemar", paired_difference(a, b)
        detectable = detectable_difference(n, (gained + lost) / n) if gained + lost else None
    elif has_spread:
        method, found = "paired t", paired_seed_difference(a.tolist(), b.tolist())
        detectable = (_LEVEL_Z + _POWER_Z) * float(np.std(change, ddof=1)) / n**0.5
    limits = (found.difference.low, found.difference.high) if found else (None, None)
    return PairedResult(
        group=group, n=n, first=float(a.mean()), second=float(b.mean()),
        difference=float(b.mean() - a.mean()), low=limits[0], high=limits[1],
        p_value=found.p_value if found else 1.0 if not gained + lost else None,
        method=method, gained=gained, lost=lost, detectable=detectable,
        is_share=bool(min(a.min(), b.min()) >= 0 and max(a.max(), b.max()) <= 1),
    )  # fmt: skip


def with_holm(results: Sequence[PairedResult]) -> list[PairedResult]:
    """Return the results with p-values adjusted for their number."""
    adjusted = iter(holm([each.p_value for each in results if each.p_value is not None]))
    return [
        each if each.p_value is None else replace(each, adjusted=next(adjusted)) for each in results
    ]


def compare_logs(
    first: Log, second: Log, *, num_rows: int = 20, is_anyway: bool = False
) -> ComparedLogs:
    """Pair the items of two logs by their content and compare.

    Samples and duplicates of an item are averaged. Items whose call or verdict failed in one of
    the logs are missing in both.

    Differences are second minus first. To read are `num_rows` disagreements of each task and side,
    the lowest digests first, which is a fixed random sample. `is_anyway` compares in spite of small
    overlap, of other prompts or of two tools.

    Raises:
        InputError: If no common item has both scores, or fewer than half of the items are common.
    """
    if first.kind != second.kind and not is_anyway:
        found = f"{first.path} is a log of {first.kind}, {second.path} of {second.kind}"
        raise InputError(f"{found}; compare logs of one tool, or add --anyway")
    second_rows, metrics = _with_first_names(first, second)
    with duckdb.connect(config={"memory_limit": "1GB", "threads": 2}) as base:
        base.register("first_rows", first.table)
        base.register("second_rows", second_rows)
        base.execute(_SQL)
        counts, about = _checked(base, first, second, is_anyway=is_anyway)
        pairs = base.sql("FROM scored").to_arrow_table()
        shown = _rows(base, f"disagreements({num_rows})")
    one = first.rows({row["one"] for row in shown})
    two = second.rows({row["two"] for row in shown})
    disagreements = [
        Disagreement(first=one[row.pop("one")], second=two[row.pop("two")], **row) for row in shown
    ]
    return ComparedLogs(
        names=_names(first, second), paths=(str(first.path), str(second.path)), kind=first.kind,
        metrics=metrics, overall=_result(ALL, pairs), by_task=_groups(pairs, "task"),
        by_topic=_groups(pairs, "topic"), by_length=_groups(pairs, "length_band"),
        counts=counts, disagreements=disagreements, **about,
    )  # fmt: skip


def _rows(base: "duckdb.DuckDBPyConnection", name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = base.sql(f"FROM {name}").to_arrow_table().to_pylist()
    return rows


def _with_first_names(first: Log, second: Log) -> tuple[pa.Table, dict[str, str]]:
    """Return the second log's rows, and the metric of each task; refuse two metrics of a task.

    If each log has one task, it is the same task, whatever their files are named.
    """
    tasks, others = (log.table.column("task").unique().to_pylist() for log in (first, second))
    table, renamed = second.table, {task: task for task in tasks if task in others}
    if len(tasks) == len(others) == 1 and not renamed:
        renamed = {tasks[0]: others[0]}
        table = table.set_column(0, "task", pa.repeat(tasks[0], table.num_rows))
    for task, other in renamed.items():
        a, b = first.metrics.get(task), second.metrics.get(other)
        if a and b and a != b:
            common = [name for name in first.offered[task] if name in second.offered[other]]
            hint = f"choose one with --metric: {', '.join(common)}" if common else "none is common"
            found = f"the first log has the metric {a}, the second {b}"
            raise InputError(f"task {task}: {found}; {hint}")
    return table, {task: first.metrics.get(task, "") for task in renamed}


def _checked(
    base: "duckdb.DuckDBPyConnection", first: Log, second: Log, *, is_anyway: bool
) -> tuple[dict[str, dict[str, int]], dict[str, Any]]:
    """Return the counts of both logs and of their pairs; refuse what cannot be compared."""
    counts = {row.pop("side"): row for row in _rows(base, "counts")}
    (about,) = _rows(base, "about")
    where, matched = f"{first.path} and {second.path}", about["matched"]
    one, two = counts["first"]["items"], counts["second"]["items"]
    if matched == about["missing"]:
        reason = f"of {matched:,} common items a score is missing" if matched else "no common item"
        sizes = f"{first.kind}: {one:,} items; {second.kind}: {two:,}"
        raise InputError(f"{where}: {reason} ({sizes})")
    if is_anyway:
        return counts, about
    shares = base.sql("SELECT 'task ' || task, * EXCLUDE task FROM shares WHERE matched > 0")
    for name, pairs, items in [(where, matched, max(one, two)), *shares.fetchall()]:
        if pairs < LEAST_OVERLAP * items:
            share = f"{pairs:,} of {items:,} items are common ({pairs / items:.0%})"
            raise InputError(f"{name}: {share}; choose tasks with --task, or add --anyway")
    if about["other_prompts"]:
        raise InputError(
            f"{where}: the prompts of {about['other_prompts']:,} of {matched:,} common items "
            "differ, so the difference is not of the models alone; add --anyway to compare"
        )
    return counts, about


def _names(first: Log, second: Log) -> tuple[str, str]:
    """Return the models' names, else as much of the paths as differs."""
    if first.model != second.model:
        return first.model, second.model
    for count in range(1, 4):
        one, two = (str(Path(*log.path.absolute().parts[-count:])) for log in (first, second))
        if one != two:
            return one, two
    return f"{first.model} (first)", f"{first.model} (second)"


def _groups(pairs: pa.Table, column: str) -> list[PairedResult]:
    """Compare group by group; all items in a group without a name are no grouping."""
    codes = pairs.column(column).combine_chunks().dictionary_encode()
    names, index = codes.dictionary.to_pylist(), codes.indices.to_numpy()
    if names in ([""], [None]):
        return []
    order = np.argsort(index, kind="stable")
    ends = np.searchsorted(index[order], np.arange(1, len(names)))
    parts = sorted(zip(names, np.split(order, ends), strict=True), key=lambda part: str(part[0]))
    results = []
    for name, rows in parts:
        group = pairs.take(pa.array(rows))
        if column == "length_band":
            lengths = group.column("length").to_numpy()
            name = f"{lengths.min():,.0f} to {lengths.max():,.0f}"
        results.append(_result(name or f"no {column}", group))
    return with_holm(results)


def _result(group: str, pairs: pa.Table) -> PairedResult:
    passages = pairs.column("passage")
    is_shared = passages.unique().to_pylist() != [""]
    first, second = (pairs.column(name).to_numpy() for name in ("first", "second"))
    return paired_result(group, first, second, passages.to_pylist() if is_shared else ())


def outcomes(scores: Sequence[Artifact]) -> dict[str, float]:
    """Return the value of each item by id: 0 or 1 for right and wrong; more is better.

    Verdicts give the mean over orders, turns and repetitions: how often `b`, the model that is
    compared with the reference `a`, is preferred (a tie is one half), or its grade.
    """
    found: dict[str, float] = {}
    for artifact in scores:
        for batch in artifact.batches():
            if "winner" in batch.schema.names:
                found |= _preferences(artifact)
                break
            if "value" not in batch.schema.names:
                raise InputError(f"{artifact}: not scores (no column `value`)")
            ids, values = (batch.column(name).to_pylist() for name in ("id", "value"))
            found |= dict(zip(ids, map(float, values), strict=True))
    return found


def compare(first: Sequence[Artifact], second: Sequence[Artifact]) -> tuple[Comparison, int]:
    """Compare two models on their common items; return second minus first, and the number of items.

    Right and wrong are compared exactly (Tango's interval, McNemar's test), other measures by the
    paired t-test over items.
    """
    before, after = outcomes(first), outcomes(second)
    both = sorted(before.keys() & after.keys())
    if len(both) < 2:
        raise InputError(f"the two models have {len(both)} items in common; two are needed")
    a, b = (np.array([side[name] for name in both]) for side in (before, after))
    if np.isin(np.stack([a, b]), (0, 1)).all():
        return paired_difference(a, b), len(both)
    return paired_seed_difference(a.tolist(), b.tolist()), len(both)


def _preferences(verdicts: Artifact) -> dict[str, float]:
    """Return the mean preference, or grade, of each question; missing verdicts are passed over."""
    values: dict[str, list[float]] = defaultdict(list)
    pairs = set()
    for row in verdicts.rows(Verdict):
        pairs.add((row.a, row.b))
        value = row.score if row.winner is None else {"a": 0.0, "tie": 0.5, "b": 1.0}[row.winner]
        if value is not None:
            values[row.item_id].append(value)
    if len(pairs) > 1:
        raise InputError(f"{verdicts}: verdicts on {len(pairs)} pairs of models; one is needed")
    return {name: sum(some) / len(some) for name, some in values.items()}
