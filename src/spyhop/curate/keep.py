"""Which pairs are trained on: those of a score, or a quota of them, behind a passed gate.

Source: Humpback (arXiv:2308.06259), sections 2.2 and 3.3: A4 are scores of 4 and more, A5 of 4.5.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from spyhop.schema import Config, Pair
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact

A4, A5 = 4.0, 4.5


class KeepConfig(Config):
    """What is kept."""

    min_score: float | None = Field(None, ge=1, le=5)
    """Pairs of this score and more; a missing score is never kept then. `A4`: 4, `A5`: 4.5."""
    num_rows: int | None = Field(None, gt=0)
    """Exactly so many pairs; None keeps all that pass."""
    within: int | None = Field(None, gt=0)
    """Only so many candidates, drawn by hash, are looked at; None looks at all."""
    take: Literal["best", "random"] = "best"
    """Which of more than `num_rows`: the highest scores, or drawn by hash (without `min_score`
    that is no curation, and needs neither ratings nor a gate)."""
    gate: Literal["refuse", "report"] = "refuse"
    """What becomes of ratings that did not pass the gate: nothing is kept and the run ends, or
    they are used and the findings counted."""
    seed: int = 0

    @model_validator(mode="after")
    def _says_something(self) -> "KeepConfig":
        if self.num_rows and self.within and self.num_rows > self.within:
            raise ValueError("num_rows is above within")
        return self

    @property
    def uses_scores(self) -> bool:
        """Whether it matters how pairs are rated."""
        return self.min_score is not None or (self.num_rows is not None and self.take == "best")


def plan_keep(config: KeepConfig, rated: Estimate, gate: Estimate | None = None) -> Estimate:
    """As many as the quota says, else two fifths (A4 kept 39 % in the paper)."""
    return Estimate(rows=config.num_rows or rated.rows * 2 // 5, row_tokens=rated.row_tokens)


@stage(version=1, writes=Pair, plan=plan_keep)
def keep(
    ctx: Context, config: KeepConfig, *, rated: Artifact, gate: Artifact | None = None
) -> Iterator[Pair]:
    """Yield the pairs to train on, in the order of the input; ratings stay with them.

    Counts: `kept/score/<rounded>`, `left/low`, `left/missing`, `left/quota`, `left/not_drawn`.

    Raises:
        TrainingError: If scores are used and the gate did not pass, or there is none; with the
            failed findings and what to set.
        InputError: If fewer than `num_rows` pairs can be kept.
    """
    raise NotImplementedError
