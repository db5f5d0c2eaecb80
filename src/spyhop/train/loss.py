"""From hidden states to the loss: only supervised positions reach the output head, in pieces.

The memory of the logits is bounded by the piece, not by the batch, and the piece is what a core's
cache or a share of a GPU holds. Loss and gradient are taken in one go, so that no logits wait for
the backward pass.

Shapes: B rows, T positions, N supervised positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from spyhop.lazy import CausalLM, Tensor, torch

CPU_LOGITS_BYTES = 256 << 20
GPU_LOGITS_BYTES = 512 << 20
"""Bytes of logits in memory at once, in the type of the products."""
CACHE_BYTES = 2 << 20
"""Bytes of wide logits that a processor's softmax works on at a time: a share of its cache."""


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
