"""Time and memory of `spyhop compare` on two logs of made-up scores.

PYTHONPATH=src python benchmarks/compare.py FOLDER [rows of each log, default 1,000,000]
"""

import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

WORDS = "the a of model answer because therefore option number train passage writes question"


def write(path: Path, num: int, right: float) -> None:
    """Write a log of 20 tasks and 7 topics, some 850 bytes a row."""
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS.split(), k=60)) for _ in range(500)]
    draw.seed(path.name)
    with path.open("w") as file:
        for n in range(num):
            is_right = draw.random() < right
            question = f"{texts[n % 500][:120]} {n}?"
            row = {
                "id": f"{n:016x}", "suite": "made", "task": f"t{n % 20}",
                "response": draw.choice(texts)[:250], "extracted": "A", "correct": is_right,
                "value": float(is_right), "metric": "accuracy", "target": "A", "chance": 0.25,
                "finish_reason": "stop", "error": None, "ending": "whole", "response_tokens": 60,
                "sample_index": 0, "metrics": {"strict": 1.0}, "passage": "", "topic": f"x{n % 7}",
                "model": path.stem, "question": question,
                "item_digest": hashlib.sha256(question.encode()).hexdigest(),
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")


def main() -> None:
    """Write the logs unless they are there, compare them, print the figures."""
    folder, num = Path(sys.argv[1]), int(sys.argv[2] if len(sys.argv) > 2 else 1_000_000)
    logs = [folder / f"scores-{name}-{num}.jsonl" for name in ("one", "two")]
    for log, right in zip(logs, (0.5, 0.52), strict=True):
        if not log.exists():
            write(log, num, right)
    command = [sys.executable, "-m", "spyhop", "compare", *map(str, logs)]
    started = time.monotonic()
    subprocess.run([*command, "--html", str(folder / "page.html")], check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{2 * num:,} rows, {sum(log.stat().st_size for log in logs) / 1e6:,.0f} MB: "
        f"{time.monotonic() - started:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of processor, "
        f"largest process {used.ru_maxrss / 1e6:.2f} GB; load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
