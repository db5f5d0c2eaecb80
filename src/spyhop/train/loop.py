"""The loop: a global batch, its passes, one gradient, one step; the same on one process or many."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np

from spyhop.lazy import Lazy
from spyhop.runtime import Runtime
from spyhop.schema import TrainingError
from spyhop.stage import Progress
from spyhop.store.artifact import LOGS
from spyhop.train.attention import documents, isolate
from spyhop.train.base import LoadedBase, open_student, save_student
from spyhop.train.batches import RowNumbers, shard_microbatches, split_microbatches
from spyhop.train.checkpoint import Checkpoints
from spyhop.train.config import TuneConfig
from spyhop.train.cost import shape_of
from spyhop.train.distributed import Group, shard
from spyhop.train.loss import Microbatch, has_plain_head, microbatch_loss
from spyhop.train.metrics import BOARD, FILE, StepMeter
from spyhop.train.optimizer import (
    clip_gradient,
    make_optimizers,
    rate_factor,
    set_rate,
)
from spyhop.train.pack import best_fit
from spyhop.train.rows import TokenRows
from spyhop.train.watch import StepVerdict, should_step

if TYPE_CHECKING:
    import torch
else:
    torch = Lazy("torch")

METRICS = "metrics.json"
SPEED = "speed.json"
SNAPSHOTS = "snapshots"
OPTIMIZER = "optimizer.pt"
METHOD = "spyhop_loss"
SHOWN_STEPS = 50
"""Steps that the shown loss is the mean of."""

Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One training: all that a process needs to take its part."""

    config: TuneConfig
    runtime: Runtime
    base: Path
    state: Path
    out: Path
    rows: TokenRows
    steps: list[RowNumbers]
    """Rows of every global batch."""
    held_out: RowNumbers
    """Rows whose loss is only looked at."""


@dataclass(slots=True)
class TrainingResult:
    """What a training came to, besides the files in `out`."""

    counts: dict[str, int] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def train(job: TrainingJob, group: Group, report: Report) -> TrainingResult:
    """Train from the last checkpoint, or from the start, to the end; write the result to `out`.

    All processes of a group call this together; the first one writes.
    """
    torch.set_num_threads(job.runtime.threads)
    device = group.device if group.size == 1 else torch.device("cpu")  # before it is spread
    student = open_student(job.base, job.config, device, is_empty=group.rank > 0)
    outcome = TrainingResult()
    trainer = Trainer(job, group, student, report, outcome)
    trainer.run()
    save_student(job.out, student, group)
    if job.config.keep_optimizer:
        trainer.keep_optimizer()
    trainer.write_metrics()
    return outcome


class Trainer:
    """The state of one training in one process."""

    def __init__(
        self,
        job: TrainingJob,
        group: Group,
        student: LoadedBase,
        report: Report,
        outcome: TrainingResult,
    ) -> None:
        self.job, self.group, self.student = job, group, student
        self.report, self.outcome = report, outcome
        self.shape = shape_of(student.causal)
        self.engine = Engine.of(job, group, student, outcome)
        config = job.config
        self.optimizers = make_optimizers(student.model, config.optimizer)
        torch.manual_seed(config.seed + group.rank)
        if config.continue_optimizer:
            self._continue(job.base / OPTIMIZER)
        self.checkpoints = Checkpoints(job.state, student.model, self.optimizers, group)
        self.position = self.checkpoints.load()
        mean_tokens = float(self.engine.lengths.mean())
        flops = self.shape.flops_per_token(mean_tokens)
        self.meter = StepMeter(job.state, job.runtime, group.device, len(job.steps), flops)

    def run(self) -> None:
        """Go through the remaining steps."""
        try:
            if self.group.rank == 0:
                self.meter.open(self.position)
            self._run()
        finally:
            self.meter.close()
        if self.job.config.held_out.keep == "best" and self.position.held_out:
            self.checkpoints.load_best()
        self.student.model.eval()

    def _run(self) -> None:
        steps, position = self.job.steps, self.position
        snapshots, evaluations = self._snapshots(), self._evaluations()
        self.student.model.train()
        began = saved = shown = time.monotonic()
        before = position.seconds
        while position.step < len(steps) and not position.is_over:
            self._step(steps[position.step])
            now = time.monotonic()
            position.seconds = before + now - began
            for name in snapshots.get(position.step, []):
                place = self.job.state / SNAPSHOTS / name
                save_student(place, self.student, self.group)
            if position.step in evaluations:
                self._evaluate()
            if self.group.tell(now - saved > self.job.runtime.checkpoint_s):
                if self.group.rank == 0:
                    self.meter.flush()
                self.checkpoints.save(position)
                saved = now
            if now - shown > 0.2:
                self._show()
                shown = now
        self._show()
        if missed := [
            name for step in snapshots if step > position.step for name in snapshots[step]
        ]:
            self.outcome.notices.append(f"stopped early, before the snapshots {', '.join(missed)}")

    def _step(self, batch: RowNumbers) -> None:
        position, config = self.position, self.job.config
        factor = rate_factor(config.optimizer, position.step, len(self.job.steps))
        set_rate(self.optimizers, factor)
        loss, num_targets = self.engine.gradient(batch)
        norm = clip_gradient(self.student.model, config.optimizer.clip)
        step = StepVerdict(position.step + 1, len(self.job.steps), loss, norm, num_targets, factor)
        taken = should_step(step, config.watch, position)
        for optimizer in self.optimizers:
            if taken:
                optimizer.step()
            optimizer.zero_grad()
        position.step += 1
        position.tokens += int(self.engine.lengths[batch].sum())
        position.targets += num_targets
        if taken:
            position.losses.append(loss)
        if self.group.rank == 0:
            rate = factor * config.optimizer.learning_rate
            self.meter.add(position, loss, norm, rate)

    def _evaluate(self) -> None:
        position, settings = self.position, self.job.config.held_out
        loss = self.engine.loss(self.job.held_out)
        self.student.model.train()
        is_best = all(loss < other for _, other in position.held_out)
        position.held_out.append((position.step, loss))
        position.stale = 0 if is_best else position.stale + 1
        if is_best and settings.keep == "best":
            self.checkpoints.save_best(position.step)
        if settings.patience is not None and position.stale >= settings.patience:
            position.is_over = True
        if self.group.rank == 0:
            self.meter.add_held_out(position, loss)

    def _snapshots(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for share in self.job.config.snapshots:
            step = max(1, round(share * len(self.job.steps)))
            found.setdefault(step, []).append(f"at-{share:g}")
        return found

    def _evaluations(self) -> frozenset[int]:
        if not len(self.job.held_out):
            return frozenset()
        times, num = self.job.config.held_out.times, len(self.job.steps)
        return frozenset(max(1, round(num * place / times)) for place in range(1, times + 1))

    def _show(self) -> None:
        position = self.position
        rate = position.tokens / max(position.seconds, 1e-9)
        recent = position.losses[-SHOWN_STEPS:]
        note = f"loss {sum(recent) / max(1, len(recent)):.3f}, {rate:,.0f} tokens/s"
        if position.held_out:
            note += f", held out {position.held_out[-1][1]:.3f}"
        self.report(Progress("training", position.step, len(self.job.steps), "steps", note=note))

    def _continue(self, path: Path) -> None:
        if self.group.size > 1:
            raise TrainingError("continue_optimizer works in one process; set runtime.gpus = 1")
        if not path.is_file():
            raise TrainingError(
                f"continue_optimizer: {path} is not there; train the base with keep_optimizer"
            )
        states = torch.load(path, map_location="cpu", weights_only=True)
        for optimizer, state in zip(self.optimizers, states, strict=True):
            peaks = [group["peak"] for group in optimizer.param_groups]
            optimizer.load_state_dict(state)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["peak"] = peak  # the rates are this training's own

    def keep_optimizer(self) -> None:
        """Write the optimisers' states beside the weights."""
        if self.group.size > 1:
            raise TrainingError("keep_optimizer works in one process; set runtime.gpus = 1")
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        torch.save(states, self.job.out / OPTIMIZER)

    def write_metrics(self) -> None:
        """Write losses and tokens beside the weights; what the clock says goes to the logs."""
        position, counts = self.position, self.outcome.counts
        counts |= {"tokens": position.tokens, "steps": position.step}
        counts |= {f"steps/{name}": num for name, num in position.anomalies.items()}
        if self.group.rank:
            return
        metrics: dict[str, Any] = {
            "steps": position.step, "tokens": position.tokens, "losses": position.losses
        }  # fmt: skip
        if position.held_out:
            metrics["held_out"] = position.held_out
        (self.job.out / METRICS).write_text(json.dumps(metrics))
        logs = self.job.out / LOGS
        logs.mkdir()
        speed = {"seconds": position.seconds, "tokens_per_s": position.tokens / position.seconds}
        (logs / SPEED).write_text(json.dumps(speed))
        shutil.copy(self.job.state / FILE, logs / FILE)  # a kill from here on must find it there
        if (self.job.state / BOARD).is_dir():
            shutil.copytree(self.job.state / BOARD, logs / BOARD)


@dataclass(slots=True)
class Engine:
    """From rows to a gradient (G6): whatever they are cut into, and whoever takes them."""

    model: Any
    """What has the trained parameters."""
    causal: Any
    rows: TokenRows
    lengths: RowNumbers
    group: Group
    microbatch_tokens: int
    is_packed: bool
    one_loss: Callable[[Microbatch, float], Any]
    num_targets: Any
    """Of every row: (number of rows,) int64."""

    @classmethod
    def of(
        cls, job: TrainingJob, group: Group, student: LoadedBase, outcome: TrainingResult
    ) -> Engine:
        """Set a student up for its training: packing, sharding, gradient checkpointing."""
        causal, runtime = student.causal, job.runtime
        longest = int(job.rows.lengths.max())
        is_plain = group.tell(group.rank == 0 and has_plain_head(causal))
        is_half = job.config.precision == "bfloat16"
        if runtime.gradient_checkpointing:
            enable = getattr(causal, "activation_checkpointing_enable", None)
            (enable or causal.gradient_checkpointing_enable)()
        arguments = {"head_is_plain": is_plain, "dtype": torch.bfloat16 if is_half else None}
        if group.size == 1:
            one_loss: Any = partial(microbatch_loss, causal, **arguments)
        else:
            setattr(causal, METHOD, MethodType(partial_method(arguments), causal))
            shard(causal, student.model, group, is_half=is_half, method=METHOD)
            one_loss = getattr(causal, METHOD)
        with _computing(job.config, group):
            is_packed = _can_pack(causal, runtime, group.device, longest, outcome)
        return cls(
            student.model, causal, job.rows, job.rows.lengths, group, runtime.microbatch_tokens,
            is_packed, one_loss, count_targets(job.rows),
        )  # fmt: skip

    def gradient(self, batch: RowNumbers) -> tuple[float, int]:
        """Add the gradient of a batch's mean loss; return that loss and the number of targets."""
        num_targets = int(self.num_targets[batch].sum())
        weight = self.group.size / max(1, num_targets)  # FSDP takes the mean over processes
        total = torch.zeros((), device=self.group.device)
        for microbatch in self._microbatches(batch):
            loss = self.one_loss(microbatch, weight)
            loss.backward()
            total = total + loss.detach()
        return self.group.mean(total), num_targets

    def loss(self, batch: RowNumbers) -> float:
        """Return the mean loss of rows, without dropout."""
        self.model.eval()
        weight = self.group.size / max(1, int(self.num_targets[batch].sum()))
        total = torch.zeros((), device=self.group.device)
        with torch.no_grad():
            for microbatch in self._microbatches(batch):
                total = total + self.one_loss(microbatch, weight)
        return self.group.mean(total)

    def _microbatches(self, batch: RowNumbers) -> Iterator[Microbatch]:
        lengths = self.lengths
        if self.is_packed:
            capacity = max(self.microbatch_tokens, int(lengths[batch].max()))
            packs = best_fit(lengths[batch], capacity)
            microbatches = [batch[packs[place]] for place in range(len(packs))]
        else:
            microbatches = split_microbatches(batch, lengths, self.microbatch_tokens)
        if self.group.size > 1:
            microbatches = shard_microbatches(microbatches, lengths, self.group.size)[
                self.group.rank
            ]
        for microbatch in microbatches:
            is_real = len(microbatch) > 0  # an empty pass keeps the ranks in step
            yield self._tensors(microbatch if is_real else batch[:1], is_real=is_real)

    def _tensors(self, microbatch: RowNumbers, *, is_real: bool) -> Microbatch:
        """Rows end to end, or right-padded: causal attention never looks at the padding."""
        rows, lengths = self.rows, self.lengths[microbatch]
        if self.is_packed:
            shape, firsts = (1, int(lengths.sum())), np.cumsum(lengths) - lengths
        else:
            width = int(lengths.max())
            shape, firsts = (len(microbatch), width), np.arange(len(microbatch)) * width
        ids = np.zeros(shape[0] * shape[1], dtype=np.int64)
        is_next = np.zeros(len(ids), dtype=np.bool_)
        for row, first, length in zip(
            microbatch.tolist(), firsts.tolist(), lengths.tolist(), strict=True
        ):
            start = rows.starts[row]
            ids[first : first + length] = rows.ids[start : start + length]
            is_next[first : first + length - 1] = rows.is_supervised[start + 1 : start + length]
        keep = np.flatnonzero(is_next & is_real)
        device = self.group.device
        inputs: dict[str, Any] = {
            "input_ids": torch.from_numpy(ids.reshape(shape)).to(device), "use_cache": False
        }  # fmt: skip
        if self.is_packed:
            inputs |= documents(self.causal, lengths.tolist())
        targets = torch.from_numpy(ids[keep + 1]).to(device)
        return Microbatch(inputs, torch.from_numpy(keep).to(device), targets)


def _computing(config: TuneConfig, group: Group) -> Any:  # noqa: ANN401 (PyTorch's context)
    on = config.precision == "bfloat16"
    return torch.autocast(group.device.type, torch.bfloat16, enabled=on)


def partial_method(arguments: dict[str, Any]) -> Callable[..., Any]:
    """Return `microbatch_loss` with arguments filled in, as a function that can become a method."""

    def method(model: Any, microbatch: Microbatch, weight: float) -> Any:  # noqa: ANN401
        return microbatch_loss(model, microbatch, weight, **arguments)

    return method


def count_targets(rows: TokenRows) -> Any:  # noqa: ANN401 (numpy)
    """Return the targets of every row; a row's first token has nothing to be predicted from."""
    sums = np.add.reduceat(rows.is_supervised, rows.starts[:-1], dtype=np.int64)
    return sums - rows.is_supervised[rows.starts[:-1]]


def _can_pack(
    causal: Any,  # noqa: ANN401 (transformers' type)
    runtime: Runtime,
    device: torch.device,
    longest: int,
    outcome: TrainingResult,
) -> bool:
    """Pack where it was asked for, or is faster, and the model keeps documents apart (G5)."""
    if runtime.packing == "off" or (runtime.packing == "auto" and device.type != "cuda"):
        return False
    reason = isolate(causal, longest)
    if reason is not None:
        outcome.notices.append(f"trained without packing: {reason}")
        outcome.counts["unpacked"] = 1
    return reason is None
