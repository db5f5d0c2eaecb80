"""Muon, with matrices of one shape orthogonalised together.

`torch.optim.Muon` goes through the matrices one by one; for students of a few hundred thousand
parameters that is more than a third of a training step. In batches of equal shape the same
arithmetic takes a fraction of it (`benchmarks/muon.py`).

Source: Jordan et al. (2024), https://kellerjordan.github.io/posts/muon
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spyhop.lazy import Tensor, torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: steepest at zero, so that small singular values grow fastest."""
NUM_ITERATIONS = 5
EPSILON = 1e-7


class Muon:
    """Momentum whose update is replaced by the nearest orthogonal matrix.

    It has the part of an optimiser's interface that training needs; float32 throughout.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": list(parameters), "lr": lr}]
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._by_shape: dict[tuple[int, ...], list[Tensor]] = {}
        for parameter in parameters:
            self._by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
        self._buffers = {
            shape: torch.zeros(len(some), *shape, device=some[0].device)
            for shape, some in self._by_shape.items()
        }

    def step(self) -> None:
        """Update every parameter that this optimiser holds."""
        rate = self.param_groups[0]["lr"]
        with torch.no_grad():
            for shape, parameters in self._by_shape.items():
                for parameter in parameters:
                    if parameter.grad is None:  # a weight that this batch did not use
                        parameter.grad = torch.zeros_like(parameter)
                gradient_NRC = torch.stack([each.grad for each in parameters])  # type: ignore[misc]
                buffer_NRC = self._buffers[shape].lerp_(gradient_NRC, 1 - self._momentum)
                update_NRC = orthogonalise(gradient_NRC.lerp(buffer_NRC, self._momentum))
                scale = rate * max(1.0, shape[0] / shape[1]) ** 0.5
                for parameter, update in zip(parameters, update_NRC, strict=True):
                    parameter.mul_(1 - rate * self._weight_decay).add_(update, alpha=-scale)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the momenta, one tensor per shape."""
        return {"buffers": list(self._buffers.values())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the momenta."""
        for buffer, saved in zip(self._buffers.values(), state["buffers"], strict=True):
            buffer.copy_(saved)


def orthogonalise(matrices_NRC: Tensor) -> Tensor:
    """Return matrices whose singular values all lie near 1 (0.7 to 1.2), same shape.

    A Newton-Schulz iteration on the shorter side; the singular vectors stay what they were.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x = matrices_NRC.mT if is_tall else matrices_NRC
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPSILON)
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x
