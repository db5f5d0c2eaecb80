"""Resumable checkpoints: written aside and renamed, so the last good one always loads.

One process writes one file; several write a folder of shards together (PyTorch's distributed
checkpoint), which another number of processes can read.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spyhop.lazy import shard_api, shard_reader, shard_writer, torch, whole
from spyhop.store import atomic_write
from spyhop.store.atomic import remove
from spyhop.train.distributed import Group
from spyhop.train.tensors import digest_file

CHECKPOINT, BEST = "checkpoint", "best"
KEPT = 2
DIGEST_CHARS = 16
DIGESTS = "digests.json"
"""In a folder of shards: the SHA-256 of each file."""


@dataclass(slots=True)
class Position:
    """How far training has come."""

    step: int = 0
    """Steps that are finished."""
    tokens: int = 0
    """Prompt and response tokens seen, without padding."""
    terms: float = 0
    """Terms of the loss: supervised tokens, for cross-entropy."""
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    """Mean loss per term of every step that was taken."""
    metrics: dict[str, list[float]] = field(default_factory=dict)
    """Further metrics of the objective, of the same steps."""
    norms: list[float] = field(default_factory=list)
    """Gradient norms of the last steps, before clipping."""
    anomalies: dict[str, int] = field(default_factory=dict)
    """Steps that a watchdog noticed or skipped, by reason."""
    skips_in_a_row: int = 0
    held_out: list[tuple[int, float]] = field(default_factory=list)
    """Step and held-out loss of every evaluation."""
    stale: int = 0
    """Evaluations since the lowest held-out loss."""
    is_over: bool = False
    """Stopped early."""
    logged_bytes: int = 0
    """Of the metrics file."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where the state of one training is kept.

    The last two checkpoints are kept, each with its digest (G14): where the newer one is damaged,
    training continues from the one before.
    """

    folder: Path
    model: Any
    optimizers: list[Any]
    group: Group
    log: Callable[[str], None]

    def save(self, position: Position) -> None:
        """Write weights, optimiser state, randomness and position.

        Raises:
            OSError: If the disk is full; the checkpoint before is untouched, and half a new one is
                gone.
        """
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        self._save(CHECKPOINT, position.step, {"position": asdict(position), "random": random})

    def load(self) -> Position:
        """Restore everything in place and return the position; a fresh one where there is none."""
        about = self._load(CHECKPOINT)
        if about is None:
            return Position()
        torch.set_rng_state(about["random"]["cpu"])
        if "cuda" in about["random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(about["random"]["cuda"])
        return Position(**about["position"])

    def save_best(self, step: int) -> None:
        """Keep the weights as they are: no held-out loss was lower."""
        self._save(BEST, step, {})

    def load_best(self) -> None:
        """Put the weights back that `save_best` kept last; the present ones where none is whole."""
        self._load(BEST)

    def _save(self, kind: str, step: int, about: dict[str, Any]) -> None:
        path = self.folder / f"{kind}-{step:09d}"
        if self.group.size > 1:
            self._save_shards(path, kind, about)
        else:
            state = {"model": self.model.state_dict(), **about}
            if kind == CHECKPOINT:
                state["optimizers"] = [each.state_dict() for each in self.optimizers]
            whole_file = path.with_suffix(".pt")
            _write(whole_file, state)
            start = digest_file(whole_file)[:DIGEST_CHARS]
            whole_file.replace(path.with_name(f"{path.name}-{start}.pt"))
        for old in self._kept(kind)[KEPT:] if self.group.rank == 0 else ():
            remove(old)

    def _load(self, kind: str) -> dict[str, Any] | None:
        """Restore the newest state in place and return the rest of it; None where there is none."""
        path = self._newest(kind)
        if path is None:
            return None
        if self.group.size == 1:
            about: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(about.get("model", about))  # BEST once was weights alone
            for optimizer, saved in zip(self.optimizers, about.get("optimizers", ()), strict=False):
                optimizer.load_state_dict(saved)
            return about
        state = self._shards(kind)
        shard_reader.load(state, checkpoint_id=path)
        whole.set_model_state_dict(self.model, state["model"])
        if kind == BEST:
            return {}
        whole.set_optimizer_state_dict(self.model, self.optimizers, state["optimizer"])
        own = path / f"rank-{self.group.rank}.pt"
        own = own if own.is_file() else path / "rank-0.pt"
        return dict(torch.load(own, map_location="cpu", weights_only=True))

    def _kept(self, kind: str) -> list[Path]:
        """Return the whole checkpoints' paths, the newest first."""
        pattern = f"{kind}-*-*.pt" if self.group.size == 1 else f"{kind}-*[0-9]"
        return sorted(self.folder.glob(pattern), reverse=True)

    def _newest(self, kind: str) -> Path | None:
        """Return the newest checkpoint whose content is what was written; log the damaged ones."""
        kept = self._kept(kind) if self.group.rank == 0 else []
        while kept and not _is_intact(kept[0]):
            damaged = kept.pop(0)
            self.log(f"{damaged.name} is damaged (its content is not what was written); deleted")
            remove(damaged)
        chosen: Path | None = self.group.tell(next(iter(kept), None))
        return chosen

    def _shards(self, kind: str) -> dict[str, Any]:
        state: dict[str, Any] = {"model": whole.get_model_state_dict(self.model)}
        if kind == CHECKPOINT:
            state["optimizer"] = whole.get_optimizer_state_dict(self.model, self.optimizers)
        return state

    def _save_shards(self, folder: Path, kind: str, about: dict[str, Any]) -> None:
        aside = folder.with_name(f"{folder.name}.tmp")
        if self.group.rank == 0:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
        self.group.wait()
        try:
            shard_writer.save(self._shards(kind), checkpoint_id=aside)
            if about:
                _write(aside / f"rank-{self.group.rank}.pt", about)
        except (shard_api.CheckpointException, OSError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise _first_cause(error) from None
        self.group.wait()
        if self.group.rank == 0:
            digests = {path.name: digest_file(path) for path in aside.iterdir()}
            (aside / DIGESTS).write_text(json.dumps(digests))
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
            aside.replace(folder)
        self.group.wait()


def _is_intact(path: Path) -> bool:
    if path.is_file():
        return digest_file(path).startswith(path.stem.rpartition("-")[2])
    try:
        digests = json.loads((path / DIGESTS).read_bytes())
        return all(digest_file(path / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def _write(path: Path, state: Any) -> None:  # noqa: ANN401 (whatever torch.save takes)
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        torch.save(state, stream)  # to a path, a full disk would be a RuntimeError


def _first_cause(error: Any) -> Exception:  # noqa: ANN401 (PyTorch's)
    """Return the error of the first process that failed."""
    if isinstance(error, OSError):
        return error
    _, (cause, _) = min(error.failures.items())
    if "inline_container" in str(cause):  # PyTorch's writer hides why a write failed
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return cause if isinstance(cause, Exception) else OSError(str(cause))
