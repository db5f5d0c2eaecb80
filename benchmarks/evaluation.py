"""How fast options are scored by likelihood, against lm-eval's own backend on the same requests.

    python benchmarks/evaluation.py MODEL --mmlu DIR --arc FILE --lm-eval-python PY
    python benchmarks/evaluation.py MODEL ... --dtype bfloat16 --sets cloze
    python benchmarks/evaluation.py MODEL ... --before SRC     # an older checkout's src, too

Sets: `cloze` (ARC-Easy questions, the options' texts), `mmlu5` (5-shot MMLU, letters), `letters`
(0-shot MMLU, letters). Contexts and continuations are built as lm-eval's tasks build them; each
contestant gets the same texts, in a process of its own, one after the other. Times are those of the
scoring call (tokenising included, loading not), after a call on two items. lm-eval runs at several
batch sizes on a quarter of the items, then at the best one on all.

    python -m venv DIR && DIR/bin/pip install lm-eval[hf]==0.4.13
"""

import argparse
import csv
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

LETTERS = "ABCD"
BATCH_SIZES = (4, 16, 64)


def main() -> None:
    """Run every contestant on every set and print a table."""
    arguments = _arguments()
    if arguments.contestant:
        _compete(arguments)
        return
    sets = _sets(arguments)
    print(f"{platform.processor()}, {arguments.threads} threads, {arguments.dtype}, {_versions()}")
    for name, items in sets.items():
        num_tokens = sum(len(text) for item in items for text in [item["context"]]) // len(items)
        print(f"\n{name}: n = {len(items)}, {num_tokens} characters a context")
        found = {"lm-eval": _best_lm_eval(arguments, items)}
        found["spyhop"] = _run(arguments, items, "spyhop", sys.executable)
        if arguments.before:
            found["before"] = _run(arguments, items, "before", sys.executable)
        _print(items, found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--mmlu", type=Path, help="folder with dev/ and test/ (CSV, gold 0 to 3)")
    parser.add_argument("--arc", type=Path, help="ARC-Easy as LLM-Adapters rewrote it (JSON)")
    parser.add_argument("--sets", nargs="+", default=["cloze", "mmlu5", "letters"])
    parser.add_argument("--items", type=int, default=60, help="of each set")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lm-eval-python", default=sys.executable)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--contestant", default="", help=argparse.SUPPRESS)
    parser.add_argument("--requests", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, default=16, help=argparse.SUPPRESS)
    return parser.parse_args()


# ---------------------------------------------------------------- the items


def _sets(arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    num, mmlu = arguments.items, arguments.mmlu
    makers = {
        "cloze": lambda: _cloze(arguments.arc)[:num],
        "mmlu5": lambda: _mmlu(mmlu, ("astronomy", "marketing"), 5, num),
        "letters": lambda: _mmlu(mmlu, ("anatomy", "sociology", "virology"), 0, num),
    }
    return {name: makers[name]() for name in arguments.sets}


def _cloze(path: Path) -> list[dict[str, Any]]:
    items = []
    for row in json.loads(path.read_text()):
        text = row["instruction"].partition("question: ")[2]
        question, _, rest = text.partition("\n\n")
        options = re.split(r"Answer\d: ", rest.partition("\n\nAnswer format")[0])[1:]
        gold = int(row["answer"][-1]) - 1
        continuations = [f" {option.strip()}" for option in options]
        items.append(_item(f"Question: {question.strip()}\nAnswer:", continuations, gold))
    return items


def _mmlu(folder: Path, subjects: Sequence[str], num_shots: int, num: int) -> list[dict[str, Any]]:
    items = []
    for subject in subjects:
        name = subject.replace("_", " ")
        head = f"The following are multiple choice questions (with answers) about {name}.\n\n"
        shots = _rows(folder / "dev" / f"{subject}_dev.csv")[:num_shots]
        head += "".join(f"{_asked(row)} {LETTERS[int(row[5])]}\n\n" for row in shots)
        rows = _rows(folder / "test" / f"{subject}_test.csv")[: num // len(subjects)]
        items += [
            _item(head + _asked(row), [f" {letter}" for letter in LETTERS], int(row[5]))
            for row in rows
        ]
    return items


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as stream:
        return list(csv.reader(stream))[1:]


def _asked(row: Sequence[str]) -> str:
    options = "".join(f"{a}. {b}\n" for a, b in zip(LETTERS, row[1:5], strict=True))
    return f"{row[0].strip()}\n{options}Answer:"


def _item(context: str, continuations: list[str], gold: int) -> dict[str, Any]:
    return {"context": context, "continuations": continuations, "gold": gold}


# ---------------------------------------------------------------- the contestants


def _best_lm_eval(arguments: argparse.Namespace, items: list[dict[str, Any]]) -> dict[str, Any]:
    some = items[:: max(1, len(items) // 8)][:8]
    python = arguments.lm_eval_python
    tried = {size: _run(arguments, some, "lm-eval", python, size)["cpu_s"] for size in BATCH_SIZES}
    best = min(tried, key=lambda size: tried[size])
    shown = ", ".join(f"{size}: {cpu_s:.1f}" for size, cpu_s in tried.items())
    print(f"lm-eval by batch size on {len(some)} items, CPU seconds: {shown}; best {best}")
    return _run(arguments, items, "lm-eval", python, best)


def _run(
    arguments: argparse.Namespace,
    items: list[dict[str, Any]],
    name: str,
    python: str,
    batch_size: int = 0,
) -> dict[str, Any]:
    src = arguments.before if name == "before" else Path(__file__).resolve().parents[1] / "src"
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(items, file)
        file.flush()
        command = [python, __file__, str(arguments.model), "--contestant", name]
        command += ["--requests", file.name, "--dtype", arguments.dtype]
        command += ["--threads", str(arguments.threads), "--batch-size", str(batch_size)]
        path = {"PYTHONPATH": str(src.resolve())} if name != "lm-eval" else {}
        threads = {"OMP_NUM_THREADS": str(arguments.threads), "TOKENIZERS_PARALLELISM": "false"}
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        done = subprocess.run(
            command, env={**os.environ, **path, **threads, **offline}, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _compete(arguments: argparse.Namespace) -> None:
    items = json.loads(arguments.requests.read_text())
    score = _lm_eval(arguments) if arguments.contestant == "lm-eval" else _spyhop(arguments)
    score(items[:2])
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    values = score(items)
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu_s": cpu_s, "wall_s": wall_s, "peak_mb": peak_mb, "values": values}))


def _lm_eval(arguments: argparse.Namespace) -> Any:  # noqa: ANN401
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(arguments.threads)
    model = HFLM(
        pretrained=str(arguments.model), dtype=arguments.dtype, device="cpu",
        batch_size=arguments.batch_size,
    )  # fmt: skip

    def score(items: list[dict[str, Any]]) -> list[list[float]]:
        requests = [
            Instance("loglikelihood", {}, (item["context"], text), n)
            for n, item in enumerate(items)
            for text in item["continuations"]
        ]
        found = iter(model.loglikelihood(requests, disable_tqdm=True))
        return [[next(found)[0] for _ in item["continuations"]] for item in items]

    return score


def _spyhop(arguments: argparse.Namespace) -> Any:  # noqa: ANN401
    from spyhop.models import Local, Request
    from spyhop.runtime import Runtime
    from spyhop.schema import Message
    from spyhop.store import Artifact, Record

    record = Record(key="", stage="source", version=1, config={}, inputs={}, digest="")
    runtime = Runtime(threads=arguments.threads, device="cpu")
    backend = Local(dtype=arguments.dtype, format="humpback").connect(
        Artifact(arguments.model, record), runtime
    )
    is_before = arguments.contestant == "before"

    def ask(number: int, item: dict[str, Any]) -> Request:
        how: dict[str, Any] = {"text": item["context"]}
        if is_before:  # it had no plain prompts: two tokens more a context
            how = {"messages": [Message(role="user", content=item["context"])]}
        return Request(id=str(number), options=tuple(item["continuations"]), **how)

    def score(items: list[dict[str, Any]]) -> list[list[float]]:
        requests = [ask(number, item) for number, item in enumerate(items)]
        kind = () if is_before else ("choose",)
        batches = backend.batches(requests, *kind)
        found = {each.id: each for batch in batches for each in backend.choose(batch)}
        return [found[request.id].log_probabilities for request in requests]

    return score


# ---------------------------------------------------------------- the table


def _print(items: list[dict[str, Any]], found: dict[str, dict[str, Any]]) -> None:
    first = found["lm-eval"]
    print("| contestant | CPU s | wall s | CPU, times lm-eval's speed | peak MB | acc | acc_norm |")
    print("|---|---|---|---|---|---|---|")
    for name, run in found.items():
        right = [_right(item, values) for item, values in zip(items, run["values"], strict=True)]
        acc, norm = (sum(each[n] for each in right) / len(items) for n in (0, 1))
        print(
            f"| {name} | {run['cpu_s']:.1f} | {run['wall_s']:.1f} "
            f"| {first['cpu_s'] / run['cpu_s']:.2f} | {run['peak_mb']:,.0f} "
            f"| {acc:.3f} | {norm:.3f} |"
        )
    pairs = list(zip(items, first["values"], found["spyhop"]["values"], strict=True))
    most = max(abs(a - b) for _, one, two in pairs for a, b in zip(one, two, strict=True))
    differ = [sum(_right(item, one)[n] != _right(item, two)[n] for item, one, two in pairs)
              for n in (0, 1)]  # fmt: skip
    print(f"largest difference of a log-probability: {most:.2g}; items judged otherwise: {differ}")


def _right(item: dict[str, Any], values: list[float]) -> tuple[bool, bool]:
    sizes = [len(text.lstrip()) for text in item["continuations"]]
    norms = [value / size for value, size in zip(values, sizes, strict=True)]
    return values.index(max(values)) == item["gold"], norms.index(max(norms)) == item["gold"]


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))


if __name__ == "__main__":
    main()
