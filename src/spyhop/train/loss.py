"""From hidden states to the loss: only supervised positions reach the output head, in pieces.

The memory of the logits is bounded by the piece, not by the batch, and the piece is what a core's
cache or a share of a GPU holds. Loss and gradient are taken in one go, so that no logits wait for
the backward pass.

Shapes: B rows, T positions, N supervised positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from spyhop.lazy import Lazy

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = Lazy("torch")

CPU_LOGITS_BYTES = 4 << 20
"""Logits that are held at once: about what a core has of cache."""
GPU_LOGITS_BYTES = 512 << 20
FEWEST_POSITIONS = 256
"""In a piece: each adds a gradient of the head's size, which few positions would not pay for."""


@dataclass(frozen=True, slots=True)
class Microbatch:
    """The tensors of one forward pass."""

    inputs: dict[str, Any]
    """Of the model: `input_ids` and what goes with packed rows."""
    target_positions_N: Tensor
    """Places in the flattened ids whose next token is a target."""
    labels_N: Tensor


def microbatch_loss(
    model: Any,  # noqa: ANN401 (transformers' type)
    microbatch: Microbatch,
    weight: float,
    *,
    head_is_plain: bool,
    dtype: torch.dtype | None,
) -> Tensor:
    """Return `weight` times the sum of the losses of a pass's targets, ready for `backward`.

    Args:
        model: A causal language model.
        microbatch: Its input.
        weight: 1 / target tokens of the global batch.
        head_is_plain: What `has_plain_head` found; else the whole forward pass is used.
        dtype: Of autocast; None computes in the weights' own.
    """
    with torch.autocast(
        microbatch.target_positions_N.device.type, dtype, enabled=dtype is not None
    ):
        if not head_is_plain:
            logits_NV = model(**microbatch.inputs).logits.flatten(0, 1)[
                microbatch.target_positions_N
            ]
            logits_NV = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
            cross_entropy = torch.nn.functional.cross_entropy
            return weight * cross_entropy(logits_NV, microbatch.labels_N, reduction="sum")
        hidden_BTD = model.base_model(**microbatch.inputs)[0]
    hidden_ND = hidden_BTD.flatten(0, 1).index_select(0, microbatch.target_positions_N)
    head_VD = model.get_output_embeddings().weight
    return head_loss(hidden_ND, head_VD, microbatch.labels_N, weight, dtype or head_VD.dtype)


def head_loss(
    hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor, weight: float, dtype: torch.dtype
) -> Tensor:
    """Return `weight` times the summed cross-entropy of `hidden @ head.T`, computed in `dtype`.

    Call `backward` on it directly: the gradient is taken at once and not scaled again.
    """
    num_bytes = CPU_LOGITS_BYTES if hidden_ND.device.type == "cpu" else GPU_LOGITS_BYTES
    width = max(FEWEST_POSITIONS, num_bytes // (4 * head_VD.shape[0]))
    loss: Tensor = _head_loss().apply(hidden_ND, head_VD, labels_N, weight, dtype, width)
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
            weight: float,
            dtype: torch.dtype,
            width: int,
        ) -> Tensor:
            hidden, head = hidden_ND.to(dtype), head_VD.to(dtype)
            needs_head = ctx.needs_input_grad[1]
            head_grad = None
            wide = torch.float64 if dtype == torch.float64 else torch.float32
            total = torch.zeros((), dtype=wide, device=hidden.device)
            slopes = torch.empty_like(hidden)
            for start in range(0, len(hidden), width):
                some, targets = (
                    hidden[start : start + width],
                    labels_N[start : start + width, None],
                )
                logs_NV = torch.log_softmax((some @ head.T).to(wide), dim=1)
                total -= logs_NV.gather(1, targets).sum()
                slope_NV = logs_NV.exp_()
                slope_NV.scatter_add_(1, targets, torch.full_like(targets, -1, dtype=wide))
                slope_NV = slope_NV.mul_(weight).to(dtype)
                torch.mm(slope_NV, head, out=slopes[start : start + width])
                if needs_head:
                    part = slope_NV.T @ some
                    head_grad = part.to(wide) if head_grad is None else head_grad.add_(part)
            ctx.slopes = slopes.to(hidden_ND.dtype)
            if needs_head and head_grad is None:
                head_grad = torch.zeros_like(head_VD)  # no target here, perhaps in another rank
            ctx.head_grad = None if head_grad is None else head_grad.to(head_VD.dtype)
            loss: Tensor = total * weight
            return loss

        @staticmethod
        def backward(ctx: Any, _slope: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
            return ctx.slopes, ctx.head_grad, None, None, None, None

    return HeadLoss


def has_plain_head(model: Any) -> bool:  # noqa: ANN401 (transformers' type)
    """Tell whether the logits are the output embedding of the last hidden state and nothing more.

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
