"""Queries that hold an evaluation item go before a cent is spent on them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

from spyhop.schema import Config, Item, Query, Row
from spyhop.stage import Context, Estimate, stage, sum_estimates
from spyhop.store import Artifact
from spyhop.text.overlap import BATCH_TEXTS, ContaminationConfig, ItemIndex

ROWS_PER_S = 10_000
"""Planning figure: rows looked through on one core."""


class Contaminated(Row):
    """A dropped query and the item that it shares words with; `id` is the query's."""

    collection: str
    task: str
    query: str
    item_id: str
    suite: str
    item_task: str
    words: str
    """The run of words that both hold."""


class DecontaminateConfig(Config):
    """When a query is said to hold an item."""

    match: ContaminationConfig = ContaminationConfig()


def plan_decontaminate(
    config: DecontaminateConfig, queries: Estimate, items: Mapping[str, Estimate]
) -> Estimate:
    """All rows, as if none were contaminated."""
    return replace(sum_estimates([queries]), seconds=queries.rows / ROWS_PER_S)


@stage(version=1, writes=Query, plan=plan_decontaminate)
def decontaminate(
    ctx: Context, config: DecontaminateConfig, *, queries: Artifact, items: Mapping[str, Artifact]
) -> Iterator[Query]:
    """Yield the queries that share no long run of words with any item.

    The others are dropped as `contaminated/<suite>`, each with the item and the words. Counts:
    `items`, `items_found` (different items among them) and `items_unchecked`, those too short to
    be found.
    """
    known = {
        item.id: (item.suite, item.task) for each in items.values() for item in each.rows(Item)
    }
    index = ItemIndex(
        ((item.id, item.question) for each in items.values() for item in each.rows(Item)),
        config.match,
    )
    ctx.count("items", len(known))
    ctx.count("items_unchecked", len(index.unchecked))
    found_items: set[str] = set()
    rows = ctx.track(queries.rows(Query), "looking for items", total=queries.num_rows)
    while batch := list(islice(rows, BATCH_TEXTS)):
        for row, found in zip(batch, index.find([row.query for row in batch]), strict=True):
            if found is None:
                yield row
                continue
            suite, item_task = known[found.item]
            found_items.add(found.item)
            ctx.count(f"contaminated/{row.collection}")
            ctx.drop(
                Contaminated(
                    id=row.id,
                    collection=row.collection,
                    task=row.task,
                    query=row.query,
                    item_id=found.item,
                    suite=suite,
                    item_task=item_task,
                    words=found.words,
                ),
                f"contaminated/{suite}",
            )
    ctx.count("items_found", len(found_items))
