"""From the rows of a step to its gradient, whatever they are cut into and spread over (G6)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import numpy as np
import numpy.typing as npt

from spyhop.lazy import CausalLM, Tensor, torch
from spyhop.runtime import Runtime
from spyhop.train.attention import documents, isolate, switch
from spyhop.train.base import LoadedBase
from spyhop.train.batches import RowNumbers, best_fit, shard_microbatches, split_microbatches
from spyhop.train.distributed import Group, shard
from spyhop.train.objective import Head, Microbatch, Objective, TokenSequence, has_plain_head

METHOD = "spyhop_loss"
REAL = np.float32 if sys.platform == "darwin" else np.float64  # Apple's GPUs have no double


@dataclass(slots=True)
class TrainingResult:
    """The counts and messages of a training, besides the files in `out`."""

    counts: dict[str, int] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


class Engine:
    """Computes gradients and losses of an objective for one model."""

    def __init__(
        self,
        objective: Objective,
        student: LoadedBase,
        group: Group,
        runtime: Runtime,
        result: TrainingResult,
        *,
        precision: str,
        longest: int,
    ) -> None:
        """Set a model up for its training: packing, sharding, gradient checkpointing."""
        self.objective, self.model, self.causal = objective, student.model, student.causal
        self.group, self.microbatch_tokens = group, runtime.microbatch_tokens
        causal, is_half = student.causal, precision == "bfloat16"
        has_router = bool(getattr(causal.config, "router_aux_loss_coef", None))
        is_plain = not has_router and group.tell(group.rank == 0 and has_plain_head(causal))
        if runtime.gradient_checkpointing:
            enable = getattr(causal, "activation_checkpointing_enable", None)
            (enable or causal.gradient_checkpointing_enable)()
        self.head = head = Head(is_plain, torch.bfloat16 if is_half else None, has_router)

        def method(model: CausalLM, microbatch: Microbatch, scale: float) -> Any:  # noqa: ANN401
            """Return the loss; FSDP gathers the weights for calls of registered methods only."""
            return objective.loss(model, microbatch, scale, head)

        setattr(causal, METHOD, MethodType(method, causal))
        if group.size > 1:
            shard(causal, student.model, group, is_half=is_half, method=METHOD)
        is_cuda = group.device.type == "cuda"
        self.is_packed = runtime.packing == "on" or (runtime.packing == "auto" and is_cuda)
        with torch.autocast(group.device.type, torch.bfloat16, enabled=is_half):
            if self.is_packed:  # where the model keeps documents apart (G5)
                router = "its router's loss needs padded rows" if has_router else None
                if reason := router or isolate(causal, longest):
                    result.notices.append(f"trained without packing: {reason}")
                    result.counts["unpacked"], self.is_packed = 1, False
            if not self.is_packed and causal.config._attn_implementation == "sdpa":
                switch(causal)  # padded rows: as before, but faster on a processor

    def gradient(self, rows: RowNumbers) -> tuple[float, float, dict[str, float]]:
        """Return a step's mean loss, its terms and further metrics.

        The gradient of the loss is added to the parameters', unless gradients are disabled.
        """
        num_terms = self.objective.num_terms(rows)
        scale = self.group.size / (num_terms or 1)  # FSDP takes the mean over processes
        total = torch.zeros((), device=self.group.device)
        sums: dict[str, Tensor] = {}
        for _, microbatch, is_real in self._microbatches(rows):
            loss, metrics = getattr(self.causal, METHOD)(microbatch, scale * is_real)
            if torch.is_grad_enabled():
                loss.backward()
            total = total + loss.detach()
            sums = {name: sums.get(name, 0) + value.detach() for name, value in metrics.items()}
        means = {name: self.group.mean(value) for name, value in sums.items()}
        return self.group.mean(total), num_terms, means

    def loss(self, rows: RowNumbers) -> tuple[float, dict[str, float]]:
        """Return the mean loss of rows, without dropout, and further metrics."""
        self.model.eval()
        with torch.no_grad():
            loss, _, metrics = self.gradient(rows)
        return loss, metrics

    def logprobs(self, rows: RowNumbers) -> Iterator[tuple[RowNumbers, Tensor]]:
        """Yield rows of each pass and their sequences' log-probabilities, without dropout."""
        self.model.eval()
        for some, microbatch, _ in self._microbatches(rows):
            with torch.no_grad():
                yield some, microbatch.sums(self.head.logprobs(self.causal, microbatch))

    def log_softmaxes(
        self, rows: RowNumbers, num_tokens: int
    ) -> Iterator[tuple[RowNumbers, Tensor]]:
        """Yield rows of each pass and log-probabilities at their labels' places, (N, V)."""
        self.model.eval()
        for some, microbatch, _ in self._microbatches(rows):
            with torch.no_grad():
                yield some, self.head.log_softmax(self.causal, microbatch, num_tokens)

    def _microbatches(self, rows: RowNumbers) -> Iterator[tuple[RowNumbers, Microbatch, bool]]:
        """Yield this process's passes; one that is not real only keeps the processes in step."""
        lengths = np.zeros(int(rows.max()) + 1, dtype=np.int64)
        lengths[rows] = self.objective.lengths(rows)
        if self.is_packed:
            capacity = max(self.microbatch_tokens, int(lengths[rows].max()))
            packs = best_fit(lengths[rows], capacity)
            microbatches = [rows[packs[place]] for place in range(len(packs))]
        else:
            microbatches = split_microbatches(rows, lengths, self.microbatch_tokens)
        if self.group.size > 1:
            dealt = shard_microbatches(microbatches, lengths, self.group.size)
            microbatches = dealt[self.group.rank]
        for some in microbatches:
            taken = (some if len(some) else rows[:1]).tolist()
            sequences = [each for row in taken for each in self.objective.collate(row)]
            yield some, self._tensors(sequences), len(some) > 0

    def _tensors(self, sequences: list[TokenSequence]) -> Microbatch:
        """Sequences end to end, or right-padded: causal attention never looks at the padding."""
        lengths = np.array([len(each.ids) for each in sequences])
        if self.is_packed:
            shape, firsts = (1, int(lengths.sum())), np.cumsum(lengths) - lengths
        else:
            width = int(lengths.max())
            shape, firsts = (len(sequences), width), np.arange(len(sequences)) * width
        ids = np.zeros(shape[0] * shape[1], dtype=np.int64)
        weights = np.zeros(len(ids), dtype=np.float32)
        """Of the next token, at each position."""
        for each, first, length in zip(sequences, firsts.tolist(), lengths.tolist(), strict=True):
            ids[first : first + length] = each.ids
            weights[first : first + length - 1] = each.weights[1:]
        keep = np.flatnonzero(weights)
        inputs: dict[str, Any] = {"input_ids": self._on_device(ids.reshape(shape))}
        if self.is_packed:
            inputs |= documents(self.causal, lengths.tolist())
        names = sequences[0].extra.keys()
        extra = {name: np.concatenate([each.extra[name] for each in sequences]) for name in names}
        is_weighted = any(each.weights.dtype != np.bool_ for each in sequences)
        return Microbatch(
            inputs={**inputs, "use_cache": False},
            target_positions_N=self._on_device(keep),
            labels_N=self._on_device(ids[keep + 1]),
            weights_N=self._on_device(weights[keep]) if is_weighted else None,
            sequence_N=self._on_device(np.searchsorted(firsts, keep, side="right") - 1),
            reference_S=self._on_device(np.array([each.reference for each in sequences], REAL)),
            extra_N={name: self._on_device(values) for name, values in extra.items()},
        )

    def _on_device(self, values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self.group.device)
