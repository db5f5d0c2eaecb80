"""Linear layers on a processor: weights kept in the order in which oneDNN multiplies them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

from spyhop.lazy import torch

ROWS = 64
"""Tokens that the order is chosen for; it serves single ones as well."""


def prepack(model: Any) -> None:  # noqa: ANN401 (transformers' type)
    """Let the linear layers of a model multiply by weights in oneDNN's order, by its kernels.

    PyTorch brings the weights of a layer into this order at each call. Up to some 16 rows that
    takes longer than the product itself. A model with tied embeddings keeps both orders of them.
    """
    ops = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if ops is None or model.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return
    is_half_known = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    tied = model.get_input_embeddings().weight
    for layer in _called_layers(model):
        weight = layer.weight
        if weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and is_half_known):
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
            layer.forward = partial(_multiply, packed, layer.bias)  # type: ignore[method-assign]
            if weight is not tied:
                weight.data = weight.data.new_empty(0)


def _called_layers(model: Any) -> Iterator[torch.nn.Linear]:  # noqa: ANN401 (transformers' type)
    """Yield the linear layers that their parents only call; some, as Mamba's, read the weight."""
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            is_read = f"self.{name}.weight" in _code(type(parent))  # type: ignore[arg-type]
            if type(layer) is torch.nn.Linear and not is_read:
                yield layer


@cache
def _code(kind: type) -> str:
    return inspect.getsource(kind)


def _multiply(weight: torch.Tensor, bias: torch.Tensor | None, states: torch.Tensor) -> Any:  # noqa: ANN401
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
