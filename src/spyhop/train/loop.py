"""The training loop, the same on one process or many: batch, microbatches, gradient, step.

The metrics of every step are a line of JSON each; TensorBoard and Weights & Biases on request.
"""

from __future__ import annotations

import ctypes
import json
import math
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from spyhop.lazy import Lazy, tensorboard, torch
from spyhop.runtime import Runtime
from spyhop.schema import TrainingError
from spyhop.stage import REPORT_S, Progress
from spyhop.store.artifact import LOGS
from spyhop.train.base import METRICS, open_student, save_student
from spyhop.train.batches import RowNumbers
from spyhop.train.checkpoint import Checkpoints, Position
from spyhop.train.config import TuneConfig, WatchConfig
from spyhop.train.cost import peak_flops, shape_of
from spyhop.train.distributed import Group
from spyhop.train.engine import Engine, TrainingResult
from spyhop.train.objective import CrossEntropy, Objective
from spyhop.train.optimizer import clip_gradient, make_optimizers, rate_factor
from spyhop.train.rows import TokenRows

wandb = Lazy("wandb")

FILE, SPEED = "steps.jsonl", "speed.json"
BOARD = "tensorboard"
WANDB_ID = "wandb_id"
"""In the stage's state: the run that a resumed training continues."""
RECENT = 20
"""Steps that speeds are taken over."""
SNAPSHOTS = "snapshots"
FEWEST_NORMS = 10
"""Steps before a gradient norm can count as a spike."""
KEPT_NORMS = 100
SHOWN_STEPS = 50
"""The shown loss is the mean over this many steps."""
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Options of glibc's `mallopt`; other libraries have no such function."""

Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One training: everything that a process needs to run its rank."""

    config: TuneConfig
    runtime: Runtime
    base: Path
    state: Path
    out: Path
    rows: TokenRows
    steps: list[RowNumbers]
    """Rows of every global batch."""
    held_out: RowNumbers
    """Validation rows (held-out loss only)."""
    objective: Callable[[TokenRows], Objective] = CrossEntropy


def train(job: TrainingJob, group: Group, report: Report) -> TrainingResult:
    """Train from the last checkpoint, or from the start, to the end; write the result to `out`.

    All processes of a group call this together; the first one writes.
    """
    torch.set_num_threads(job.runtime.threads)
    trainer = Trainer(job, group, report)
    with kept_memory(), closing(trainer.meter) if trainer.meter else nullcontext():
        trainer.run()
    save_student(job.out, trainer.student, group)
    trainer.write_metrics()
    return trainer.outcome


class Trainer:
    """The state of one training in one process."""

    def __init__(self, job: TrainingJob, group: Group, report: Report) -> None:
        self.job, self.group, self.report = job, group, report
        config, self.outcome = job.config, TrainingResult()
        device = group.device if group.size == 1 else torch.device("cpu")  # before it is spread
        self.student = open_student(job.base, config, device, is_empty=group.rank > 0)
        flops = shape_of(self.student.causal).flops_per_token(float(job.rows.lengths.mean()))
        self.objective = job.objective(job.rows)
        self.engine = Engine(
            self.objective, self.student, group, job.runtime, self.outcome,
            precision=config.precision, longest=int(job.rows.lengths.max()),
        )  # fmt: skip
        self.optimizers = make_optimizers(self.student.model, config.optimizer)
        torch.manual_seed(config.seed + group.rank)
        self.checkpoints = Checkpoints(
            job.state, self.student.model, self.optimizers, group, self.outcome.notices.append
        )
        self.position = self.checkpoints.load()
        self.meter = None
        if group.rank == 0:
            self.meter = StepMeter(
                job.state, job.runtime, group.device, len(job.steps), flops, self.position
            )

    def run(self) -> None:
        """Go through the remaining steps."""
        steps, position, config = self.job.steps, self.position, self.job.config
        snapshots = {
            f"at-{share:g}": max(1, round(share * len(steps))) for share in config.snapshots
        }
        times = config.held_out.times if len(self.job.held_out) else 0
        evaluations = {max(1, round(len(steps) * (n + 1) / times)) for n in range(times)}
        self.student.model.train()
        began = saved = shown = time.monotonic()
        before = position.seconds
        if evaluations and not position.held_out:
            self._evaluate()  # of the base
        while position.step < len(steps) and not position.is_over:
            self._step(steps[position.step])
            now = time.monotonic()
            position.seconds = before + now - began
            for name in [name for name, step in snapshots.items() if step == position.step]:
                save_student(self.job.state / SNAPSHOTS / name, self.student, self.group)
            if position.step in evaluations:
                self._evaluate()
            if self.group.tell(now - saved > self.job.runtime.checkpoint_s):
                if self.meter:
                    self.meter.flush()
                self.checkpoints.save(position)
                saved = now
            if now - shown > 0.2:
                self._show()
                shown = now
        self._show()
        if missed := [name for name, step in snapshots.items() if step > position.step]:
            self.outcome.notices.append(f"stopped early, before the snapshots {', '.join(missed)}")
        if config.held_out.keep == "best" and position.held_out:
            self.checkpoints.load_best()
        self.student.model.eval()

    def _step(self, batch: RowNumbers) -> None:
        position, config = self.position, self.job.config
        factor = rate_factor(config.optimizer, position.step, len(self.job.steps))
        for group in (each for optimizer in self.optimizers for each in optimizer.param_groups):
            group["lr"] = group["peak"] * factor
        batch = self.objective.begin_step(batch, self.student.model)
        loss, num_terms, metrics = self.engine.gradient(batch)
        norm = clip_gradient(self.student.model, config.optimizer.clip)
        taken = should_step(
            config.watch, position, loss=loss, norm=norm, num_terms=num_terms, rate=factor,
            num_steps=len(self.job.steps),
        )  # fmt: skip
        for optimizer in self.optimizers:
            if taken:
                optimizer.step()
            optimizer.zero_grad()
        position.step += 1
        position.tokens += int(self.objective.lengths(batch).sum())
        position.terms += num_terms
        if taken:
            position.losses.append(loss)
            for name, value in metrics.items():
                position.metrics.setdefault(name, []).append(value)
        if self.meter:
            self.meter.add(loss, norm, self.optimizers[0].param_groups[0]["lr"], metrics)

    def _evaluate(self) -> None:
        position, settings = self.position, self.job.config.held_out
        rows = self.objective.begin_step(self.job.held_out, self.student.model)
        loss, metrics = self.engine.loss(rows)
        self.student.model.train()
        is_best = all(loss < other for _, other in position.held_out)
        position.held_out.append((position.step, loss))
        position.stale = 0 if is_best else position.stale + 1
        if is_best and settings.keep == "best":
            self.checkpoints.save_best(position.step)
        if settings.patience is not None and position.stale >= settings.patience:
            position.is_over = True
        if self.meter:
            self.meter.add_held_out(loss, metrics)

    def _show(self) -> None:
        position = self.position
        rate = position.tokens / max(position.seconds, 1e-9)
        recent = position.losses[-SHOWN_STEPS:]
        note = f"loss {sum(recent) / max(1, len(recent)):.3f}, {rate:,.0f} tokens/s, "
        note += f"{position.terms:,.0f} {self.objective.terms.replace('_', ' ')} so far"
        if position.held_out:
            note += f", held out {position.held_out[-1][1]:.3f}"
        self.report(Progress("training", position.step, len(self.job.steps), "steps", note=note))

    def write_metrics(self) -> None:
        """Write losses and tokens beside the weights, and times to the logs."""
        position, counts = self.position, self.outcome.counts
        counts |= {"tokens": position.tokens, "steps": position.step}
        counts[self.objective.terms] = round(position.terms)
        counts |= {f"steps/{name}": num for name, num in position.anomalies.items()}
        if self.group.rank:
            return
        optimizer = self.job.config.optimizer
        metrics: dict[str, Any] = {
            "steps": position.step, "tokens": position.tokens, "losses": position.losses,
            "learning_rate": optimizer.learning_rate, "warmup_steps": optimizer.warmup_steps,
            "precision": self.job.config.precision,
        }  # fmt: skip
        if position.held_out:
            metrics["held_out"] = position.held_out
        if position.metrics:
            metrics["metrics"] = position.metrics
        (self.job.out / METRICS).write_text(json.dumps(metrics))
        logs = self.job.out / LOGS
        logs.mkdir()
        speed = {"seconds": position.seconds, "tokens_per_s": position.tokens / position.seconds}
        (logs / SPEED).write_text(json.dumps(speed))
        shutil.copy(self.job.state / FILE, logs / FILE)  # after a kill, the next run needs it there
        if (self.job.state / BOARD).is_dir():
            shutil.copytree(self.job.state / BOARD, logs / BOARD)


def should_step(
    config: WatchConfig,
    position: Position,
    *,
    loss: float,
    norm: float,
    num_terms: float,
    rate: float,
    num_steps: int,
) -> bool:
    """Return whether to update the weights; anomalies are counted in `position.anomalies`.

    `norm` is that of the gradient, `rate` the learning rate as a share of its peak.
    """
    usual = median(position.norms) if len(position.norms) >= FEWEST_NORMS else math.inf
    if math.isfinite(norm):
        position.norms = [*position.norms, norm][-KEPT_NORMS:]
    if num_terms == 0:
        name, reason, action = "no_targets", "no token of the batch is supervised", "skip"
    elif rate <= 0:
        name, reason, action = "rate_0", "the learning rate is 0", "skip"
    elif not (math.isfinite(loss) and math.isfinite(norm)):
        name, reason = "not_finite", f"loss {loss}, gradient norm {norm}"
        action = config.not_finite
    elif norm > config.spike_factor * usual:
        name, reason = "spike", f"gradient norm {norm:.3g}, usually {usual:.3g}"
        action = config.spike
    else:
        position.skips_in_a_row = 0
        return True
    where = f"step {position.step + 1} of {num_steps}: {reason}"
    if action == "stop":
        raise TrainingError(f"{where}; lower optimizer.learning_rate, or see [watch]")
    name = f"{'skipped' if action == 'skip' else 'noticed'}/{name}"
    position.anomalies[name] = position.anomalies.get(name, 0) + 1
    position.skips_in_a_row = 0 if action == "count" else position.skips_in_a_row + 1
    if position.skips_in_a_row >= config.most_skips:
        raise TrainingError(f"{where}; skipped {config.most_skips} steps in a row")
    return action == "count"


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
        self._recent = [(time.monotonic(), position.tokens, position.terms)]
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
        now = time.monotonic()
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
        plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = json.dumps({"step": position.step, **plain}).encode() + b"\n"
        self._stream.write(line)
        position.logged_bytes += len(line)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, position.step)
        if self._run is not None:
            self._run.log(values, step=position.step)
        if (now := time.monotonic()) - self._flushed > REPORT_S:
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


@contextmanager
def kept_memory() -> Iterator[None]:
    """Allocate from one heap that only grows; return its free pages at the end.

    Each step frees and requests the same gigabytes. By default glibc returns large blocks to the
    kernel, which then has to clear their pages again: about a tenth of a step's time.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):
        yield
        return
    for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, 64 << 20)):
        library.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in ((MMAP_MAX, 1 << 16), (TRIM_THRESHOLD, 1 << 17), (TOP_PAD, 1 << 17)):
            library.mallopt(option, value)
        library.malloc_trim(0)
