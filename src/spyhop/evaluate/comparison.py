"""Two models on the same items, pair by pair: second minus first, with the rows that differ."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from spyhop.evaluate.logs import Log, LogRow
from spyhop.schema import InputError
from spyhop.statistics import (
    cluster_difference,
    detectable_difference,
    holm,
    paired_difference,
    paired_seed_difference,
)

ALL = "all items"
LEAST_OVERLAP = 0.5
"""Share of the larger log's items that both need."""
NORMAL = (1.959964, 0.841621)
"""Quantiles of the test's level (0.05, two-sided) and of its power (0.8)."""
MEMORY = "1GB"


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
    """Smallest difference that so many items find with 80 % power; None if none."""
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
    """What the lengths are of: `response` or `question`."""
    counts: dict[str, dict[str, int]]
    """By log: rows, items, unmatched, duplicates, missing; `pairs`: matched, other prompts."""
    disagreements: list[Disagreement]


def paired_result(
    group: str, first: ArrayLike, second: ArrayLike, passages: Sequence[str] | None = None
) -> PairedResult:
    """Compare two models on the items of a group by the method that their values need.

    Right and wrong: McNemar's exact test and Tango's interval. Other values: paired t. Items that
    share a passage: bootstrap over passages and Durkalski's test. Differences that are no shares
    and all the same have no interval; their p-value is 1 if they are zero, else None.

    Args:
        group: Its name.
        first: One value per item, (items,).
        second: The same items in the same order.
        passages: Name of each item's passage; empty for an item of its own.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    n, change, found = len(a), b - a, None
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    is_binary = bool(np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all())
    has_spread = bool((change != change[0]).any())
    clusters = _clusters(passages) if has_spread else None
    method, detectable = "no spread", None
    if clusters is not None:
        method, found = "clusters", cluster_difference(a, b, clusters)
        error = (found.difference.high - found.difference.low) / (2 * NORMAL[0])
        detectable = sum(NORMAL) * error
    elif is_binary:
        method, found = "McNemar", paired_difference(a, b)
        detectable = detectable_difference(n, (gained + lost) / n) if gained + lost else None
    elif has_spread:
        method, found = "paired t", paired_seed_difference(a.tolist(), b.tolist())
        detectable = sum(NORMAL) * float(np.std(change, ddof=1)) / n**0.5
    return PairedResult(
        group=group,
        n=n,
        first=float(a.mean()),
        second=float(b.mean()),
        difference=float(b.mean() - a.mean()),
        low=found.difference.low if found else None,
        high=found.difference.high if found else None,
        p_value=found.p_value if found else 1.0 if not gained + lost else None,
        method=method,
        gained=gained,
        lost=lost,
        detectable=detectable,
        is_share=bool(min(a.min(), b.min()) >= 0 and max(a.max(), b.max()) <= 1),
    )


def with_holm(results: list[PairedResult]) -> list[PairedResult]:
    """Return the results with p-values adjusted for their number."""
    tested = [result.p_value for result in results if result.p_value is not None]
    adjusted = iter(holm(tested))
    return [
        result if result.p_value is None else replace(result, adjusted=next(adjusted))
        for result in results
    ]


def compare_logs(
    first: Log, second: Log, *, num_rows: int = 20, is_anyway: bool = False
) -> ComparedLogs:
    """Pair the items of two logs by their content and compare.

    Samples and duplicates of an item are averaged. Items whose call or verdict failed in one of
    the logs are missing in both.

    Args:
        first: Log of the first model.
        second: Log of the second; differences are second minus first.
        num_rows: Disagreements of each task and side to read, the lowest digests first, which is
            a fixed random sample.
        is_anyway: Whether to compare in spite of small overlap or of other prompts.

    Raises:
        InputError: If there is no common item; without `is_anyway` also if fewer than half of the
            items are common, or prompts differ.
    """
    if first.kind != second.kind and not is_anyway:
        raise InputError(
            f"{first.path} is a log of {first.kind}, {second.path} of {second.kind}; compare logs "
            "of one tool, or add --anyway"
        )
    metrics = _common_metrics(first, second)
    base = duckdb.connect(config={"memory_limit": MEMORY, "threads": 2})
    try:
        for name, log in (("first", first), ("second", second)):
            base.register(f"{name}_rows", _renamed(log, metrics))
            base.execute(_ITEMS.format(name=name))
        base.execute(_PAIRS)
        counts = {name: _counts(base, name) for name in ("first", "second")}
        counts["pairs"] = _row(base, _PAIR_COUNTS)
        _check(base, (first, second), counts, is_anyway=is_anyway)
        column = "response" if _row(base, _HAS_RESPONSES)["found"] else "question"
        pairs = base.sql(_VALUES.format(column=column)).to_arrow_table()
        shown = base.execute(_DISAGREEMENTS, [num_rows]).fetchall()
    finally:
        base.close()
    return ComparedLogs(
        names=_names(first, second),
        paths=(str(first.path), str(second.path)),
        kind=first.kind,
        metrics=metrics,
        overall=_result(ALL, pairs),
        by_task=with_holm(_groups(pairs, "task")),
        by_topic=with_holm(_groups(pairs, "topic")),
        by_length=with_holm(_groups(pairs, "band")),
        length_of=column,
        counts=counts,
        disagreements=_disagreements(first, second, shown),
    )


_ITEMS = """CREATE TABLE {name} AS
    SELECT task::VARCHAR AS task, item, avg(value) AS value, min(prompt) AS prompt,
        any_value(topic)::VARCHAR AS topic, any_value(passage)::VARCHAR AS passage,
        avg(question_chars) AS question,
        avg(response_chars) AS response, min(place) AS place, count(*) AS num_rows,
        count(*) - count(DISTINCT sample) AS duplicates, count(*) - count(value) AS missing
    FROM {name}_rows GROUP BY task, item"""
_PAIRS = """CREATE TABLE pairs AS
    SELECT a.task, a.item, a.value AS a, b.value AS b, a.place AS a_place, b.place AS b_place,
        a.prompt > 0 AND b.prompt > 0 AND a.prompt <> b.prompt AS is_other,
        coalesce(nullif(a.topic, ''), b.topic) AS topic, a.passage AS passage,
        (a.question + b.question) / 2 AS question, (a.response + b.response) / 2 AS response
    FROM first a JOIN second b USING (task, item)"""
_COUNTS = """SELECT coalesce(sum(num_rows), 0)::BIGINT AS rows, count(*) AS items,
        count(*) FILTER ((task, item) NOT IN (SELECT (task, item) FROM pairs)) AS unmatched,
        coalesce(sum(duplicates), 0)::BIGINT AS duplicates,
        coalesce(sum(missing), 0)::BIGINT AS missing
    FROM {name}"""
_PAIR_COUNTS = """SELECT count(*) AS matched, count(*) FILTER (is_other) AS other_prompts,
        count(*) FILTER (a IS NULL OR b IS NULL) AS missing FROM pairs"""
_HAS_RESPONSES = "SELECT coalesce(max(response), 0) > 0 AS found FROM pairs"
_VALUES = """WITH scored AS (SELECT *, {column} AS length FROM pairs
        WHERE a IS NOT NULL AND b IS NOT NULL),
    edges AS (SELECT quantile_disc(length, [0.25, 0.5, 0.75]) AS edge FROM scored)
    SELECT task, topic, passage, a, b, length, (length > edge[1])::INT + (length > edge[2])::INT
        + (length > edge[3])::INT AS band
    FROM scored, edges"""
_DISAGREEMENTS = """SELECT task, a, b, a_place, b_place FROM pairs WHERE a <> b
    QUALIFY row_number() OVER (PARTITION BY task, a > b ORDER BY item) <= ?
    ORDER BY task, a > b, item"""
_OVERLAPS = """SELECT task, count(*) FILTER (is_pair) AS matched,
        greatest(count(*) FILTER (side = 1), count(*) FILTER (side = 2)) AS most
    FROM (SELECT 1 AS side, task, false AS is_pair FROM first
        UNION ALL SELECT 2, task, false FROM second
        UNION ALL SELECT 0, task, true FROM pairs)
    GROUP BY task HAVING matched < ? * most AND matched > 0 ORDER BY task"""


def _common_metrics(first: Log, second: Log) -> dict[str, str]:
    """Return the metric of each task; refuse logs whose values are of different ones."""
    metrics = dict(first.metrics)
    if _is_one_task(first, second):
        pairs = [(next(iter(first.metrics), ""), next(iter(second.metrics), ""))]
    else:
        pairs = [(task, task) for task in first.metrics if task in second.metrics]
    for one, two in pairs:
        a, b = first.metrics.get(one), second.metrics.get(two)
        if a and b and a != b:
            common = [name for name in first.offered[one] if name in second.offered[two]]
            hint = f"choose one with --metric: {', '.join(common)}" if common else "none is common"
            raise InputError(
                f"task {one}: the first log has the metric {a}, the second {b}; {hint}"
            )
    return metrics


def _is_one_task(first: Log, second: Log) -> bool:
    """Whether each log has one task: then files may be named as they like."""
    return len(_tasks(first)) == len(_tasks(second)) == 1


def _tasks(log: Log) -> list[str]:
    return sorted(log.table.column("task").unique().to_pylist())


def _renamed(log: Log, metrics: dict[str, str]) -> pa.Table:
    """Return the rows; those of a single task are named as in the first log."""
    tasks = _tasks(log)
    if len(tasks) == len(metrics) == 1 and tasks != list(metrics):
        return log.table.set_column(0, "task", pa.repeat(next(iter(metrics)), log.table.num_rows))
    return log.table


def _row(base: duckdb.DuckDBPyConnection, query: str) -> dict[str, Any]:
    found: dict[str, Any] = base.sql(query).to_arrow_table().to_pylist()[0]
    return found


def _counts(base: duckdb.DuckDBPyConnection, name: str) -> dict[str, int]:
    return _row(base, _COUNTS.format(name=name))


def _check(
    base: duckdb.DuckDBPyConnection,
    logs: tuple[Log, Log],
    counts: dict[str, dict[str, int]],
    *,
    is_anyway: bool,
) -> None:
    """Refuse what a comparison cannot be made from, or only if asked for."""
    matched, most = counts["pairs"]["matched"], max(counts[n]["items"] for n in ("first", "second"))
    where = f"{logs[0].path} and {logs[1].path}"
    if not matched:
        raise InputError(
            f"{where} have no item in common ({counts['first']['items']:,} and "
            f"{counts['second']['items']:,} items; tasks {', '.join(_tasks(logs[0])[:3])} and "
            f"{', '.join(_tasks(logs[1])[:3])})"
        )
    if matched == counts["pairs"]["missing"]:
        raise InputError(f"{where}: of all {matched:,} common items a score is missing")
    if is_anyway:
        return
    if matched < LEAST_OVERLAP * most:
        raise InputError(
            f"{where} have {matched:,} of {most:,} items in common ({matched / most:.0%}); choose "
            "tasks with --task, or add --anyway"
        )
    few = base.execute(_OVERLAPS, [LEAST_OVERLAP]).fetchall()
    if few:
        task, pairs, items = few[0]
        raise InputError(f"task {task}: {pairs:,} of {items:,} items in common; add --anyway")
    if others := counts["pairs"]["other_prompts"]:
        raise InputError(
            f"{where}: the prompts of {others:,} of {matched:,} common items differ, so the "
            "difference is not of the models alone; add --anyway to compare"
        )


def _names(first: Log, second: Log) -> tuple[str, str]:
    """Return short names of the two models that differ."""
    if first.model != second.model:
        return first.model, second.model
    paths = (first.path.absolute(), second.path.absolute())
    for count in range(1, 4):
        one, two = (str(Path(*path.parts[-count:])) for path in paths)
        if one != two:
            return one, two
    return f"{first.model} (first)", f"{first.model} (second)"


def _groups(pairs: pa.Table, column: str) -> list[PairedResult]:
    """Compare group by group; a single group without a name is no grouping."""
    codes = pairs.column(column).combine_chunks().dictionary_encode()
    names, index = codes.dictionary.to_pylist(), codes.indices.to_numpy()
    if names in ([""], [None]):
        return []
    order = np.argsort(index, kind="stable")
    ends = np.searchsorted(index[order], np.arange(1, len(names) + 1))
    parts = zip(names, np.split(order, ends[:-1]), strict=True)
    found = [(name, pairs.take(pa.array(rows))) for name, rows in parts]
    if column == "band":
        found = [(_band(part), part) for _, part in sorted(found, key=lambda each: each[0])]
    else:
        found.sort(key=lambda each: str(each[0]))
    return [_result(str(name) or "no topic", part) for name, part in found]


def _band(part: pa.Table) -> str:
    lengths = part.column("length").to_numpy()
    return f"{lengths.min():,.0f} to {lengths.max():,.0f}"


def _result(group: str, pairs: pa.Table) -> PairedResult:
    a, b = (pairs.column(name).to_numpy() for name in ("a", "b"))
    passages = pairs.column("passage").combine_chunks().dictionary_encode()
    is_shared = len(passages.dictionary) > 1 or passages.dictionary.to_pylist() != [""]
    return paired_result(group, a, b, passages.to_pylist() if is_shared else None)


def _clusters(passages: Sequence[str] | None) -> list[int] | None:
    """Return a cluster for each item, or None where no two items share a passage."""
    if passages is None:
        return None
    names, index, sizes = np.unique(
        np.asarray(passages, dtype=str), return_inverse=True, return_counts=True
    )
    is_shared = (sizes > 1) & (names != "")
    if not is_shared.any():
        return None
    clusters = np.where(names[index] == "", -1 - np.arange(len(index)), index)
    return clusters.tolist() if len(np.unique(clusters)) > 1 else None


def _disagreements(first: Log, second: Log, shown: list[tuple[Any, ...]]) -> list[Disagreement]:
    one, two = first.rows({row[3] for row in shown}), second.rows({row[4] for row in shown})
    return [
        Disagreement(task=task, first_value=a, second_value=b, first=one[x], second=two[y])
        for task, a, b, x, y in shown
    ]
