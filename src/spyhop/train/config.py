"""Settings of a training. All of them are identity; how it is spread and cut up is `Runtime`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from spyhop.render import FormatName, TrainOn
from spyhop.schema import Config
from spyhop.train.adapter import AdapterConfig
from spyhop.train.optimizer import OptimizerConfig


class HeldOutConfig(Config):
    """Rows that are not trained on; their loss is taken during training."""

    frac: float = Field(0.0, ge=0, lt=1)
    """Share of each input's rows that is held out, drawn by the seed. With an input of its own,
    `held_out`, it stays 0."""
    times: int = Field(10, ge=1)
    """Evaluations, spread evenly over the run; the last one is after the last step."""
    keep: Literal["last", "best"] = "last"
    """Which weights become the result: those of the last step, or of the lowest held-out loss."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many evaluations in a row without a new lowest loss."""


class WatchConfig(Config):
    """What happens at a step that looks wrong. Every case is counted, and told."""

    not_finite: Literal["stop", "skip"] = "stop"
    """Loss or gradient norm is infinite or no number."""
    spike: Literal["count", "skip", "stop"] = "count"
    """Gradient norm above `spike_factor` times the median of the last 100 steps."""
    spike_factor: float = Field(20.0, gt=1)
    most_skips: int = Field(10, ge=1)
    """Steps skipped in a row after which training stops."""


class TuneConfig(Config):
    """How a model is trained. The global batch, precision and seed are identity."""

    tokens: int | None = Field(None, gt=0)
    """Budget in prompt and response tokens; rows repeat until it is met."""
    epochs: float | None = Field(None, gt=0)
    """Budget in passes over the rows. Exactly one of `tokens` and `epochs` is set."""
    shares: tuple[float, ...] | None = None
    """Share of the token budget drawn from each input; None goes by their sizes."""
    batch_tokens: int = Field(16_384, gt=0)
    """Tokens of a global batch (one optimiser step), padding included."""
    batches: Literal["by_length", "best_fit", "grouped", "in_order"] = "by_length"
    """Which rows share a step: rows of like length; or packs of `max_tokens`, filled by best fit,
    grouped as the Orca paper does (shuffled), or filled in the order given (a curriculum)."""
    max_tokens: int = Field(2048, gt=1)
    """Longest row, in tokens; longer ones, and those that the model's positions cannot hold, are
    dropped whole and counted."""
    optimizer: OptimizerConfig = OptimizerConfig()
    keep_optimizer: bool = False
    """Also write the optimiser's state, so that a later training can go on with it."""
    continue_optimizer: bool = False
    """Start with the state that the base's own training kept, instead of a fresh one."""
    adapter: AdapterConfig | None = None
    """Train low-rank adapters instead of the weights themselves."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of the model class's own dropout layers; while training only."""
    held_out: HeldOutConfig = HeldOutConfig()
    watch: WatchConfig = WatchConfig()
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` keeps float32 weights and computes under autocast."""
    format: FormatName = "saved"
    """Chat format of the rows: `saved` is the base's own, else its chat template, else Orca's
    blocks; `humpback` is plain text with tags."""
    train_on: TrainOn = "all"
    """Which of a conversation's responses are targets."""
    snapshots: tuple[float, ...] = ()
    """Shares of the run after which the weights are also kept, in `snapshots/at-<share>`; those
    that a run stopped by `held_out.patience` does not reach are told."""
    seed: int = 0

    @model_validator(mode="after")
    def _one_budget(self) -> TuneConfig:
        if (self.tokens is None) == (self.epochs is None):
            raise ValueError("set exactly one of tokens and epochs")
        if self.shares is not None and (min(self.shares, default=0) < 0 or sum(self.shares) <= 0):
            raise ValueError("shares are 0 or more, and not all 0")
        if any(not 0 < share <= 1 for share in self.snapshots):
            raise ValueError("snapshots are shares of the run, above 0 and up to 1")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> TuneConfig:
        if self.adapter is not None and self.optimizer.muon_learning_rate is not None:
            raise ValueError("adapters are trained with AdamW: leave muon_learning_rate out")
        return self


def chained(settings: Sequence[TuneConfig]) -> list[TuneConfig]:
    """Return the settings of trainings in a row: an optimiser that the next continues is kept.

    The first has nothing to continue, so it starts afresh whatever its settings say.
    """
    return [
        each.model_copy(
            update={
                "continue_optimizer": each.continue_optimizer and place > 0,
                "keep_optimizer": each.keep_optimizer
                or (place + 1 < len(settings) and settings[place + 1].continue_optimizer),
            }
        )
        for place, each in enumerate(settings)
    ]
