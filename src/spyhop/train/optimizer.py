"""Optimisers and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from spyhop.lazy import CausalLM, Tensor, torch
from spyhop.schema import Config

RATE, ADAPTER_RATE = 1e-4, 1e-3
"""Default peaks of AdamW for all weights and for low-rank adapters (ADR 0024)."""
PAIRS_FRAC = 0.05
"""Default peak on preferences, as a share of that on answers (ADR 0029)."""
LONG_STEPS = 1_000
"""Beyond this many steps the default peak falls with the square root of their number."""
MUON_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of Muon's quintic iteration: steepest at zero, so that small singular values grow fastest."""
MUON_ITERATIONS = 5
MUON_EPSILON = 1e-7

Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Config):
    """AdamW, with Muon for hidden matrices where `muon_learning_rate` is set."""

    learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of AdamW. Default: 1e-4 for all weights, 1e-3 for adapters; on
    preferences 5 % of that; beyond 1,000 steps, times the square root of 1,000 / steps."""
    muon_learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of Muon. Default: AdamW for all parameters."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    """AdamW's decay rates of the first and second moment."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    warmup_steps: int | None = Field(None, ge=0)
    """Steps of linear warm-up. Default: 5 % of the steps, at least 10, at most a fifth of them."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Decay of the learning rate after the warm-up."""
    final_frac: float = Field(0.0, ge=0, le=1)
    """Learning rate of the last step as a share of the peak."""
    clip: float | None = Field(1.0, gt=0)
    """Maximum norm of the whole gradient; larger gradients are scaled down."""


def with_defaults(
    config: OptimizerConfig, num_steps: int, *, is_adapter: bool, has_pairs: bool = False
) -> OptimizerConfig:
    """Return the settings with the peak and the warm-up of a training of this many steps."""
    peak = (ADAPTER_RATE if is_adapter else RATE) * min(1.0, math.sqrt(LONG_STEPS / num_steps))
    peak *= PAIRS_FRAC if has_pairs else 1
    warmup = min(max(10, round(num_steps / 20)), num_steps // 5)
    defaults = {"learning_rate": float(f"{peak:.2g}"), "warmup_steps": warmup}
    given = config.model_dump(include=set(defaults), exclude_none=True)
    return config.model_copy(update=defaults | given)


def make_optimizers(model: CausalLM, config: OptimizerConfig) -> list[Any]:
    """Return AdamW, or Muon for the matrices of the blocks and AdamW for the rest.

    Embeddings, the output head, norms and biases always go to AdamW: Muon orthogonalises its
    update, which has a meaning for maps between hidden states only.
    """
    assert config.learning_rate is not None  # see `with_defaults`
    tables = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    outer = {id(table.weight) for table in [*tables, model.get_output_embeddings()]}
    inner: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for parameter in model.parameters():
        is_hidden = parameter.ndim == 2 and id(parameter) not in outer
        (inner if is_hidden and config.muon_learning_rate is not None else rest).append(parameter)
    adam = torch.optim.AdamW(
        rest, fused=True, lr=config.learning_rate, betas=config.betas,
        weight_decay=config.weight_decay,
    )  # fmt: skip
    optimizers: list[Any] = [adam]
    if (rate := config.muon_learning_rate) is not None:
        optimizers.append(Muon(inner, lr=rate, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def rate_factor(config: OptimizerConfig, step: int, num_steps: int) -> float:
    """Return the share of the peak rate at a step (0-based)."""
    warmup = config.warmup_steps or 0
    if step < warmup:
        return (step + 1) / warmup
    is_reached = config.final_frac > 0  # a rate of 0 would waste the last step
    progress = min(1.0, (step - warmup) / max(1, num_steps - warmup - is_reached))
    falling = {
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "linear": 1 - progress,
        "constant": 1.0,
    }[config.schedule]
    return config.final_frac + (1 - config.final_frac) * falling


def clip_gradient(model: torch.nn.Module, limit: float | None) -> float:
    """Scale the gradient down to `limit` and return its norm before."""
    bound = float("inf") if limit is None else limit
    return float(torch.nn.utils.clip_grad_norm_(model.parameters(), bound))


class Muon:
    """Momentum whose update is replaced by the nearest orthogonal matrix; float32 throughout.

    It has the part of an optimiser's interface that training needs. Matrices of one shape are
    orthogonalised together: one by one, as in `torch.optim.Muon`, this takes more than a third of a
    training step for students of a few hundred thousand parameters (`benchmarks/muon.py`).

    Source: Jordan et al. (2024), https://kellerjordan.github.io/posts/muon
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
    a, b, c = MUON_COEFFICIENTS
    is_tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x = matrices_NRC.mT if is_tall else matrices_NRC
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=MUON_EPSILON)
    for _ in range(MUON_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x
