"""Queries without copies and without evaluation items, before any money is spent on them.

Exact copies have the same text and gold answer, up to Unicode's normal form and white space. Near
copies are found within a task, and with the same gold answer only: one article under two tasks asks
for two things. What all queries of a task begin and end with (a definition, say) is ignored.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from os.path import commonprefix
from typing import Literal

import numpy as np
from pydantic_core import to_json

from spyhop.schema import Config, Item, Query
from spyhop.stage import Context, Estimate, Estimates, stage, sum_estimates
from spyhop.store import Artifact, Artifacts, number_of, rows_of
from spyhop.text.contamination import ContaminationConfig, ItemIndex, without_items
from spyhop.text.extract import normalise
from spyhop.text.gold import gold_answer
from spyhop.text.overlap import Duplicates, NearConfig, fingerprint, words

FRAMED_ROWS = 10
"""A task of fewer rows has no frame: what a few queries share may be their matter."""
EXACT_ROWS_PER_S, NEAR_ROWS_PER_S, SEARCHED_ROWS_PER_S = 30_000, 5_000, 10_000
"""Planning figures on one core: fingerprints, signatures, search for items."""


_Stays = dict[int, tuple[int, float]]
"""Position of a copy to that of the row that stays, and their similarity."""


class DistinctConfig(Config):
    """Removal of exact and near copies."""

    exact_copies: Literal["ignore", "drop"] = "drop"
    """A copy has the same text and the same gold answer; white space does not count."""
    near_copies: Literal["ignore", "count", "drop"] = "count"
    """Of 50 near copies that were read, half asked something else."""
    near: NearConfig = NearConfig()


def plan_distinct(config: DistinctConfig, queries: Estimates) -> Estimate:
    """All rows, as if none were a copy."""
    found = sum_estimates(queries.values())
    rate = EXACT_ROWS_PER_S if config.near_copies == "ignore" else NEAR_ROWS_PER_S
    return replace(found, seconds=found.rows / rate)


@stage(version=3, writes=Query, plan=plan_distinct)
def distinct(ctx: Context, config: DistinctConfig, *, queries: Artifacts) -> Iterator[Query]:
    """Yield the queries of all inputs, in order, without copies of earlier ones.

    Copies are dropped as `exact` or `near`, with the id of the query that stays and the share of
    common runs of words; queries without words as `empty`. Counts: `exact/<collection>` and
    `near/<collection>`, the latter also where near copies stay.
    """
    exact: _Stays = {}
    if config.exact_copies == "drop":
        prints = np.array([number_of(_text(row)) for row in rows_of(queries, Query)], np.uint64)
        _, first, same = np.unique(prints, return_index=True, return_inverse=True)
        kept = first[same]
        copies = np.flatnonzero(kept != np.arange(len(kept)))
        exact = {int(place): (int(kept[place]), 1.0) for place in copies}
    near = _near(ctx, config.near, queries, exact) if config.near_copies != "ignore" else {}
    names = {place: "" for place, _ in (*exact.values(), *near.values())}
    for place, row in enumerate(rows_of(queries, Query)):
        if place in names:
            names[place] = row.id
        if not row.query.strip():
            ctx.drop(row, "empty")
            continue
        stay, reason = (exact[place], "exact") if place in exact else (near.get(place), "near")
        if stay is not None:
            ctx.count(f"{reason}/{row.collection}")
        if stay is None or (reason == "near" and config.near_copies == "count"):
            yield row
            continue
        dropped = row.model_dump(include={"id", "collection", "task"})
        dropped |= {"kept_id": names[stay[0]], "similarity": stay[1], "query": row.query}
        ctx.drop(to_json(dropped).decode(), reason)


def _text(row: Query) -> str:
    """Return query and gold answer in NFC, runs of white space as one space."""
    gold = normalise(gold_answer(row.target), keep_brackets=True)
    query = " ".join(unicodedata.normalize("NFC", row.query).split())
    return f"{query}\x1f{gold}"


def _near(ctx: Context, config: NearConfig, queries: Artifacts, exact: _Stays) -> _Stays:
    """Return the near copies among the rows that are no exact ones."""
    frames: dict[tuple[str, str], tuple[int, str, str]] = {}
    """Of each task its rows, and what all of its queries begin and (backwards) end with."""
    for row in rows_of(queries, Query):
        name, end = (row.collection, row.task), row.query[::-1]
        num, first, last = frames.get(name, (0, row.query, end))
        first = commonprefix((first, row.query))  # noqa: RUF071 (texts)
        frames[name] = num + 1, first, commonprefix((last, end))  # noqa: RUF071 (texts)
    cuts = {
        name: (f"task{at}to", _last_space(first), _last_space(last))
        if num >= FRAMED_ROWS
        else (f"task{at}to", 0, 0)
        for at, (name, (num, first, last)) in enumerate(frames.items())
    }
    places: list[int] = []

    def compared() -> Iterator[str]:
        """Yield the own words of each row, marked so that tasks and gold answers share no word."""
        total = sum(each.num_rows for each in queries.values())
        rows = ctx.track(rows_of(queries, Query), "comparing", total=total)
        for place, row in enumerate(rows):
            if place not in exact:
                places.append(place)
                mark, start, end = cuts[row.collection, row.task]
                is_framed = start + end < len(row.query)
                query = row.query[start : len(row.query) - end] if is_framed else row.query
                mark += f"{fingerprint(row.target):x}of"
                yield " ".join(f"{mark}{word}" for word in words(query))

    duplicates = Duplicates(ctx.state / "near", config, threads=ctx.runtime.threads)
    ctx.resources.callback(duplicates.close)
    duplicates.add(compared())
    return {places[each.row]: (places[each.kept], each.similarity) for each in duplicates.find()}


def _last_space(text: str) -> int:
    """Return where the last whole word of a beginning ends."""
    return max((place + 1 for place, sign in enumerate(text) if sign.isspace()), default=0)


@stage(
    version=2,
    writes=Query,
    plan=lambda config, queries, items: replace(
        sum_estimates([queries]), seconds=queries.rows / SEARCHED_ROWS_PER_S
    ),
)
def decontaminate(
    ctx: Context, config: ContaminationConfig, *, queries: Artifact, items: Artifacts
) -> Iterator[Query]:
    """Yield the queries that contain no evaluation item; `without_items` lists drops and counts."""
    index = ItemIndex(rows_of(items, Item), config)
    rows = ctx.track(queries.rows(Query), "looking for items", total=queries.num_rows)
    yield from without_items(ctx, index, rows, lambda row: row.query)
