"""Settings of a training. All are part of its key; devices and microbatches are `Runtime`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from spyhop.render import FormatName, History, Thinking, TrainOn
from spyhop.schema import Config
from spyhop.train.optimizer import OptimizerConfig


class AdapterConfig(Config):
    """Adapters to train. The result is a merged model, with the adapter in its own folder."""

    rank: int = Field(16, ge=1)
    """Rank of the adapter matrices."""
    alpha: int = Field(32, gt=0)
    """Scale: the adapter's output is multiplied by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability of the adapter's input."""
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the layers to adapt; `all-linear` is every linear layer except the output head."""
    quantize: Literal["nf4"] | None = None
    """Keep the base's weights in four bits (QLoRA); needs one CUDA GPU and bitsandbytes."""


class HeldOutConfig(Config):
    """Validation rows: not trained on, their loss is measured during training."""

    frac: float = Field(0.0, ge=0, lt=1)
    """Share of each input's rows to hold out, drawn by the seed. Leave it 0 when the rows come from
    a `held_out` input."""
    times: int = Field(10, ge=1)
    """Number of evaluations, spread evenly over the run; the last one follows the last step."""
    keep: Literal["last", "best"] = "last"
    """Weights to save: those of the last step, or of the lowest held-out loss."""
    patience: int | None = Field(None, ge=1)
    """Evaluations in a row without a new lowest loss after which training stops; unset is never."""


class WatchConfig(Config):
    """Actions for steps that look wrong. Every case is counted and logged."""

    not_finite: Literal["stop", "skip"] = "stop"
    """Action when the loss or the gradient norm is infinite or not a number."""
    spike: Literal["count", "skip", "stop"] = "count"
    """Action when the gradient norm exceeds `spike_factor` times the last 100 steps' median."""
    spike_factor: float = Field(20.0, gt=1)
    """A step is a spike if its gradient norm exceeds the recent median by this factor."""
    most_skips: int = Field(10, ge=1)
    """Consecutive skipped steps after which training stops."""


class DPOConfig(Config):
    """Direct preference optimisation (arXiv:2305.18290) on rows with `chosen` and `rejected`."""

    beta: float = Field(0.1, gt=0)
    """Strength of the pull towards the model that training starts from."""


class DivergenceConfig(Config):
    """On-policy distillation: a teacher's probabilities of the student's own responses.

    Source: Agarwal et al. (arXiv:2306.13649).
    """

    divergence: Literal["reverse", "forward", "jensen_shannon"]
    """KL(student || teacher), KL(teacher || student), or the mean of both to their mixture."""
    top_k: int | None = Field(None, ge=1)
    """Compare the probabilities of the teacher's k likeliest tokens, and of all others together; a
    server may allow at most 20. Default: the sampled token's alone, weighted as in policy gradients
    (arXiv:2306.08543)."""
    max_new_tokens: int = Field(256, gt=0)
    """Longest response of the student, which is sampled at temperature 1."""
    system: str = ""
    """System message that the teacher alone reads, instead of the row's own. With the base itself
    as the teacher this is context distillation."""
    shots: tuple[tuple[str, str], ...] = ()
    """Worked examples (user, assistant) that the teacher alone reads before the prompt."""


def _kind(given: Any) -> str:  # noqa: ANN401 (plain TOML, or the config itself)
    is_own = "divergence" in given if isinstance(given, dict) else hasattr(given, "divergence")
    return "kind-divergence" if is_own else "kind-pairs"


Objective = Annotated[
    Annotated[DPOConfig, Tag("kind-pairs")] | Annotated[DivergenceConfig, Tag("kind-divergence")],
    Discriminator(_kind),
]


class TuneConfig(Config):
    """Settings of a training. The global batch, precision and seed are identity."""

    tokens: int | None = Field(None, gt=0)
    """Token budget, prompts and responses together; rows repeat until it is met."""
    epochs: float | None = Field(None, gt=0)
    """Budget in passes over the rows. Set exactly one of `tokens` and `epochs`."""
    shares: tuple[float, ...] | None = None
    """Share of the token budget for each input. Default: in proportion to their sizes."""
    batch_tokens: int = Field(16_384, gt=0)
    """Tokens of a global batch (one optimiser step), including padding."""
    batches: Literal["by_length", "best_fit", "grouped", "in_order"] = "by_length"
    """How rows are batched: length-sorted, or in packs of `max_tokens` (best fit, shuffled as in
    the Orca paper, or in the order of the rows for a curriculum)."""
    max_tokens: int = Field(2048, gt=1)
    """Longest row, in tokens. Longer rows, and rows beyond the model's context, are dropped whole
    and counted."""
    objective: Objective | None = Field(None, exclude_if=lambda value: value is None)
    """Train on pairs by DPO (`beta`), or on the student's own responses (`divergence`). Default:
    cross-entropy of the responses (of a pair, the chosen one). A pair counts with both responses, a
    prompt with `max_new_tokens` for its response."""
    optimizer: OptimizerConfig = OptimizerConfig()
    adapter: AdapterConfig | None = None
    """Low-rank adapters to train instead of the weights themselves."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability of the model's own dropout layers during training; 0 disables them."""
    held_out: HeldOutConfig = HeldOutConfig()
    watch: WatchConfig = WatchConfig()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute precision; `bfloat16` keeps float32 weights and computes under autocast. `auto` is
    `bfloat16` for a base that is stored so."""
    format: FormatName = "saved"
    """Chat format of the rows: `saved` is the base's own, else its chat template, else Orca's
    blocks; `humpback` is plain text with tags."""
    train_on: TrainOn = "all"
    """Responses of a conversation to supervise: all, or the last one."""
    thinking: Thinking = "keep"
    """Thoughts before a response: supervised (`keep`), removed (`drop`: the saved template then
    opens no thought, where it has a switch) or read without loss (`mask`)."""
    history: History = "last"
    """Rows whose earlier responses the chat template rewrites, as it removes earlier thoughts:
    supervise the last response only (`last`), or `split` the row into one sequence for each."""
    snapshots: tuple[float, ...] = ()
    """Shares of the run after which the weights are also saved, in `snapshots/at-<share>`. A run
    that stops early logs those that it did not reach."""
    seed: int = 0
    """Seed of the order of rows, of dropout and of new weights."""

    @model_validator(mode="after")
    def _fits_together(self) -> TuneConfig:
        if (self.tokens is None) == (self.epochs is None):
            raise ValueError("set exactly one of tokens and epochs")
        if self.shares is not None and (min(self.shares, default=0) < 0 or sum(self.shares) <= 0):
            raise ValueError("shares are 0 or more, and not all 0")
        if any(not 0 < share <= 1 for share in self.snapshots):
            raise ValueError("snapshots are shares of the run, above 0 and up to 1")
        if self.objective is not None and self.history == "split":
            raise ValueError("objective reads the last response alone: remove history = 'split'")
        if self.adapter is not None and self.optimizer.muon_learning_rate is not None:
            raise ValueError("adapters are trained with AdamW: remove muon_learning_rate")
        return self
