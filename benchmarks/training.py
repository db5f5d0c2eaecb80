"""Supervised tokens per second and peak memory of one training: spyhop and TRL's SFTTrainer.

    python benchmarks/training.py --data DIR --work DIR --trl PYTHON [--device cuda --size 1b]

DIR holds `flan_cot` and `tok_llama2`. Both train the same small Llama on the same token ids, in
bfloat16 over float32 weights, with AdamW, one epoch, the same rows per step on average. TRL's
metrics of entropy and accuracy are taken out, and so are spyhop's checkpoints. Every run is a
process of its own; contestants take turns; the figure is the median. With one thread, rates per
second of processor time stand beside those per second: other work on the machine moves them less.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

SIZES = {
    "tiny": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6,
             "num_attention_heads": 4, "num_key_value_heads": 4},
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 20,
           "num_attention_heads": 16, "num_key_value_heads": 16},
}  # fmt: skip
CONTESTANTS = {
    "spyhop": "length-sorted, supervised positions alone reach the head (the default on a CPU)",
    "spyhop packed": "the same steps, rows end to end (the default on CUDA)",
    "spyhop whole head": "as the first, but every position reaches the head",
    "trl grouped": "SFTTrainer, group_by_length, padded",
    "trl grouped, 4 rows": "the same, four passes of 4 rows in place of one of 16",
    "trl random": "SFTTrainer, padded, rows in any order",
    "trl packed": "SFTTrainer, packing=True, strategy bfd",
}
MAX_TOKENS = 1024


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Write rows, their token ids and a model; return how large they are."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from spyhop.models.folder import load_tokenizer
    from spyhop.render import ORCA, Renderer
    from spyhop.schema import Message
    from spyhop.train.base import add_padding, save

    work = options.work
    lines: list[str] = []
    for file in sorted((options.data / "flan_cot").rglob("*.tsv")):
        lines += file.read_text().split("\n")  # a rationale may hold other ends of line
    lines = [line for line in lines if line.count("\t") >= 2]
    random.Random(0).shuffle(lines)
    words = load_tokenizer(options.data / "tok_llama2")
    add_padding(words)
    renderer = Renderer(words, ORCA)
    rows = []
    for line in lines[: options.rows]:
        question, answer, rationale = line.split("\t")[:3]
        said = f"{rationale.strip()} The answer is {answer.strip()}."
        rows.append(
            [Message(role="user", content=question), Message(role="assistant", content=said)]
        )
    encoded = [e for e in renderer.encode(rows) if len(e.ids) <= MAX_TOKENS]
    (work / "rows").mkdir(exist_ok=True)
    with (work / "rows" / "rows.jsonl").open("w") as stream:
        for row in rows:
            turns = [
                {"from": "human", "value": row[0].content},
                {"from": "gpt", "value": row[1].content},
            ]
            stream.write(json.dumps({"conversations": turns}) + "\n")
    with (work / "ids.jsonl").open("w") as stream:
        for each in encoded:
            row = {
                "input_ids": each.ids.tolist(),
                "completion_mask": each.is_supervised.astype(int).tolist(),
            }
            stream.write(json.dumps(row) + "\n")
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(words), max_position_embeddings=MAX_TOKENS, tie_word_embeddings=False,
        bos_token_id=1, eos_token_id=2, pad_token_id=words.pad_token_id, **SIZES[options.size],
    )  # fmt: skip
    model = LlamaForCausalLM(shape)
    save(work / "base", model, words, ORCA)
    tokens = sum(len(each.ids) for each in encoded)
    return {
        "rows": len(encoded),
        "tokens": tokens,
        "targets": sum(int(each.is_supervised[1:].sum()) for each in encoded),
        "parameters": model.num_parameters(),
        "rows_per_step": options.rows_per_step,
        "batch_tokens": options.rows_per_step * tokens // len(encoded),
        "device": options.device,
        "threads": options.threads,
    }


def run_spyhop(kind: str, job: dict[str, Any], work: Path) -> dict[str, float]:
    """Train with spyhop's own stage."""
    import shutil

    from spyhop.collect import ReadyConfig, read_answers
    from spyhop.stage import Runtime
    from spyhop.store import Source
    from spyhop.train import OptimizerConfig, TuneConfig, engine, loop, read_speed, tune

    root = work / "store"
    shutil.rmtree(root, ignore_errors=True)
    rows = Source(work / "rows").open(root)
    answers = read_answers.run(root, ReadyConfig(), folder=rows)
    if kind == "spyhop whole head":
        engine.has_plain_head = lambda model: False
    whole, spent = loop.Trainer.run, [0.0]

    def timed(trainer: loop.Trainer) -> None:
        began = time.process_time()
        whole(trainer)
        spent[0] = time.process_time() - began

    loop.Trainer.run = timed  # type: ignore[method-assign]
    runtime = Runtime(
        device=job["device"],
        threads=job["threads"],
        checkpoint_s=1e9,
        microbatch_tokens=job["microbatch_tokens"],
        packing={"spyhop": "off", "spyhop packed": "on"}.get(kind, "off"),
    )
    config = TuneConfig(
        epochs=1.0,
        batch_tokens=job["batch_tokens"],
        max_tokens=MAX_TOKENS,
        precision=job["precision"],
        format="orca",
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=0, schedule="constant"),
    )
    made = tune.run(
        root, config, runtime=runtime, base=Source(work / "base").open(root),
        answers={"one": answers},
    )  # fmt: skip
    lines = (made.path / "logs" / "steps.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    figures = {
        "seconds": read_speed(made)["seconds"],
        "cpu_s": spent[0],
        "steps": len(lines),
        "loss": last["loss"],
    }
    return figures | {k: last[k] for k in ("mfu_frac",) if k in last}


def run_trl(kind: str, job: dict[str, Any], work: Path) -> dict[str, float]:
    """Train with TRL on the same ids; its metrics of entropy and accuracy are left out."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.utils import add_fused_lm_head

    class Trainer(SFTTrainer):
        def compute_loss(self, model, inputs, *_: Any, **more: Any) -> Any:  # noqa: ANN001, ANN401
            inputs["use_cache"] = False
            outputs = model(**inputs, fused_lm_head=True)
            return -outputs.log_probs.sum() / more["num_items_in_batch"]

    torch.set_num_threads(job["threads"])
    rows = [json.loads(line) for line in (work / "ids.jsonl").read_text().splitlines()]
    is_packed = kind == "trl packed"
    num_passes = 4 if kind.endswith("4 rows") else 1
    mean = job["tokens"] / job["rows"]
    config = SFTConfig(
        output_dir=str(work / "trl"),
        use_cpu=job["device"] == "cpu",
        bf16=job["precision"] == "bfloat16",
        num_train_epochs=1,
        per_device_train_batch_size=(
            max(1, round(job["rows_per_step"] * mean / MAX_TOKENS)) if is_packed
            else job["rows_per_step"] // num_passes
        ),
        gradient_accumulation_steps=num_passes,
        train_sampling_strategy="group_by_length" if "grouped" in kind else "random",
        packing=is_packed,
        packing_strategy="bfd",
        max_length=MAX_TOKENS,
        completion_only_loss=True,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(work / "base", dtype=torch.float32),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(work / "base"),
    )
    add_fused_lm_head(trainer.model, outputs=("log_probs",))
    began, cpu_began = time.monotonic(), time.process_time()
    result = trainer.train()
    return {
        "seconds": time.monotonic() - began,
        "cpu_s": time.process_time() - cpu_began,
        "steps": result.global_step,
        "loss": result.training_loss,
    }


def child(kind: str, work: Path) -> None:
    """Run one contestant and print its figures."""
    job = json.loads((work / "job.json").read_text())
    figures = (run_trl if kind.startswith("trl") else run_spyhop)(kind, job, work)
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if job["device"] != "cpu":
        import torch

        figures["peak_mb"] = torch.cuda.max_memory_allocated() / 2**20
    print("figures", json.dumps(figures))


def main() -> None:
    """Let the contestants take turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--trl", default=sys.executable, help="Python of an environment with TRL")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", default="tiny", choices=SIZES)
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--rows-per-step", type=int, default=16)
    parser.add_argument("--microbatch-tokens", type=int, default=16_384)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(CONTESTANTS))
    parser.add_argument("--child")
    options = parser.parse_args()
    if options.child:
        child(options.child, options.work)
        return
    options.work.mkdir(parents=True, exist_ok=True)
    job = prepare(options) | {
        "precision": options.precision, "microbatch_tokens": options.microbatch_tokens
    }  # fmt: skip
    (options.work / "job.json").write_text(json.dumps(job))
    print(json.dumps(job), version("torch"), version("transformers"))
    log = options.work / "figures.jsonl"
    for _ in range(options.rounds):
        for kind in options.only:
            python = options.trl if kind.startswith("trl") else sys.executable
            command = [python, __file__, "--work", str(options.work), "--child", kind]
            done = subprocess.run(command, capture_output=True, text=True)
            line = next((x for x in done.stdout.splitlines() if x.startswith("figures ")), None)
            if line is None:
                sys.exit(f"{kind}: {done.stdout[-2000:]}{done.stderr[-3000:]}")
            figures = {"kind": kind, **job, **json.loads(line.removeprefix("figures "))}
            with log.open("a") as stream:
                stream.write(json.dumps(figures) + "\n")
            print(kind, line, flush=True)
    table(log, job)


def table(log: Path, job: dict[str, Any]) -> None:
    """Print the medians of all runs of this job so far."""
    found: dict[str, list[dict[str, float]]] = {}
    for line in log.read_text().splitlines():
        run = json.loads(line)
        if job.items() <= run.items():
            found.setdefault(run["kind"], []).append(run)
    print("\n| contestant | per processor s | all runs | per s | all runs | peak MB | steps |")
    print("|---|---|---|---|---|---|---|")
    for kind, runs in found.items():
        cells = []
        for name in ("cpu_s", "seconds"):
            rates = sorted(run["targets"] / run[name] for run in runs)
            cells += [f"{statistics.median(rates):,.0f}", ", ".join(f"{r:,.0f}" for r in rates)]
        peak = statistics.median(run["peak_mb"] for run in runs)
        steps = runs[0]["steps"]
        print(f"| {kind} | {' | '.join(cells)} | {peak:,.0f} | {steps:.0f} |")


if __name__ == "__main__":
    main()
