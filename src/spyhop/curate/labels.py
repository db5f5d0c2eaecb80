"""People's words on pairs, for the gate: JSONL, CSV or Parquet, beside the pair's id or texts."""

from collections.abc import Iterator

from pydantic import Field

from spyhop.schema import Config, Label
from spyhop.stage import Context, pooled, stage
from spyhop.store import Artifact


class LabelsConfig(Config):
    """How labels are read."""

    pattern: str = "*"
    good_score: float = Field(4.0, ge=1, le=5)
    """From which `score` on a pair is good, where a row has no `good`."""


@stage(version=1, writes=Label, plan=lambda config, folder: pooled([folder]))
def labels(ctx: Context, config: LabelsConfig, *, folder: Artifact) -> Iterator[Label]:
    """Read labels: rows of `good` (true or false) or `score` (1 to 5), and which pair is meant.

    That is told by `id`, or by `instruction` and `response`.

    Raises:
        InputError: Naming the file, the line and what is wrong with it.
    """
    raise NotImplementedError
