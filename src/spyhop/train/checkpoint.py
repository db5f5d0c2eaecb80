"""Resumable checkpoints: written aside and renamed, so the last good one always loads."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spyhop.lazy import Lazy
from spyhop.train.optimizer import AnyOptimizer

if TYPE_CHECKING:
    import torch
else:
    torch = Lazy("torch")

FILE = "checkpoint.pt"


@dataclass(slots=True)
class Position:
    """How far training has come."""

    step: int = 0
    """Steps that are finished."""
    tokens: int = 0
    """Prompt and response tokens seen, padding left out."""
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    """Mean loss per target token of every step."""


def save_checkpoint(
    folder: Path,
    model: Any,  # noqa: ANN401 (transformers' type)
    optimizers: list[AnyOptimizer],
    position: Position,
) -> None:
    """Write weights, optimiser state, randomness and position."""
    aside = folder / f"{FILE}.tmp"
    state = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "random": torch.get_rng_state(),
        "step": position.step,
        "tokens": position.tokens,
        "seconds": position.seconds,
        "losses": position.losses,
    }
    with aside.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(folder / FILE)


def load_checkpoint(folder: Path, model: Any, optimizers: list[AnyOptimizer]) -> Position:  # noqa: ANN401
    """Restore everything in place and return the position; a fresh one where nothing was saved."""
    path = folder / FILE
    if not path.is_file():
        return Position()
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    torch.set_rng_state(state["random"])
    return Position(state["step"], state["tokens"], state["seconds"], state["losses"])
