"""So many segments, drawn by the hash of their ids: a smaller draw is part of a larger one."""

from collections.abc import Iterator
from itertools import compress

from pydantic import Field

from spyhop.schema import Config, Segment
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact, nested_draw


class SampleConfig(Config):
    """How many are drawn."""

    num_rows: int = Field(gt=0)
    """Segments to keep; all of them where there are fewer."""
    seed: int = 0


@stage(
    version=1,
    writes=Segment,
    plan=lambda config, segments: Estimate(
        rows=min(config.num_rows, segments.rows), row_tokens=segments.row_tokens
    ),
)
def sample(ctx: Context, config: SampleConfig, *, segments: Artifact) -> Iterator[Segment]:
    """Keep a uniform random draw, in the order of the input."""
    is_drawn = nested_draw(segments, config.num_rows, config.seed)
    rows = ctx.track(segments.rows(Segment), "drawing", total=len(is_drawn))
    yield from compress(rows, is_drawn)
