"""What a training minimises: which sequences it reads, their loss, and further metrics.

A new objective is one class: give it to `TrainingJob.objective`. The engine cuts rows into
microbatches, spreads them over processes and packs them; an objective knows nothing of that.

Shapes: B rows, S sequences, T positions, N supervised positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from spyhop.lazy import CausalLM, Tensor, torch
from spyhop.train.batches import RowNumbers
from spyhop.train.loss import head_loss, softmax_dtype
from spyhop.train.rows import TokenRows


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
