"""Preferences: make the chosen response of a pair more likely than the rejected one (DPO).

A reference, the model that training starts from, scores all pairs once; the scores are an artifact.
Source: Rafailov et al. (arXiv:2305.18290).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from spyhop.lazy import CausalLM, Tensor, torch
from spyhop.models.local import pick_device, pick_dtype
from spyhop.render import FormatName, Renderer, Thinking
from spyhop.schema import Config, Row, TrainingError
from spyhop.stage import Context, Estimate, Progress, stage, sum_estimates
from spyhop.store import Artifact
from spyhop.train.base import open_student, open_tokenizer
from spyhop.train.batches import RowNumbers
from spyhop.train.config import DPOConfig, TuneConfig
from spyhop.train.cost import CORE_FLOPS, Shape
from spyhop.train.distributed import Group
from spyhop.train.encoding import encoding_of
from spyhop.train.engine import Engine, TrainingResult
from spyhop.train.objective import CrossEntropy, Head, Microbatch, TokenSequence
from spyhop.train.rows import TokenRows, tokenise

SCORES = "scores.bin"
"""In the stage's state: the log-probabilities so far; not a number where there is none yet."""
ROW_TOKENS = 400
"""Planning figure: tokens of a pair."""


class ReferenceConfig(Config):
    """How a reference reads pairs: the settings of the training that needs its scores."""

    max_tokens: int = Field(gt=1)
    format: FormatName
    thinking: Thinking
    precision: Literal["auto", "float32", "bfloat16"]


def reference_config(config: TuneConfig) -> ReferenceConfig:
    """Return how a reference reads the pairs of a training."""
    return ReferenceConfig(**config.model_dump(include=set(ReferenceConfig.model_fields)))


class PairScore(Row):
    """Log-probabilities of a pair's responses; the id is the row's number among those tokenised."""

    chosen: float
    """Natural log-probability of the response, end token included, given the prompt."""
    rejected: float
    chosen_tokens: int
    rejected_tokens: int
    """Supervised tokens."""


def plan_reference(
    config: ReferenceConfig,
    base: Estimate,
    pairs: Mapping[str, Estimate],
    held_out: Mapping[str, Estimate] | None = None,
) -> Estimate:
    """Return the rows and a third of the time that training on them once takes."""
    pool = sum_estimates([*pairs.values(), *(held_out or {}).values()])
    tokens = pool.rows * (pool.row_tokens or ROW_TOKENS)
    flops = Shape(base.parameters, base.num_layers, base.hidden_size).flops_per_token()
    return Estimate(rows=pool.rows, seconds=tokens * flops / 3 / CORE_FLOPS)


@stage(version=1, writes=PairScore, plan=plan_reference, needs="local")
def score_pairs(
    ctx: Context,
    config: ReferenceConfig,
    *,
    base: Artifact,
    pairs: Mapping[str, Artifact],
    held_out: Mapping[str, Artifact] | None = None,
) -> Iterator[PairScore]:
    """Score the pairs that training would read, with the masks and the precision of training.

    Runs on one device. A killed run continues after the passes that it finished. Pairs that
    training drops have no row; they are dropped here for the same reasons.
    """
    torch.set_num_threads(ctx.runtime.threads)
    tuning = TuneConfig(epochs=1, **config.model_dump())
    encoding = encoding_of(Renderer(*open_tokenizer(base.path, tuning)), base.path, tuning)
    rows = tokenise(ctx, [*pairs.values(), *(held_out or {}).values()], encoding)
    check_pairs(rows)
    group, result = Group(pick_device(ctx.runtime.device)), TrainingResult()
    student = open_student(base.path, tuning, group.device)
    engine = Engine(
        Pairs(rows), student, group, ctx.runtime, result,
        precision=str(pick_dtype(config.precision, base.path)).removeprefix("torch."),
        longest=int(rows.lengths.max()),
    )  # fmt: skip
    path, num = ctx.state / SCORES, len(rows.lengths)
    if not path.is_file() or path.stat().st_size != 16 * num:
        np.full((num, 2), np.nan).tofile(path)
    scores = np.memmap(path, dtype=np.float64, mode="r+", shape=(num, 2))
    left = np.flatnonzero(np.isnan(scores[:, 1]))
    for some, sums in engine.logprobs(left) if len(left) else ():
        scores[some] = sums.reshape(-1, 2).double().cpu().numpy()
        done = len(scores) - int(np.isnan(scores[:, 1]).sum())
        ctx.report(Progress("scoring pairs", done, len(scores), "pairs"))
    for text in result.notices:
        ctx.notice(text)
    for row, ((chosen, rejected), lengths) in enumerate(
        zip(scores.tolist(), num_labels(rows).tolist(), strict=True)
    ):
        yield PairScore(
            id=str(row), chosen=chosen, rejected=rejected,
            chosen_tokens=lengths[0], rejected_tokens=lengths[1],
        )  # fmt: skip


def check_pairs(rows: TokenRows) -> None:
    """Refuse rows that are no pairs."""
    if not rows.splits.all():
        raise TrainingError(
            "objective needs pairs, and a row has one response; give rows with chosen and "
            "rejected, or remove objective"
        )


def num_labels(rows: TokenRows) -> npt.NDArray[np.int64]:
    """Return the supervised tokens of both responses of each pair, (rows, 2)."""
    bounds = np.stack([rows.starts[:-1], rows.starts[:-1] + rows.splits], axis=1)
    return np.add.reduceat(rows.is_supervised, bounds.ravel(), dtype=np.int64).reshape(-1, 2)


def read_reference(rows: TokenRows, reference: Artifact) -> npt.NDArray[np.float64]:
    """Return the reference's log-probabilities of both responses of each pair, (rows, 2).

    Raises:
        TrainingError: If the scores are those of other rows.
    """
    scores = list(reference.rows(PairScore))
    lengths = np.array([(each.chosen_tokens, each.rejected_tokens) for each in scores])
    if not np.array_equal(lengths.reshape(-1, 2), num_labels(rows)):
        raise TrainingError(f"{reference}: scores of other pairs than those that are trained on")
    return np.array([(each.chosen, each.rejected) for each in scores])


class Pairs(CrossEntropy):
    """Both sequences of each pair; the terms are the pairs."""

    terms = "pairs"

    def num_terms(self, rows: RowNumbers) -> float:
        """Return the number of pairs."""
        return len(rows)

    def collate(self, row: int) -> list[TokenSequence]:
        """Return the chosen conversation and the rejected one."""
        (ids, mask), split = self._rows.row(row), int(self._rows.splits[row])
        return [TokenSequence(ids[:split], mask[:split]), TokenSequence(ids[split:], mask[split:])]


class DPO(Pairs):
    """Logistic loss on the margin between the two responses' gains over the reference.

    With the gain g = log p(response) - log p_reference(response), a pair's loss is
    `-log sigmoid(beta * (g_chosen - g_rejected))` (equation 7 of the paper). Metrics, as means over
    pairs: `margin` (beta times the difference of gains), `accuracy` (share of margins above 0),
    `chosen_gain` and `rejected_gain` in nats (a `chosen_gain` below 0 is likelihood displacement:
    Razin et al., arXiv:2410.08847), `chosen_tokens` and `rejected_tokens`.
    """

    def __init__(
        self, rows: TokenRows, *, config: DPOConfig, reference: npt.NDArray[np.float64]
    ) -> None:
        super().__init__(rows)
        self._config, self._reference = config, reference

    def collate(self, row: int) -> list[TokenSequence]:
        """Return the chosen conversation and the rejected one, with their reference scores."""
        sides = zip(super().collate(row), self._reference[row].tolist(), strict=True)
        return [side._replace(reference=score) for side, score in sides]

    def loss(
        self, model: CausalLM, microbatch: Microbatch, scale: float, head: Head
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the scaled sum of the pairs' losses, and of their metrics."""
        logprobs_N = head.logprobs(model, microbatch)
        gains_S = microbatch.sums(logprobs_N) - microbatch.reference_S.to(logprobs_N.dtype)
        chosen, rejected = gains_S[0::2], gains_S[1::2]
        margins = self._config.beta * (chosen - rejected)
        loss = -scale * torch.nn.functional.logsigmoid(margins).sum()
        tokens_S = microbatch.sums(torch.ones_like(logprobs_N))
        metrics = {
            "margin": margins, "accuracy": (margins > 0).to(margins.dtype),
            "chosen_gain": chosen, "rejected_gain": rejected,
            "chosen_tokens": tokens_S[0::2], "rejected_tokens": tokens_S[1::2],
        }  # fmt: skip
        return loss, {name: scale * each.detach().sum() for name, each in metrics.items()}
