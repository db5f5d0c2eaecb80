"""How long an optimiser step takes: our Muon against `torch.optim.Muon`, on one model's matrices.

    python benchmarks/muon.py

Prints milliseconds a step for both, medians over interleaved rounds, and their ratio.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import platform
import statistics
from time import process_time

import torch

from spyhop.train.optimizer import Muon

SHAPES = [(64, 64)] * 4 + [(160, 64)] * 2 + [(64, 160)]
NUM_LAYERS, NUM_ROUNDS, NUM_STEPS = 2, 9, 50


def parameters() -> list[torch.nn.Parameter]:
    """The hidden matrices of a student of the quick start."""
    torch.manual_seed(0)
    made = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES * NUM_LAYERS]
    for each in made:
        each.grad = torch.randn_like(each)
    return made


def milliseconds(optimizer: object) -> float:
    """Processor time of one step."""
    started = process_time()
    for _ in range(NUM_STEPS):
        optimizer.step()  # type: ignore[attr-defined]
    return 1000 * (process_time() - started) / NUM_STEPS


def main() -> None:
    """Measure both, turn about."""
    torch.set_num_threads(1)
    ours = Muon(parameters(), lr=1e-6)
    theirs = torch.optim.Muon(parameters(), lr=1e-6, weight_decay=0.0, adjust_lr_fn="original")
    milliseconds(ours), milliseconds(theirs)
    pairs = [(milliseconds(ours), milliseconds(theirs)) for _ in range(NUM_ROUNDS)]
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, 1 thread")
    print(f"spyhop       {statistics.median(ours for ours, _ in pairs):6.2f} ms a step")
    print(f"torch.optim  {statistics.median(theirs for _, theirs in pairs):6.2f} ms a step")
    print(f"ratio {ratio:.1f}, medians of {NUM_ROUNDS} interleaved rounds of {NUM_STEPS} steps")


if __name__ == "__main__":
    main()
