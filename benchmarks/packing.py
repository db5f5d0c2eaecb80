"""How long it takes to decide which rows share a sequence, and how much of it is padding.

    python benchmarks/packing.py --trl-python PY --axolotl-python PY

Lengths are drawn from log-normal distributions fitted to real rows (Llama 2's tokenizer, Orca's
blocks): 284 OpenOrca records with GPT-4's answers, and 33,443 FLAN-CoT rows with people's
rationales. Longer ones than a sequence are drawn again. Each packer runs in a process of its own;
only the decision is timed, after a first call on 10,000 lengths (imports, compilation):

* spyhop: `best_fit`, `grouped` (the Orca paper's), over all lengths at once;
* TRL: `_pack_bfd`, as its trainer calls it (1,000 rows at a time) and over all rows at once. It
  also moves the rows' columns: here a single one, of one byte a token;
* axolotl: `pack_parallel` with its sampler's default groups of 100,000 rows, in one process.

Each peer lives in an environment of its own:

    python -m venv DIR && DIR/bin/pip install torch==2.13.0 trl==1.16.0 datasets
    python -m venv DIR && DIR/bin/pip install torch==2.13.0 numba &&
        DIR/bin/pip install --no-deps axolotl==0.19.0
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {"OpenOrca": (6.004, 0.519), "FLAN-CoT": (4.701, 0.381)}
"""Mean and standard deviation of the logarithm of a row's tokens."""
WARM_UP = 10_000
TIMES = ("seconds", "cpu")


def draw(shape: str, num: int, capacity: int) -> Any:  # noqa: ANN401 (numpy)
    """Return lengths from 1 to `capacity`."""
    random = np.random.default_rng(0)
    lengths = np.zeros(num, dtype=np.int64)
    while (wrong := np.flatnonzero((lengths < 1) | (lengths > capacity))).size:
        lengths[wrong] = random.lognormal(*SHAPES[shape], wrong.size).round()
    return lengths


# ---------------------------------------------------------------- packers; each imports its own


def spyhop_best_fit(lengths: Any, capacity: int) -> Callable[[], int]:  # noqa: ANN401
    """Ours."""
    from spyhop.train.batches import best_fit

    return lambda: len(best_fit(lengths, capacity))


def spyhop_grouped(lengths: Any, capacity: int) -> Callable[[], int]:  # noqa: ANN401
    """The Orca paper's, after a shuffle."""
    from spyhop.train.batches import grouped

    order = np.random.default_rng(1).permutation(len(lengths))
    return lambda: len(grouped(order, lengths, capacity))


def _trl(lengths: Any, capacity: int, batch: int) -> Callable[[], int]:  # noqa: ANN401
    import pyarrow as pa
    from trl.data_utils import _pack_bfd

    def pack() -> int:
        num = 0
        for start in range(0, len(lengths), batch):
            some = lengths[start : start + batch]
            offsets = pa.array(np.concatenate([[0], np.cumsum(some)]))
            column = pa.LargeListArray.from_arrays(offsets, np.zeros(int(some.sum()), np.int8))
            num += _pack_bfd(pa.table({"input_ids": column}), capacity).num_rows
        return num

    return pack


def trl_by_thousand(lengths: Any, capacity: int) -> Callable[[], int]:  # noqa: ANN401
    """As TRL's trainer calls it: `datasets.map` hands over 1,000 rows at a time."""
    return _trl(lengths, capacity, 1000)


def trl_at_once(lengths: Any, capacity: int) -> Callable[[], int]:  # noqa: ANN401
    """TRL's function over all rows."""
    return _trl(lengths, capacity, len(lengths))


def axolotl(lengths: Any, capacity: int) -> Callable[[], int]:  # noqa: ANN401
    """First fit decreasing in groups; as many rows in a sequence as fit."""
    from axolotl.utils.samplers.multipack import pack_parallel

    return lambda: len(pack_parallel(lengths, capacity, 100_000, capacity, num_processes=1))


PACKERS = {
    "spyhop, best fit": spyhop_best_fit,
    "spyhop, grouped as in the paper": spyhop_grouped,
    "TRL, 1,000 rows at a time": trl_by_thousand,
    "TRL, all at once": trl_at_once,
    "axolotl": axolotl,
}


# ---------------------------------------------------------------- measuring


def measure(name: str, path: str, capacity: int) -> None:
    """Print seconds and packs of one run."""
    lengths = np.load(path)
    PACKERS[name](lengths[:WARM_UP], capacity)()
    pack = PACKERS[name](lengths, capacity)
    began, cpu = time.perf_counter(), time.process_time()
    num = pack()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu, "packs": num}))


def _median(values: list[float]) -> str:
    spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.2f}{spread}"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trl-python", help="interpreter that has trl")
    parser.add_argument("--axolotl-python", help="interpreter that has axolotl")
    parser.add_argument("--num", type=int, default=5_000_000)
    parser.add_argument("--capacity", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5, help="of spyhop")
    parser.add_argument("--peer-rounds", type=int, default=1)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--only", nargs="*", default=list(PACKERS), choices=list(PACKERS))
    parser.add_argument("--run", nargs=2, metavar=("PACKER", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        measure(*args.run, args.capacity)
        return
    pythons = {"spyhop": sys.executable, "TRL": args.trl_python, "axolotl": args.axolotl_python}
    print("| lengths | packer | seconds | CPU s | sequences | waste |\n" + "|---" * 6 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for shape in args.shapes:
            lengths = draw(shape, args.num, args.capacity)
            path = Path(folder) / "lengths.npy"
            np.save(path, lengths)
            for name in args.only:
                if not (python := pythons[name.split(",")[0]]):
                    continue
                rounds = args.rounds if name.startswith("spyhop") else args.peer_rounds
                command = [python, __file__, "--run", name, str(path)]
                command += ["--capacity", str(args.capacity)]
                found = [json.loads(subprocess.check_output(command)) for _ in range(rounds)]
                packs = found[0]["packs"]
                waste = 1 - int(lengths.sum()) / (packs * args.capacity)
                times = " | ".join(_median([each[kind] for each in found]) for kind in TIMES)
                print(
                    f"| {shape} | {name} | {times} | {packs:,} | {100 * waste:.3f} % |", flush=True
                )


if __name__ == "__main__":
    main()
