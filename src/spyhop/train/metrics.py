"""Per-step metrics: a line of JSON each; TensorBoard and Weights & Biases on request."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from time import monotonic
from uuid import uuid4

from spyhop.lazy import Lazy, tensorboard, torch
from spyhop.runtime import Runtime
from spyhop.schema import TrainingError
from spyhop.stage import REPORT_S
from spyhop.train.checkpoint import Position
from spyhop.train.cost import peak_flops

wandb = Lazy("wandb")

FILE = "steps.jsonl"
BOARD = "tensorboard"
WANDB_ID = "wandb_id"
"""In the stage's state: the run that a resumed training continues."""
RECENT = 20
"""Steps that speeds are taken over."""


class StepMeter:
    """Writes the metrics of every step into a folder that outlives a kill.

    After a resume the file continues where the checkpoint was taken, as do the trackers' runs.
    """

    def __init__(
        self,
        folder: Path,
        runtime: Runtime,
        device: torch.device,
        num_steps: int,
        flops_per_token: float,
        position: Position,
    ) -> None:
        self._position, self._num_steps, self._device = position, num_steps, device
        peak = peak_flops(runtime, device)
        self._mfu_of_rate = flops_per_token / (peak * runtime.gpus) if peak else None
        path = folder / FILE
        path.touch()
        self._stream = path.open("r+b")
        self._stream.truncate(position.logged_bytes)
        self._stream.seek(position.logged_bytes)
        self._flushed = 0.0
        self._recent = [(monotonic(), position.tokens, position.terms)]
        self._board = self._run = None
        if "tensorboard" in runtime.track:
            self._board = tensorboard.SummaryWriter(folder / BOARD, purge_step=position.step)
        if "wandb" in runtime.track:
            run_id = folder / WANDB_ID
            if not run_id.is_file():
                run_id.write_text(uuid4().hex)
            self._run = wandb.init(
                project="spyhop", dir=folder, id=run_id.read_text(), resume="allow"
            )

    def add(self, loss: float, norm: float, rate: float, metrics: Mapping[str, float]) -> None:
        """Write the metrics of the step that just ended."""
        position = self._position
        now = monotonic()
        self._recent = [*self._recent, (now, position.tokens, position.terms)][-RECENT - 1 :]
        then, tokens, terms = self._recent[0]
        seconds = max(now - then, 1e-9)
        tokens_per_s = (position.tokens - tokens) / seconds
        left = (self._num_steps - position.step) * seconds / max(1, len(self._recent) - 1)
        values = {
            "loss": loss,
            "gradient_norm": norm,
            "learning_rate": rate,
            "tokens": position.tokens,
            "tokens_per_s": round(tokens_per_s, 1),
            "terms_per_s": round((position.terms - terms) / seconds, 1),
            "memory_bytes": memory_bytes(self._device),
            "eta_s": round(left, 1),
            **metrics,
        }
        if self._mfu_of_rate:
            values["mfu_frac"] = round(tokens_per_s * self._mfu_of_rate, 4)
        self._write(values)

    def add_held_out(self, loss: float, metrics: Mapping[str, float]) -> None:
        """Write a held-out loss, and the objective's further metrics."""
        found = {"loss": loss, **metrics}
        self._write({f"held_out_{name}": value for name, value in found.items()})

    def _write(self, values: dict[str, float]) -> None:
        position = self._position
        plain = {name: value if isfinite(value) else None for name, value in values.items()}
        line = json.dumps({"step": position.step, **plain}).encode() + b"\n"
        self._stream.write(line)
        position.logged_bytes += len(line)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, position.step)
        if self._run is not None:
            self._run.log(values, step=position.step)
        if (now := monotonic()) - self._flushed > REPORT_S:
            self.flush()
            self._flushed = now

    def flush(self) -> None:
        """Let readers, and a checkpoint, rely on what was written."""
        self._stream.flush()
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """End all files."""
        self._stream.close()
        if self._board is not None:
            self._board.close()
        if self._run is not None:
            self._run.finish()


def check_trackers(runtime: Runtime) -> None:
    """Refuse a tracker whose library is not installed, before anything else is done."""
    for name in runtime.track:
        if find_spec(name) is None:
            raise TrainingError(f"runtime.track names {name}: pip install {name}, or remove it")


def memory_bytes(device: torch.device) -> int:
    """Return the most memory that was taken so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
