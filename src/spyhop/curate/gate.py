"""Whether ratings can be trusted (G9): parsed, spread, repeatable, and better than no ratings.

The public replication of Humpback trained on ratings of which 45 to 67 % could not be read, and its
model got worse; such ratings are refused here.
"""

from collections.abc import Iterator

from pydantic import Field

from spyhop.schema import Config, Finding
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact


class GateConfig(Config):
    """The limits."""

    min_parse_rate: float = Field(0.95, ge=0, le=1)
    """Share of the rows that must have a score."""
    max_one_score: float = Field(0.9, ge=0, le=1)
    """Share of the scored rows that may have the same (rounded) score."""
    min_kappa: float = Field(0.4, ge=-1, le=1)
    """Agreement of the judge with itself: quadratic kappa of first and second scores."""
    min_repeated: int = Field(200, ge=0)
    """Rows that it must rest on; 0 asks for no second ratings."""
    good_score: float = Field(4.0, ge=1, le=5)
    """From which score on a pair counts as chosen, where labels are given."""


@stage(version=1, writes=Finding, plan=lambda config, rated, labels=None: Estimate(rows=6))
def gate(
    ctx: Context, config: GateConfig, *, rated: Artifact, labels: Artifact | None = None
) -> Iterator[Finding]:
    """Yield the findings: `parse_rate`, `one_score`, `repeatability`, and those against labels.

    With labels (`Label` rows) these are `precision` and `recall` of the chosen pairs.

    Nothing is refused here: `keep` refuses, so that a failed gate can be read. Ratings by
    likelihood do not vary, so `repeatability` passes without a value.

    Counts: `score/1` to `score/5`, `missing/<why>`.
    """
    raise NotImplementedError
