"""Train and held-out splits of pairs; pairs as queries, and queries as pairs."""

from collections.abc import Callable, Iterator
from heapq import nsmallest
from typing import Literal

from pydantic import Field

from spyhop.collect import pair_id
from spyhop.schema import Config, InputError, Item, NoConfig, Pair, Query
from spyhop.stage import Context, Estimate, Estimates, stage, sum_estimates
from spyhop.store import Artifacts, number_of, rows_of
from spyhop.text.contamination import ContaminationConfig, ItemIndex, without_items


class SplitConfig(Config):
    """Which split of the pairs to take."""

    held_out_every_nth: int = Field(0, ge=0)
    """Hold out one in n instructions, by their hash; 0 holds out nothing."""
    split: Literal["train", "held_out"] = "train"
    num_rows: int | None = Field(None, gt=0)
    """Sample exactly this many pairs of the split (lowest hash first); unset takes all."""
    seed: int = 0
    """Seed of the sample; the held-out split does not depend on it."""
    contamination: ContaminationConfig = ContaminationConfig()
    """Pairs that contain an evaluation item are in neither split, where items are given."""


class QueriesConfig(Config):
    """Names of the queries' collection and task."""

    collection: str = "web"
    task: str = "backtranslated"


def plan_split(config: SplitConfig, pairs: Estimates, items: Estimates | None = None) -> Estimate:
    """The split's share of the rows."""
    rows = sum_estimates(pairs.values())
    share = rows.rows // config.held_out_every_nth if config.held_out_every_nth else 0
    num = share if config.split == "held_out" else rows.rows - share
    return Estimate(rows=min(num, config.num_rows or num), row_tokens=rows.row_tokens)


@stage(version=1, writes=Pair, plan=plan_split)
def split(
    ctx: Context, config: SplitConfig, *, pairs: Artifacts, items: Artifacts | None = None
) -> Iterator[Pair]:
    """Yield one of two splits that have no instruction in common, in order.

    The split of a pair depends on its instruction alone. Pairs that share an n-gram with an
    evaluation item are dropped (`contaminated/<suite>`). With `num_rows` some 100 bytes a row in
    memory.
    """
    index = ItemIndex(rows_of(items, Item), config.contamination)
    drawn = _drawn(config, pairs, index)
    for row in without_items(ctx, index, _split(config, pairs), *_SEARCHED):
        if drawn is None or row.id in drawn:
            ctx.count(f"collection/{row.collection}")
            yield row


@stage(version=1, writes=Query, plan=lambda config, pairs: sum_estimates(pairs.values()))
def pairs_to_queries(ctx: Context, config: QueriesConfig, *, pairs: Artifacts) -> Iterator[Query]:
    """Yield the instructions as queries without gold answers, under the ids of their pairs."""
    for row in rows_of(pairs, Pair):
        yield Query(
            id=row.id, collection=config.collection, task=config.task, query=row.instruction,
            target="", origin=row.origin, licence=row.licence,
        )  # fmt: skip


@stage(version=1, writes=Pair, plan=lambda config, queries: sum_estimates(queries.values()))
def queries_to_pairs(ctx: Context, config: NoConfig, *, queries: Artifacts) -> Iterator[Pair]:
    """Yield queries with a gold answer as pairs, such as raw FLAN; drop the others."""
    seen: set[str] = set()
    for artifact in queries.values():
        for row in ctx.track(artifact.rows(Query), "writing", total=artifact.num_rows):
            name = pair_id(row.query, row.target)
            if not row.target.strip() or name in seen:
                ctx.drop(row, "repeated" if name in seen else "no_target")
                continue
            seen.add(name)
            yield Pair(
                id=name, instruction=row.query, response=row.target, tag="seed",
                collection=row.collection, origin=row.origin, licence=row.licence,
            )  # fmt: skip


_SEARCHED: tuple[Callable[[Pair], str], Callable[[Pair], str]] = (
    lambda row: f"{row.instruction}\n{row.response}",
    lambda row: row.instruction,
)
"""Texts of a pair that may contain an item, and that may be one."""


def _drawn(config: SplitConfig, pairs: Artifacts, index: ItemIndex) -> set[str] | None:
    if config.num_rows is None:
        return None
    checked = index.check(_split(config, pairs), *_SEARCHED)
    clean = (row.id for row, match in checked if match is None)
    places = {name: number_of(f"{config.seed}/{name}") for name in clean}
    if (num := config.num_rows) > len(places):
        raise InputError(f"the split has {len(places)} pairs, fewer than num_rows = {num}")
    return set(nsmallest(config.num_rows, places, key=places.__getitem__))


def _split(config: SplitConfig, pairs: Artifacts) -> Iterator[Pair]:
    every = config.held_out_every_nth
    for row in rows_of(pairs, Pair):
        is_held_out = bool(every) and number_of(f"held out/{row.instruction}") % every == 0
        if is_held_out == (config.split == "held_out"):
            yield row
