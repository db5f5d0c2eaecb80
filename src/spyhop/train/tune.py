"""Training: answers in, a Hugging Face folder out; loss on the responses' tokens only.

Source: Orca (arXiv:2306.02707), section 3.2; packing is for GPUs and comes with them: on a
processor length-sorted batches are faster and give the same gradient.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from spyhop.lazy import Lazy
from spyhop.models.local import load, pick_device, saved_format
from spyhop.render import FORMATS, Renderer
from spyhop.schema import Config, TrainingError
from spyhop.stage import FOLDER, Context, Estimate, Progress, stage
from spyhop.store import Artifact
from spyhop.store.artifact import LOGS
from spyhop.train.batches import Rows, plan_batches, split_micro
from spyhop.train.checkpoint import Position, load_checkpoint, save_checkpoint
from spyhop.train.new_model import add_padding, save
from spyhop.train.optimizer import (
    AnyOptimizer,
    OptimizerConfig,
    clip_gradient,
    make_optimizers,
    rate_factor,
    set_rate,
)
from spyhop.train.rows import TokenRows, tokenise

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = Lazy("torch")

METRICS = "metrics.json"
SPEED = "speed.json"
SNAPSHOTS = "snapshots"
LOGITS_BYTES = 4 << 20
"""Logits that are held at once: about what a core has of cache."""
TOKENS_PER_ROW = 200
TOKENS_PER_S = 25_000
"""Planning figures: mean row length where nothing is known, and a 0.1 M model on one core."""


class TuneConfig(Config):
    """How a model is trained. The global batch, precision and seed are identity."""

    tokens: int | None = Field(None, gt=0)
    """Budget in prompt and response tokens; rows repeat until it is met."""
    epochs: float | None = Field(None, gt=0)
    """Budget in passes over the rows. Exactly one of `tokens` and `epochs` is set."""
    shares: tuple[float, ...] | None = None
    """Share of the token budget drawn from each input; None goes by their sizes."""
    batch_tokens: int = Field(16_384, gt=0)
    """Tokens of a global batch (one optimiser step), padding included."""
    max_tokens: int = Field(2048, gt=1)
    """Longest row, in tokens; longer ones, and those that the model's positions cannot hold, are
    dropped whole and counted."""
    optimizer: OptimizerConfig = OptimizerConfig()
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` keeps float32 weights and computes under autocast."""
    format: Literal["saved", "orca", "turns"] = "saved"
    snapshots: tuple[float, ...] = ()
    """Shares of the run after which the weights are also kept, in `snapshots/at-<share>`."""
    seed: int = 0

    @model_validator(mode="after")
    def _one_budget(self) -> TuneConfig:
        if (self.tokens is None) == (self.epochs is None):
            raise ValueError("set exactly one of tokens and epochs")
        if self.shares is not None and (min(self.shares, default=0) < 0 or sum(self.shares) <= 0):
            raise ValueError("shares are 0 or more, and not all 0")
        if any(not 0 < share <= 1 for share in self.snapshots):
            raise ValueError("snapshots are shares of the run, above 0 and up to 1")
        return self


def plan_tune(config: TuneConfig, base: Estimate, answers: list[Estimate]) -> Estimate:
    """Return tokens and seconds, from the budget or from the rows' usual length."""
    rows = sum(answer.rows for answer in answers)
    tokens = config.tokens or int((config.epochs or 0) * rows * TOKENS_PER_ROW)
    return Estimate(trained_tokens=tokens, seconds=tokens / TOKENS_PER_S)


@stage(version=2, writes=FOLDER, plan=plan_tune)
def tune(ctx: Context, config: TuneConfig, *, base: Artifact, answers: list[Artifact]) -> None:
    """Train `base` on the answers and write the result as a Hugging Face folder.

    Guarantees: the loss is the sum over target tokens divided by their number in the global batch
    (G6), so the gradient does not depend on `Runtime.micro_tokens`; a killed run continues from
    its last checkpoint to the same weights, bit by bit on a processor.

    Raises:
        TrainingError: If no row is left, or the loss is not finite.
    """
    torch.set_num_threads(ctx.runtime.threads)
    torch.manual_seed(config.seed)
    device = pick_device(ctx.runtime.device)
    tokenizer, model = load(base.path, torch.float32, device)
    form = saved_format(base.path) if config.format == "saved" else FORMATS[config.format]
    add_padding(tokenizer)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    context = getattr(model.config, "max_position_embeddings", None) or config.max_tokens
    longest = min(config.max_tokens, context)
    rows = tokenise(ctx, answers, Renderer(tokenizer, form), longest)
    batches = plan_batches(
        rows.lengths,
        rows.inputs,
        budgets=_budgets(config, rows),
        batch_tokens=config.batch_tokens,
        seed=config.seed,
    )
    if not batches:
        raise TrainingError("the budget is less than one token; raise tokens or epochs")
    torch.manual_seed(config.seed)
    is_plain = has_plain_head(model)
    optimizers = make_optimizers(model, config.optimizer)
    position = load_checkpoint(ctx.state, model, optimizers)
    trainer = _Trainer(ctx, config, model, optimizers, rows, batches, position, is_plain)
    trainer.run(lambda name: save(ctx.state / SNAPSHOTS / name, model, tokenizer, form))
    save(ctx.out, model, tokenizer, form)
    if config.snapshots:  # links: a kill from here on must find them in the state again
        shutil.copytree(ctx.state / SNAPSHOTS, ctx.out / SNAPSHOTS, copy_function=os.link)
    trainer.write_metrics()


@dataclass(slots=True)
class _Trainer:
    ctx: Context
    config: TuneConfig
    model: Any
    optimizers: list[AnyOptimizer]
    rows: TokenRows
    batches: list[Rows]
    position: Position
    head_is_plain: bool

    def run(self, keep_snapshot: Callable[[str], None]) -> None:
        """Go through the remaining steps."""
        self.model.train()
        snapshots: dict[int, list[str]] = {}
        for share in self.config.snapshots:
            step = max(1, round(share * len(self.batches)))
            snapshots.setdefault(step, []).append(f"at-{share:g}")
        began = saved = shown = time.monotonic()
        before = self.position.seconds
        while self.position.step < len(self.batches):
            self._step(self.batches[self.position.step])
            self.position.step += 1
            now = time.monotonic()
            self.position.seconds = before + now - began
            for name in snapshots.get(self.position.step, []):
                keep_snapshot(name)
            if now - saved > self.ctx.runtime.checkpoint_s:
                save_checkpoint(self.ctx.state, self.model, self.optimizers, self.position)
                saved = time.monotonic()
            if now - shown > 0.2:
                self._show()
                shown = now
        self._show()
        self.model.eval()

    def _step(self, batch: Rows) -> None:
        position, config = self.position, self.config
        set_rate(self.optimizers, rate_factor(config.optimizer, position.step, len(self.batches)))
        micros = split_micro(batch, self.rows.lengths, self.ctx.runtime.micro_tokens)
        tensors = [self._tensors(micro) for micro in micros]
        num_targets = sum(int(is_target.sum()) for _, is_target in tensors)
        total = 0.0
        for ids_BT, is_target_BT in tensors:
            total += self._backward(ids_BT, is_target_BT, num_targets)
        norm = clip_gradient(self.model, config.optimizer.clip)
        if not np.isfinite(norm) or not np.isfinite(total):
            raise TrainingError(
                f"step {position.step + 1} of {len(self.batches)}: loss {total}, gradient norm "
                f"{norm}; lower optimizer.learning_rate (now {config.optimizer.learning_rate})"
            )
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        position.tokens += int(self.rows.lengths[batch].sum())
        position.losses.append(total)

    def _backward(self, ids_BT: Tensor, is_target_BT: Tensor, num_targets: int) -> float:
        """Add this pass's share of the gradient and return its share of the mean loss.

        Only target positions reach the output head, `LOGITS_BYTES` of logits at a time: the memory
        they take does not grow with the batch, and the allocator can use it again.
        """
        is_next_BT = is_target_BT[:, 1:]
        targets_N = ids_BT[:, 1:][is_next_BT]
        on = self.config.precision == "bfloat16"
        with torch.autocast(ids_BT.device.type, torch.bfloat16, enabled=on):
            if not self.head_is_plain:
                logits_BTV = self.model(input_ids=ids_BT, use_cache=False).logits
                return self._add_gradient(logits_BTV[:, :-1][is_next_BT], targets_N, num_targets)
            hidden_BTD = self.model.base_model(input_ids=ids_BT, use_cache=False)[0]
            hidden_ND = hidden_BTD[:, :-1][is_next_BT]
            leaf_ND = hidden_ND.detach().requires_grad_()
            head = self.model.get_output_embeddings()
            width = max(1, LOGITS_BYTES // (4 * head.weight.shape[0]))
            total = 0.0
            for some_ND, targets in zip(leaf_ND.split(width), targets_N.split(width), strict=True):
                total += self._add_gradient(head(some_ND), targets, num_targets)
        hidden_ND.backward(leaf_ND.grad)
        return total

    def _add_gradient(self, logits_NV: Tensor, targets_N: Tensor, num_targets: int) -> float:
        loss = torch.nn.functional.cross_entropy(logits_NV.float(), targets_N, reduction="sum")
        (loss / num_targets).backward()
        return float(loss.detach()) / num_targets

    def _tensors(self, micro: Rows) -> tuple[Tensor, Tensor]:
        """Right-padded ids and target mask; causal attention never looks at the padding."""
        width = int(self.rows.lengths[micro].max())
        ids_BT = np.zeros((len(micro), width), dtype=np.int64)
        is_target_BT = np.zeros((len(micro), width), dtype=np.bool_)
        for place, row in enumerate(micro):
            start, stop = self.rows.starts[row], self.rows.starts[row + 1]
            ids_BT[place, : stop - start] = self.rows.ids[start:stop]
            is_target_BT[place, : stop - start] = self.rows.is_target[start:stop]
        device = self.model.device
        return torch.from_numpy(ids_BT).to(device), torch.from_numpy(is_target_BT).to(device)

    def _show(self) -> None:
        position = self.position
        rate = position.tokens / max(position.seconds, 1e-9)
        loss = sum(position.losses[-50:]) / max(1, len(position.losses[-50:]))
        note = f"loss {loss:.3f}, {rate:,.0f} tokens/s"
        self.ctx.report(Progress("training", position.step, len(self.batches), "steps", note=note))

    def write_metrics(self) -> None:
        """Write losses and tokens beside the weights; what the clock says goes to the logs."""
        position = self.position
        metrics = {"steps": position.step, "tokens": position.tokens, "losses": position.losses}
        (self.ctx.out / METRICS).write_text(json.dumps(metrics))
        logs = self.ctx.out / LOGS
        logs.mkdir()
        speed = {"seconds": position.seconds, "tokens_per_s": position.tokens / position.seconds}
        (logs / SPEED).write_text(json.dumps(speed))
        self.ctx.count("tokens", position.tokens)
        self.ctx.count("steps", position.step)


def has_plain_head(model: Any) -> bool:  # noqa: ANN401 (transformers' type)
    """Tell whether the logits are the output embedding of the last hidden state and nothing more.

    Some classes scale or cap their logits; these are trained through their whole forward pass.
    """
    model.eval()
    ids = torch.arange(8, device=model.device)[None] % model.get_input_embeddings().num_embeddings
    head = model.get_output_embeddings()
    gain = 1.0
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0] * gain,))
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids, use_cache=False)[0]
        gain = 100 / max(float(head(hidden).abs().max()), 1e-6)  # small logits are never capped
        plain, whole = head(hidden), model(input_ids=ids, use_cache=False).logits
    hook.remove()
    return bool(plain.shape == whole.shape and torch.allclose(plain, whole, atol=1e-2, rtol=1e-3))


def read_metrics(student: Artifact) -> dict[str, Any]:
    """Return `steps`, `tokens` and `losses` (one per step) of a training."""
    metrics: dict[str, Any] = json.loads((student.path / METRICS).read_text())
    return metrics


def read_speed(student: Artifact) -> dict[str, float]:
    """Return `seconds` and `tokens_per_s` of a training, all its resumed parts together."""
    speed: dict[str, float] = json.loads((student.path / LOGS / SPEED).read_text())
    return speed


def _budgets(config: TuneConfig, rows: TokenRows) -> list[int]:
    sizes = [
        int(rows.lengths[first:last].sum())
        for first, last in zip(rows.inputs, rows.inputs[1:], strict=False)
    ]
    total = config.tokens or int((config.epochs or 0) * sum(sizes))
    if config.shares is None:
        return [total * size // sum(sizes) for size in sizes]
    if len(config.shares) != len(sizes):
        raise TrainingError(f"shares names {len(config.shares)} inputs, there are {len(sizes)}")
    budgets = [int(total * share / sum(config.shares)) for share in config.shares]
    for number, (budget, size) in enumerate(zip(budgets, sizes, strict=True), 1):
        if budget and not size:
            raise TrainingError(f"input {number} has a share, but no row that can be trained on")
    return budgets
