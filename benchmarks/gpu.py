"""Training and generation on one GPU, in at most eight minutes; results are lines of JSON.

    python benchmarks/gpu.py --out FILE [--seconds 480] [--recipe examples/smollm2-orca.toml]
    torchrun --nproc-per-node=1 benchmarks/gpu.py --out FILE

Pieces, each with a share of the time, in this order: one training step; G5 (packed documents are
blind to their neighbours) through varlen attention; the gradient in bfloat16, cut in four ways;
training at 135 M and 1 B parameters (random weights; tokens per second, model FLOPs utilisation and
peak memory after warm-up) and TRL with Liger kernels on the same rows, if they are installed;
generation; and the arms of a recipe at 8 M tokens for up to three seeds, with `--recipe`. Every
figure is written when it is known, so that a kill loses nothing. A piece that fails or finds no
time left is a line too.
`--device cpu --size toy` runs the same code in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from spyhop.models import Local, Request, Sampling
from spyhop.render import ORCA
from spyhop.runtime import Runtime
from spyhop.schema import Message
from spyhop.store import Source
from spyhop.train import TuneConfig
from spyhop.train.attention import isolate
from spyhop.train.base import LoadedBase, add_padding, save
from spyhop.train.cost import peak_flops, shape_of
from spyhop.train.distributed import Group, joined
from spyhop.train.engine import Engine, TrainingResult
from spyhop.train.loop import memory_bytes
from spyhop.train.objective import CrossEntropy
from spyhop.train.optimizer import OptimizerConfig, clip_gradient, make_optimizers
from spyhop.train.rows import TokenRows

SHAPES: dict[str, dict[str, Any]] = {
    "toy": {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "135m": {"vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536,
             "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
             "tie_word_embeddings": True},
    "1b": {"vocab_size": 49_152, "hidden_size": 2048, "intermediate_size": 8192,
           "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
           "tie_word_embeddings": True},
}  # fmt: skip
WARM_UP_STEPS = 3
ARM_TOKENS, SEEDS = 8_000_000, 3
BOUND = 2e-2
"""Of the relative difference of two bfloat16 gradients (G6)."""
Figures = dict[str, Any]


@dataclass
class Bench:
    """One call: its processes, its time and its log."""

    group: Group
    options: argparse.Namespace
    ends: float
    sizes: tuple[str, ...]
    batch_tokens: int
    most_tokens: int
    _piece_ends: float = field(default=0.0)

    def left(self) -> float:
        """Return the seconds left for this piece, the same in all processes."""
        found: float = self.group.tell(min(self._piece_ends, self.ends) - time.monotonic())
        return found

    def write(self, figures: Figures) -> None:
        """Append a line; the first process writes."""
        if self.group.rank == 0:
            line = json.dumps(figures)
            print(line, flush=True)
            with self.options.out.open("a") as stream:
                stream.write(line + "\n")
                stream.flush()
                os.fsync(stream.fileno())

    def run(self, name: str, share: float, piece: Callable[[Bench], Iterator[Figures]]) -> None:
        """Run a piece for its share of the time; its errors are written and do not stop others."""
        self._piece_ends = time.monotonic() + share * self.options.seconds
        if self.left() <= 0:
            self.write({"piece": name, "skipped": "no time left"})
            return
        began = time.monotonic()
        try:
            for figures in piece(self):
                seconds = round(time.monotonic() - began, 2)
                self.write({"piece": name, **figures, "seconds": seconds})
        except Exception as error:  # noqa: BLE001 (a failure is a result: the other pieces run)
            self.write({"piece": name, "failed": f"{type(error).__name__}: {error!s:.300}"})

    def runtime(self, **changes: Any) -> Runtime:  # noqa: ANN401 (its fields)
        """Return a runtime for this device that packs rows."""
        settings = {"packing": "on", "microbatch_tokens": self.batch_tokens, **changes}
        return Runtime.model_validate({"device": self.options.device, **settings})


def random_model(bench: Bench, size: str) -> Any:  # noqa: ANN401 (transformers' type)
    """Return a model with random weights, in place; it is empty in all processes but the first."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        max_position_embeddings=4096, bos_token_id=0, eos_token_id=0, **SHAPES[size]
    )
    with torch.device("meta" if bench.group.rank else bench.group.device):
        model = LlamaForCausalLM(shape)
    return model if bench.group.size == 1 or bench.group.rank else model.cpu()


def random_rows(bench: Bench, size: str, num_rows: int = 512) -> TokenRows:
    """Return rows with lengths like FLAN-CoT's under a system message; half is supervised."""
    random = np.random.default_rng(0)
    drawn = random.lognormal(5.2, 0.5, num_rows).astype(np.int64)
    lengths = np.clip(drawn, 16, bench.most_tokens)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = random.integers(1, SHAPES[size]["vocab_size"], int(starts[-1])).astype(np.int32)
    middle = np.repeat(starts[:-1] + lengths // 2, lengths)
    is_supervised = np.arange(len(ids)) >= middle
    return TokenRows(ids, is_supervised, starts, [0, num_rows], np.arange(num_rows))


def make_engine(bench: Bench, model: Any, rows: TokenRows, runtime: Runtime) -> Engine:  # noqa: ANN401
    """Return the engine that training uses, in bfloat16; packing that was refused is an error."""
    student = LoadedBase(Path(), TuneConfig(epochs=1), None, ORCA, model)
    result = TrainingResult()
    engine = Engine(
        CrossEntropy(rows), student, bench.group, runtime, result,
        precision="bfloat16", longest=int(rows.lengths.max()),
    )  # fmt: skip
    if result.notices:
        raise RuntimeError("; ".join(result.notices))
    return engine


def batches(bench: Bench, rows: TokenRows) -> Iterator[np.ndarray]:
    """Yield batches of about `batch_tokens`, for ever."""
    order = np.arange(len(rows.lengths))
    cuts = np.flatnonzero(np.diff(np.cumsum(rows.lengths) // bench.batch_tokens)) + 1
    parts = [part for part in np.split(order, cuts) if len(part)]
    while True:
        yield from parts


def speed(bench: Bench, size: str, most_steps: int | None = None) -> Figures:
    """Train for the time that is left, and return speed, utilisation and peak memory."""
    device = bench.group.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    rows = random_rows(bench, size)
    model = random_model(bench, size)
    shape = shape_of(model)
    runtime = bench.runtime()
    engine = make_engine(bench, model, rows, runtime)
    optimizers = make_optimizers(model, OptimizerConfig(learning_rate=1e-4))
    model.train()
    tokens, marks = 0, [(time.monotonic(), 0)]
    for step, batch in enumerate(batches(bench, rows), 1):
        loss, _, _ = engine.gradient(batch)
        clip_gradient(model, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        tokens += int(rows.lengths[batch].sum())
        marks.append((time.monotonic(), tokens))
        if step == most_steps or (step > WARM_UP_STEPS and bench.left() <= 0):
            break
    warm = marks[min(WARM_UP_STEPS, len(marks) - 2) :]
    per_s = (warm[-1][1] - warm[0][1]) / (warm[-1][0] - warm[0][0])
    peak = peak_flops(runtime, device)
    flops = per_s * shape.flops_per_token(float(rows.lengths.mean()))
    return {
        "by": "spyhop", "size": size, "parameters": shape.parameters, "steps": len(marks) - 1,
        "loss": round(loss, 4), "tokens_per_s": round(per_s, 1),
        "memory_bytes": memory_bytes(device),
        "mfu_frac": round(flops / (peak * bench.group.size), 4) if peak else None,
    }  # fmt: skip


def first_step(bench: Bench) -> Iterator[Figures]:
    """One step of the smallest model, before anything else is spent."""
    yield speed(bench, bench.sizes[0], most_steps=1)


def isolation(bench: Bench) -> Iterator[Figures]:
    """G5 on this device: varlen attention in bfloat16 on a GPU, and float32."""
    for name, enabled in (("bfloat16", True), ("float32", False)):
        model = random_model(bench, bench.sizes[0])
        with torch.autocast(bench.group.device.type, torch.bfloat16, enabled=enabled):
            reason = isolate(model, longest=bench.most_tokens)
        yield {"precision": name, "holds": reason is None, "reason": reason}


def identity(bench: Bench) -> Iterator[Figures]:
    """G6 in bfloat16: the gradient of one batch, cut in four ways, against float32."""
    size = bench.sizes[0]
    rows = random_rows(bench, size, 8 if size == "toy" else 32)
    every = np.arange(len(rows.lengths))
    small = max(int(rows.lengths.max()), 64)

    def gradient(precision: str, **changes: Any) -> torch.Tensor:  # noqa: ANN401
        model = random_model(bench, size)
        student = LoadedBase(Path(), TuneConfig(epochs=1), None, ORCA, model)
        engine = Engine(
            CrossEntropy(rows), student, bench.group, bench.runtime(**changes), TrainingResult(),
            precision=precision, longest=int(rows.lengths.max()),  # type: ignore[arg-type]
        )  # fmt: skip
        model.train()
        engine.gradient(every)
        found: list[Any] = [p.grad for p in model.parameters()]
        whole = found if bench.group.size == 1 else [each.full_tensor() for each in found]
        return torch.cat([each.flatten().float().cpu() for each in whole])

    exact = gradient("float32", packing="off")
    first = None
    ways: dict[str, Figures] = {
        "packed": {}, "packed, in parts": {"microbatch_tokens": small},
        "padded": {"packing": "off"},
        "padded, in parts": {"packing": "off", "microbatch_tokens": small},
    }  # fmt: skip
    for way, changes in ways.items():
        found = gradient("bfloat16", **changes)
        first = found if first is None else first
        apart = float((found - first).norm() / first.norm())
        from_exact = float((found - exact).norm() / exact.norm())
        yield {
            "way": way, "from_the_first": apart, "from_float32": from_exact, "holds": apart < BOUND
        }  # fmt: skip


def training(size: str) -> Callable[[Bench], Iterator[Figures]]:
    """Return the piece that trains a size with spyhop."""

    def piece(bench: Bench) -> Iterator[Figures]:
        yield speed(bench, size)

    return piece


def peer(size: str) -> Callable[[Bench], Iterator[Figures]]:
    """Return the piece that trains a size with TRL."""

    def piece(bench: Bench) -> Iterator[Figures]:
        if bench.group.size > 1 or find_spec("trl") is None:
            why = "one process only" if bench.group.size > 1 else "trl is not installed"
            yield {"by": "trl", "size": size, "skipped": why}
            return
        yield train_with_trl(bench, size)

    return piece


def train_with_trl(bench: Bench, size: str) -> Figures:
    """Train on the same rows with SFTTrainer, packed, with Liger's kernels where installed."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    rows, device = random_rows(bench, size), bench.group.device
    marks: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401
            if device.type == "cuda":
                torch.cuda.synchronize()
            marks.append(time.monotonic())
            control.should_training_stop = len(marks) > WARM_UP_STEPS and bench.left() <= 0

    has_liger = find_spec("liger_kernel") is not None
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model = random_model(bench, size)
    cuts = [slice(*rows.starts[n : n + 2].tolist()) for n in range(len(rows.lengths))]
    data = Dataset.from_list(
        [
            {"input_ids": rows.ids[cut].tolist(),
             "completion_mask": rows.is_supervised[cut].astype(int).tolist()}
            for cut in cuts
        ]
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder, use_cpu=device.type == "cpu", bf16=True, max_steps=100_000,
            per_device_train_batch_size=max(1, bench.batch_tokens // bench.most_tokens),
            packing=True, packing_strategy="bfd", max_length=bench.most_tokens,
            completion_only_loss=True, learning_rate=1e-4, gradient_checkpointing=False,
            use_liger_kernel=has_liger, logging_strategy="no", save_strategy="no",
            report_to="none", disable_tqdm=True,
        )  # fmt: skip
        trainer = SFTTrainer(
            model=model, args=config, train_dataset=data, processing_class=words(),
            callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
    mean = int(rows.starts[-1]) / len(trainer.train_dataset)
    steps = len(marks) - WARM_UP_STEPS
    tokens = steps * config.per_device_train_batch_size * mean
    return {
        "by": "trl", "liger": has_liger, "size": size, "steps": len(marks),
        "tokens_per_s": round(tokens / (marks[-1] - marks[WARM_UP_STEPS - 1]), 1),
        "memory_bytes": memory_bytes(device),
    }  # fmt: skip


def words() -> Any:  # noqa: ANN401 (transformers' type)
    """Return a tokenizer of bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={name: n for n, name in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", bos_token="<s>")
    add_padding(made)
    return made


def generation(bench: Bench) -> Iterator[Figures]:
    """Greedy generation by the smallest model, for growing batches while time is left."""
    if bench.group.size > 1:
        yield {"skipped": "one process only"}
        return
    new_tokens = 128 if bench.group.device.type == "cuda" else 8
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        save(place / "model", random_model(bench, bench.sizes[0]).cpu(), words(), ORCA)
        backend = Local(dtype="bfloat16").connect(
            Source(place / "model").open(place / "store"), bench.runtime()
        )
        for num in (1, 8, 64, 256):
            asked = [
                Request(
                    id=str(n), messages=[Message(role="user", content=f"Count to {n}, slowly.")]
                )
                for n in range(num)
            ]
            began = time.monotonic()
            replies = list(backend.generate(asked, Sampling(max_new_tokens=new_tokens)))
            tokens = sum(reply.response_tokens for reply in replies)
            per_s = tokens / (time.monotonic() - began)
            yield {"requests": num, "response_tokens": tokens, "tokens_per_s": round(per_s, 1)}
            if bench.left() <= 0:
                return


def arms(bench: Bench) -> Iterator[Figures]:
    """Run a recipe with 8 M tokens an arm, seed after seed; each finished step is a line."""
    recipe, out = bench.options.recipe, bench.options.out.with_suffix(".store")
    if recipe is None or bench.group.size > 1:
        yield {"skipped": "no --recipe" if recipe is None else "one process only"}
        return
    seen: set[Path] = set()
    for seed in range(SEEDS):
        settings = [f"train.tokens={bench.options.arm_tokens}", f"train.seed={seed}"]
        command = [sys.executable, "-m", "spyhop", "run", str(recipe), "--out", str(out)]
        command += [word for each in settings for word in ("--set", each)]
        with out.with_suffix(".log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                while process.poll() is None and bench.left() > 0:
                    time.sleep(0.5)
                    yield from recorded(out, seed, seen)
            finally:
                process.terminate()
                process.wait()
        yield from recorded(out, seed, seen)
        if process.returncode or bench.left() <= 0:
            yield {"seed": seed, "ended": process.returncode, "log": str(log.name)}
            return


def recorded(store: Path, seed: int, seen: set[Path]) -> Iterator[Figures]:
    """Yield the counts of the trainings and scores that are finished and new."""
    for path in sorted({*store.glob("*/record.json")} - seen):
        seen.add(path)
        if path.parent.name.startswith(("train.tune", "evaluate.")):
            counts = json.loads(path.read_text())["counts"]
            yield {"seed": seed, "artifact": path.parent.name, "counts": counts}


def main(arguments: list[str] | None = None) -> None:
    """Run every piece in order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines")
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", choices=["full", "toy"], default="full")
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--arm-tokens", type=int, default=ARM_TOKENS)
    options = parser.parse_args(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    is_toy = options.size == "toy"
    sizes = ("toy",) if is_toy else ("135m", "1b")
    ends = time.monotonic() + options.seconds
    group = nullcontext(Group(torch.device(options.device)))
    with joined(Runtime(device=options.device)) if "LOCAL_RANK" in os.environ else group as here:
        bench = Bench(
            here, options, ends, sizes, 512 if is_toy else 16_384, 128 if is_toy else 1024
        )
        name = torch.cuda.get_device_name() if here.device.type == "cuda" else "processor"
        bench.write(
            {"piece": "machine", "device": name, "torch": torch.__version__, "processes": here.size}
        )
        bench.run("first_step", 0.1, first_step)
        bench.run("isolation", 0.07, isolation)
        bench.run("identity", 0.07, identity)
        for size in sizes:
            bench.run("training", 0.09, training(size))
            bench.run("training", 0.09, peer(size))
        bench.run("generation", 0.08, generation)
        bench.run("arms", 1.0, arms)


if __name__ == "__main__":
    main()
