"""So many segments, drawn by the hash of their ids: a smaller draw is part of a larger one."""

import hashlib
from collections.abc import Iterator

import numpy as np
from pydantic import Field

from spyhop.schema import Config, Segment
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact


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
    """Keep a uniform random draw, in the order of the input. Eight bytes a row in memory."""
    places = np.array(
        [_place(config.seed, row.id) for row in segments.rows(Segment)], dtype=np.uint64
    )
    num_rows = min(config.num_rows, len(places))
    last = np.partition(places, num_rows - 1)[num_rows - 1] if num_rows else np.uint64(0)
    rows = ctx.track(segments.rows(Segment), "drawing", total=len(places))
    for row, place in zip(rows, places, strict=True):
        if num_rows and place <= last:
            yield row


def _place(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big")
