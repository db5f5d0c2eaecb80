"""Causal attention of short sequences in half precision on a processor.

PyTorch's flash attention there takes more than twice the time of plain matrix products below about
a thousand tokens. Scores and probabilities are computed in float32, as flash attention does; the
probabilities are kept for the backward pass, so the memory grows with T x T.

Shapes: B sequences, H heads, K key heads, G = H / K, T positions, D head size.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from spyhop.lazy import Tensor, torch

MOST_TOKENS = 512
"""Longest sequence: the probabilities then take at most about a third of a layer's memory."""


def dense_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Attend causally: query (B, H, T, D), key and value (B, K, T, D) -> (B, H, T, D).

    The result has the type of `value`, and products with the probabilities are taken in it.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out: Tensor = _dense_attention().apply(query, key, value, scale)
    return out


@cache
def _dense_attention() -> Any:  # noqa: ANN401 (made at first use: PyTorch is heavy)
    class DenseAttention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:  # noqa: ANN401
            B, H, T, D = query.shape
            K, dtype = key.shape[1], value.dtype
            query_GTD = query.reshape(B, K, H // K * T, D)
            with torch.autocast(query.device.type, enabled=False):
                scores = (query_GTD.float() * scale) @ key.float().transpose(-1, -2)
                future = torch.full((T, T), float("-inf"), device=query.device).triu_(1)
                scores.view(B, H, T, T).add_(future)
                probs = torch.softmax(scores, -1).to(dtype)
                out = probs @ value
            ctx.save_for_backward(query_GTD.to(dtype), key.to(dtype), value, probs)
            ctx.scale, ctx.dtypes = scale, (query.dtype, key.dtype)
            return out.view(B, H, T, D)

        @staticmethod
        def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
            query, key, value, probs = ctx.saved_tensors
            slope_GTD = slope.reshape(query.shape)
            value_slope = probs.transpose(-1, -2) @ slope_GTD
            probs_slope = slope_GTD @ value.transpose(-1, -2)
            scores_slope = torch._softmax_backward_data(probs_slope, probs, -1, probs.dtype)
            key_slope = (scores_slope.transpose(-1, -2) @ query).to(ctx.dtypes[1]).mul_(ctx.scale)
            query_slope = (scores_slope @ key).to(ctx.dtypes[0]).mul_(ctx.scale)
            return query_slope.view(slope.shape), key_slope, value_slope, None

    return DenseAttention
