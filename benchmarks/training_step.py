"""Tokens per second of training steps on a processor, in wall and processor time.

    OMP_NUM_THREADS=1 python benchmarks/training_step.py --data DIR --base FOLDER [--steps 8]

DIR holds `flan_cot`. Every step is a line: tokens, supervised tokens, wall and processor seconds,
loss; the first is a warm-up. A checkout of another version is measured by PYTHONPATH.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path

from spyhop.collect import MessagesConfig, read_conversations
from spyhop.runtime import Runtime
from spyhop.store import Source
from spyhop.train import OptimizerConfig, TuneConfig, loop, tune

SYSTEM = "Think step by step, and justify your steps, before you answer."


class Done(Exception):
    """Enough steps were timed."""


def write_rows(data: Path, out: Path) -> None:
    """Write 3,000 rationales of FLAN-CoT as training rows."""
    files = sorted((data / "flan_cot").rglob("*.tsv"))
    lines = [line for file in files for line in file.read_text().split("\n")]
    lines = [line for line in lines if line.count("\t") >= 2]
    random.Random(0).shuffle(lines)
    with out.open("w") as stream:
        for line in lines[:3000]:
            query, answer, rationale = line.split("\t")[:3]
            said = f"{rationale.strip()} The answer is {answer.strip()}."
            turns = [("system", SYSTEM), ("user", query), ("assistant", said)]
            messages = [{"role": role, "content": text} for role, text in turns]
            stream.write(json.dumps({"messages": messages}) + "\n")


def main() -> None:
    """Time the steps of a real training, and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    whole, steps = loop.Trainer._step, []

    def timed(trainer: loop.Trainer, batch: object) -> None:
        at = trainer.position
        before = (at.tokens, at.terms, time.perf_counter(), time.process_time())
        whole(trainer, batch)  # type: ignore[arg-type]
        after = (at.tokens, at.terms, time.perf_counter(), time.process_time())
        steps.append([new - old for new, old in zip(after, before, strict=True)])
        print(*(f"{each:.2f}" for each in steps[-1]), f"{at.losses[-1]:.4f}", flush=True)
        if len(steps) >= options.steps:
            raise Done

    loop.Trainer._step = timed  # type: ignore[assignment, method-assign]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_rows(options.data, root / "rows.jsonl")
        rows = read_conversations.run(
            root, MessagesConfig(), file=Source(root / "rows.jsonl").open(root)
        )
        config = TuneConfig(
            tokens=200_000, batch_tokens=2048, precision="bfloat16",
            optimizer=OptimizerConfig(learning_rate=1e-4),
        )  # fmt: skip
        runtime = Runtime(device="cpu", threads=options.threads, checkpoint_s=1e9)
        base = Source(options.base).open(root)
        try:
            tune.run(root, config, runtime=runtime, base=base, answers={"one": rows})
        except Done:
            tokens, _, wall, cpu = (sum(each) for each in zip(*steps[1:], strict=True))
            used = resource.getrusage(resource.RUSAGE_SELF)
            print(f"tokens/s: wall {tokens / wall:.1f}, processor {tokens / cpu:.1f}")
            print(f"system s {used.ru_stime:.1f}, peak GB {used.ru_maxrss / 2**20:.2f}")


if __name__ == "__main__":
    main()
