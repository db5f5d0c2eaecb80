"""Gold answers as recorded answers: what a student learns from without explanations."""

from collections.abc import Iterator

from spyhop.models.replay import Recorded
from spyhop.schema import NoConfig, Query
from spyhop.stage import Context, stage, sum_estimates
from spyhop.store import Artifact, row_id


@stage(version=1, writes=Recorded, plan=lambda config, queries: sum_estimates([queries]))
def record_targets(ctx: Context, config: NoConfig, *, queries: Artifact) -> Iterator[Recorded]:
    """Yield the gold answer of every query that has one; the others are dropped as `no_target`."""
    for row in queries.rows(Query):
        if row.target:
            yield Recorded(id=row_id(row.id), query=row.query, response=row.target)
        else:
            ctx.drop(row, "no_target")
