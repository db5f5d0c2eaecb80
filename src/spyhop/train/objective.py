"""What a training minimises: which sequences it reads, their loss, and further metrics.

A new objective is one class: give it to `TrainingJob.objective`. The engine cuts rows into
microbatches, spreads them over processes and packs them; an objective knows nothing of that.

Only supervised positions reach the output head, in pieces: the memory of the logits is bounded by
the piece, not by the batch; a piece is what a core's cache or a share of a GPU holds. Loss and
gradient are taken in one go, so that no logits wait for the backward pass.

Shapes: B rows, S sequences, T positions, N supervised positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from spyhop.lazy import CausalLM, Tensor, torch
from spyhop.train.batches import RowNumbers
from spyhop.train.rows import TokenRows

CPU_LOGITS_BYTES = 256 << 20
GPU_LOGITS_BYTES = 512 << 20
"""Bytes of logits in memory at once, in the type of the products."""
CACHE_BYTES = 2 << 20
"""Bytes of wide logits that a processor's softmax works on at a time: a share of its cache."""


class TokenSequence(NamedTuple):
    """One sequence, and the weight of each of its tokens in the loss: 0 is context; both (T,)."""

    ids: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32] | npt.NDArray[np.bool_]
    reference: float = 0.0
    """Log-probability of its labels under a reference, for objectives that compare with one."""
    extra: Mapping[str, npt.NDArray[Any]] = MappingProxyType({})
    """Further values of each of its labels, (labels, ...), such as a teacher's probabilities."""


@dataclass(frozen=True, slots=True)
class Microbatch:
    """The tensors of one forward pass."""

    inputs: dict[str, Any]
    """Of the model: `input_ids` and the arguments of packed rows."""
    target_positions_N: Tensor
    """Positions in the flattened ids whose next token is supervised."""
    labels_N: Tensor
    weights_N: Tensor | None
    """Weight of each label; None where all are 1."""
    sequence_N: Tensor
    """Number of each label's sequence, in the order of `Objective.collate`."""
    reference_S: Tensor
    """`TokenSequence.reference` of each sequence, (number of sequences,)."""
    extra_N: Mapping[str, Tensor] = field(default_factory=dict)
    """`TokenSequence.extra` of all labels, (N, ...)."""

    def sums(self, values_N: Tensor) -> Tensor:
        """Return the sum of the labels' values for each sequence, (number of sequences,)."""
        sums_S = values_N.new_zeros(len(self.reference_S))
        return sums_S.index_add(0, self.sequence_N, values_N)


@dataclass(frozen=True, slots=True)
class Head:
    """How a model's loss is computed from its hidden states."""

    is_plain: bool
    """The result of `has_plain_head`; otherwise the whole forward pass is used."""
    dtype: torch.dtype | None = None
    """Of autocast; None computes in the weights' own."""
    has_router: bool = False
    """A mixture of experts, which returns an auxiliary loss for balancing them."""

    def cross_entropy(self, model: CausalLM, microbatch: Microbatch, scale: float) -> Tensor:
        """Return `scale` times the weighted sum of the labels' losses, ready for `backward`.

        A router's auxiliary loss is added with the model's own coefficient, once for each label.
        """
        labels_N, weights_N = microbatch.labels_N, microbatch.weights_N
        if self.is_plain:
            hidden_ND, head_VD = self._hidden(model, microbatch)
            dtype = self.dtype or head_VD.dtype
            return head_loss(hidden_ND, head_VD, labels_N, scale, dtype, weights_N)
        logits_NV, router_loss = self._logits(model, microbatch)
        losses_N = torch.nn.functional.cross_entropy(logits_NV, labels_N, reduction="none")
        total = (losses_N if weights_N is None else losses_N * weights_N).sum()
        if router_loss is not None:
            total = total + model.config.router_aux_loss_coef * router_loss * len(labels_N)
        return scale * total

    def logprobs(self, model: CausalLM, microbatch: Microbatch) -> Tensor:
        """Return the natural log-probability of every label, (N,), with its gradient."""
        logs_NV = self.log_softmax(model, microbatch)
        return logs_NV.gather(1, microbatch.labels_N[:, None])[:, 0]

    def log_softmax(
        self, model: CausalLM, microbatch: Microbatch, num_tokens: int | None = None
    ) -> Tensor:
        """Return log-probabilities at every label's place, with their gradient, (N, V).

        They are normalised over the first `num_tokens` ids, or all: models of one tokenizer may pad
        their embeddings to different sizes.
        """
        if self.is_plain:
            hidden_ND, head_VD = self._hidden(model, microbatch)
            dtype = self.dtype or head_VD.dtype
            head_VD = head_VD[:num_tokens].to(dtype)
            logits_NV = (hidden_ND.to(dtype) @ head_VD.T).to(softmax_dtype(dtype))
        else:
            logits_NV = self._logits(model, microbatch)[0][:, :num_tokens]
        return logits_NV.log_softmax(-1)

    def _hidden(self, model: CausalLM, microbatch: Microbatch) -> tuple[Tensor, Tensor]:
        with self._autocast(microbatch):
            hidden_BTD = model.base_model(**microbatch.inputs)[0]
        hidden_ND = hidden_BTD.flatten(0, 1).index_select(0, microbatch.target_positions_N)
        return hidden_ND, model.get_output_embeddings().weight

    def _logits(self, model: CausalLM, microbatch: Microbatch) -> tuple[Tensor, Tensor | None]:
        more = {"output_router_logits": True} if self.has_router else {}
        with self._autocast(microbatch):
            output = model(**microbatch.inputs, **more)
            logits_NV = output.logits.flatten(0, 1)[microbatch.target_positions_N]
        return logits_NV.to(softmax_dtype(logits_NV.dtype)), getattr(output, "aux_loss", None)

    def _autocast(self, microbatch: Microbatch) -> Any:  # noqa: ANN401 (PyTorch's context)
        device = microbatch.labels_N.device.type
        return torch.autocast(device, self.dtype, enabled=self.dtype is not None)


class Objective(Protocol):
    """A loss that is a sum over the rows of a step, divided by the number of its terms.

    G6, for every objective: the gradient of a step is that of `sum of losses / sum of num_terms`
    over the whole step, whatever it is cut into, because `loss` is a sum over sequences and the
    sequences of one row always share a microbatch. Only a router's auxiliary loss depends on the
    cut.
    """

    terms: str
    """Name of the terms in counts."""

    def begin_step(self, rows: RowNumbers, model: CausalLM) -> RowNumbers:
        """Return the rows of a step, such as rows that `model` generates for those planned.

        Every process must return the same numbers.
        """

    def lengths(self, rows: RowNumbers) -> RowNumbers:
        """Return the number of tokens of each row, all of its sequences together."""

    def num_terms(self, rows: RowNumbers) -> float:
        """Return the number that the summed loss of these rows is divided by."""

    def collate(self, row: int) -> list[TokenSequence]:
        """Return the sequences of one row: one, or two for a pair."""

    def loss(
        self, model: CausalLM, microbatch: Microbatch, scale: float, head: Head
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return `scale` times the summed loss, and sums of further metrics, also scaled."""


class CrossEntropy:
    """Cross-entropy on the supervised tokens; its terms are these tokens."""

    terms = "response_tokens"

    def __init__(self, rows: TokenRows) -> None:
        self._rows = rows
        self._lengths = rows.lengths
        self._num_labels = rows.num_labels

    def begin_step(self, rows: RowNumbers, model: CausalLM) -> RowNumbers:
        """Return the planned rows."""
        return rows

    def lengths(self, rows: RowNumbers) -> RowNumbers:
        """Return the number of tokens of each row."""
        return self._lengths[rows]

    def num_terms(self, rows: RowNumbers) -> float:
        """Return the number of supervised tokens."""
        return int(self._num_labels[rows].sum())

    def collate(self, row: int) -> list[TokenSequence]:
        """Return the row with its mask."""
        return [TokenSequence(*self._rows.row(row))]

    def loss(
        self, model: CausalLM, microbatch: Microbatch, scale: float, head: Head
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the scaled sum of the tokens' losses."""
        return head.cross_entropy(model, microbatch, scale), {}


def softmax_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type that probabilities are computed in: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def head_loss(
    hidden_ND: Tensor,
    head_VD: Tensor,
    labels_N: Tensor,
    scale: float,
    dtype: torch.dtype,
    weights_N: Tensor | None = None,
) -> Tensor:
    """Return `scale` times the weighted sum of the cross-entropy of `hidden @ head.T`, in `dtype`.

    Call `backward` on it directly: the gradient is taken at once and not scaled again.
    """
    num_tokens, wide = head_VD.shape[0], softmax_dtype(dtype)
    is_cpu = hidden_ND.device.type == "cpu"
    most = CPU_LOGITS_BYTES if is_cpu else GPU_LOGITS_BYTES
    width = max(1, most // (dtype.itemsize * num_tokens))
    height = max(1, CACHE_BYTES // (wide.itemsize * num_tokens)) if is_cpu else width
    weights_N = torch.ones_like(labels_N, dtype=wide) if weights_N is None else weights_N.to(wide)
    loss: Tensor = _head_loss().apply(
        hidden_ND, head_VD, labels_N, weights_N, scale, dtype, width, height
    )
    return loss


@cache
def _head_loss() -> Any:  # noqa: ANN401 (made at first use: PyTorch is heavy)
    class HeadLoss(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any,  # noqa: ANN401 (PyTorch's)
            hidden_ND: Tensor,
            head_VD: Tensor,
            labels_N: Tensor,
            weights_N: Tensor,
            scale: float,
            dtype: torch.dtype,
            width: int,
            height: int,
        ) -> Tensor:
            hidden, head = hidden_ND.to(dtype), head_VD.to(dtype)
            needs_head = ctx.needs_input_grad[1]
            head_grad = None
            wide = softmax_dtype(dtype)
            total = torch.zeros((), dtype=wide, device=hidden.device)
            slopes = torch.empty_like(hidden)
            for start in range(0, len(hidden), width):
                some = hidden[start : start + width]
                slope_NV = some @ head.T
                for first in range(0, len(some), height):
                    place = slice(start + first, min(start + first + height, start + width))
                    total += _slope(
                        slope_NV[first : first + height], labels_N[place], weights_N[place], scale
                    )
                torch.mm(slope_NV, head, out=slopes[start : start + width])
                if needs_head:
                    part = slope_NV.T @ some
                    head_grad = part.to(wide) if head_grad is None else head_grad.add_(part)
            ctx.slopes = slopes.to(hidden_ND.dtype)
            if needs_head and head_grad is None:
                head_grad = torch.zeros_like(head_VD)  # no target here, perhaps in another rank
            ctx.head_grad = None if head_grad is None else head_grad.to(head_VD.dtype)
            loss: Tensor = total * scale
            return loss

        @staticmethod
        def backward(ctx: Any, _slope: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
            return ctx.slopes, ctx.head_grad, None, None, None, None, None, None

    return HeadLoss


def _slope(logits_NV: Tensor, labels_N: Tensor, weights_N: Tensor, scale: float) -> Tensor:
    """Return the weighted loss of logits, and put its gradient, times `scale`, in their place."""
    labels_N1, weights_N1 = labels_N[:, None], weights_N[:, None]
    logs_NV = torch.log_softmax(logits_NV.to(weights_N.dtype), dim=1)
    loss = -(logs_NV.gather(1, labels_N1) * weights_N1).sum()
    slope_NV = logs_NV.exp_()
    slope_NV.scatter_add_(1, labels_N1, torch.full_like(labels_N1, -1, dtype=slope_NV.dtype))
    logits_NV.copy_(slope_NV.mul_(weights_N1 * scale))
    return loss


def has_plain_head(model: CausalLM) -> bool:
    """Return whether the logits are the output embedding of the last hidden state and nothing more.

    Some classes scale or cap their logits; these are trained through their whole forward pass.
    """
    model.eval()
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.bias is not None:
        return False
    ids = torch.arange(8, device=model.device)[None] % model.get_input_embeddings().num_embeddings
    gain = 1.0
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0] * gain,))
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids, use_cache=False)[0]
        gain = 100 / max(float(head(hidden).abs().max()), 1e-6)  # small logits are never capped
        plain, whole = head(hidden), model(input_ids=ids, use_cache=False).logits
    hook.remove()
    return bool(plain.shape == whole.shape and torch.allclose(plain, whole, atol=1e-2, rtol=1e-3))
