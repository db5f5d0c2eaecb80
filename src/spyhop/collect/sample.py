"""Subsets of prompts that stay nested when their size changes."""

import hashlib
from collections.abc import Iterator

import numpy as np
from pydantic import Field

from spyhop.schema import Config, Prompt
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact


class SubsetConfig(Config):
    """How many prompts are taken."""

    num_rows: int = Field(gt=0)
    """Rows to keep; all of them where there are fewer."""
    seed: int = 0


@stage(
    version=1,
    writes=Prompt,
    plan=lambda config, prompts: Estimate(
        rows=min(config.num_rows, prompts.rows), row_tokens=prompts.row_tokens
    ),
)
def subset(ctx: Context, config: SubsetConfig, *, prompts: Artifact) -> Iterator[Prompt]:
    """Keep a uniform random subset, in the order of the input.

    A row's place in the draw is a hash of (seed, id): a smaller subset is part of a larger one,
    and the rows' order does not matter. Two passes; eight bytes a row in memory.
    """
    places = np.array(
        [_place(config.seed, row.id) for row in prompts.rows(Prompt)], dtype=np.uint64
    )
    num_rows = min(config.num_rows, len(places))
    last = np.partition(places, num_rows - 1)[num_rows - 1] if num_rows else np.uint64(0)
    rows = ctx.track(prompts.rows(Prompt), "sampling", total=len(places))
    for row, place in zip(rows, places, strict=True):
        if num_rows and place <= last:
            yield row


def _place(seed: int, row: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{row}".encode()).digest()[:8], "big")
