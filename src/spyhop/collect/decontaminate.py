"""Drop queries that contain an evaluation item before any money is spent on them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from spyhop.schema import Item, Query
from spyhop.stage import Context, Estimate, stage, sum_estimates
from spyhop.store import Artifact
from spyhop.text.contamination import ContaminationConfig, ItemIndex, without_items

ROWS_PER_S = 10_000
"""Planning figure: rows searched on one core."""


def plan_decontaminate(
    config: ContaminationConfig, queries: Estimate, items: Mapping[str, Estimate]
) -> Estimate:
    """All rows, as if none were contaminated."""
    return replace(sum_estimates([queries]), seconds=queries.rows / ROWS_PER_S)


@stage(version=2, writes=Query, plan=plan_decontaminate)
def decontaminate(
    ctx: Context, config: ContaminationConfig, *, queries: Artifact, items: Mapping[str, Artifact]
) -> Iterator[Query]:
    """Yield the queries that contain no evaluation item; `without_items` lists drops and counts."""
    index = ItemIndex((item for each in items.values() for item in each.rows(Item)), config)
    rows = ctx.track(queries.rows(Query), "looking for items", total=queries.num_rows)
    yield from without_items(ctx, index, rows, lambda row: row.query)
