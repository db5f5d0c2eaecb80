"""Small logs with the structure that each tool writes."""

import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa


def lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def spyhop_row(number: int, right: float, **more: Any) -> dict[str, Any]:
    question = f"How much is {number} + {number}?"
    return {
        "id": f"{number:016x}", "suite": "sums", "task": "add", "response": f"So it is {number}.",
        "extracted": "A", "correct": right == 1, "value": right, "metric": "accuracy",
        "target": "A", "chance": 0.5, "finish_reason": "stop", "error": None, "ending": "whole",
        "response_tokens": 5, "sample_index": 0, "metrics": {"strict": 1.0}, "passage": "",
        "topic": "", "model": "m", "question": question,
        "item_digest": hashlib.sha256(question.encode()).hexdigest(),
    } | more  # fmt: skip


def spyhop_log(path: Path, values: Sequence[float], **more: Any) -> Path:
    return lines(path, [spyhop_row(n, value, **more) for n, value in enumerate(values)])


def lm_eval_choice(number: int, scores: Sequence[float], gold: int = 0) -> dict[str, Any]:
    doc = {"q": f"What is {number} + {number}?", "choices": ["x", "y"], "subject": "sums"}
    best = scores.index(max(scores))
    arguments = {
        f"gen_args_{n}": {"arg_0": f"Question: {doc['q']}\nAnswer:", "arg_1": f" {option}"}
        for n, option in enumerate(["x", "y"])
    }
    return {
        "doc_id": number, "doc": doc, "target": str(gold), "arguments": arguments,
        "resps": [[[str(score), "False"]] for score in scores],
        "filtered_resps": [[str(score), "False"] for score in scores], "filter": "none",
        "metrics": ["acc", "acc_norm"], "doc_hash": hashlib.sha256(str(doc).encode()).hexdigest(),
        "prompt_hash": hashlib.sha256(arguments["gen_args_0"]["arg_0"].encode()).hexdigest(),
        "target_hash": "0", "acc": float(best == gold), "acc_norm": float(best != gold),
    }  # fmt: skip


def lm_eval_text(number: int, response: str, chosen: str) -> dict[str, Any]:
    prompt = f"Q: {number} * 3\nA:"
    gold = str(3 * number)
    found = response if chosen == "flexible" else "[invalid]"
    return {
        "doc_id": number, "doc": {"question": f"{number} * 3", "answer": gold}, "target": gold,
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {"until": ["\n"]}}},
        "resps": [[response]], "filtered_resps": [found], "filter": chosen,
        "metrics": ["exact_match"], "doc_hash": f"{number:064x}",
        "prompt_hash": hashlib.sha256(prompt.encode()).hexdigest(), "target_hash": "0",
        "exact_match": float(found == gold),
    }  # fmt: skip


def inspect_sample(number: int, value: Any, epoch: int = 1, **more: Any) -> dict[str, Any]:
    asked = {"id": "a", "role": "user", "content": f"Answer: {number}?", "source": "input"}
    reply = {"id": "b", "role": "assistant", "content": "It is A.", "source": "generate"}
    return {
        "id": number, "epoch": epoch, "input": f"{number}?", "choices": ["u", "v"], "target": "A",
        "messages": [asked, reply], "output": {"model": "mock", "completion": "It is A."},
        "scores": {"choice": {"value": value, "answer": "A"}, "other": {"value": {"x": 1, "y": 0}}},
        "metadata": {"subject": "odd" if number % 2 else "even"}, "attachments": {},
    } | more  # fmt: skip


HEADER = {
    "version": 2,
    "status": "success",
    "eval": {"task": "mc", "model": "mock/a", "created": "2026-11-26T07:50:24+00:00"},
}


def inspect_json(path: Path, samples: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text(json.dumps({**HEADER, "samples": samples}))
    return path


def inspect_eval(path: Path, samples: Sequence[Mapping[str, Any]], *, chunks: bool = False) -> Path:
    """Write an `.eval` archive; with `chunks`, in inspect's shape for large samples."""
    members: dict[str, Any] = {"_journal/start.json": HEADER, "header.json": HEADER}
    for sample in samples:
        name = f"samples/{sample['id']}_epoch_{sample['epoch']}"
        if not chunks:
            members[f"{name}.json"] = sample
            continue
        texts = ["of no use", sample["messages"][0]["content"]]
        asked = {**sample["messages"][0], "content": "attachment://1"}
        members[f"{name}/sample.json"] = {
            key: value for key, value in sample.items() if key not in ("messages", "metadata")
        }
        members[f"{name}/metadata.json"] = sample["metadata"]
        members[f"{name}/messages/0.json"] = [asked, *sample["messages"][1:]]
        members[f"{name}/attachments/0.json"] = texts
    return zstd_zip(path, {name: json.dumps(value).encode() for name, value in members.items()})


def zstd_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write a zip of Zstandard members by hand: the standard library of 3.11 cannot."""
    codec, body, directory = pa.Codec("zstd"), b"", b""
    for name, data in members.items():
        packed = bytes(codec.compress(data, asbytes=True))
        fields = struct.pack(
            "<HHHHHIIIHH", 45, 0, 93, 0, 33, zlib.crc32(data), len(packed), len(data), len(name), 0
        )
        directory += b"PK\1\2" + struct.pack("<H", 45) + fields
        directory += struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name.encode()
        body += b"PK\3\4" + fields + name.encode() + packed
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    path.write_bytes(body + directory + b"PK\5\6" + end)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == list(members)
    return path


def alpaca(path: Path, preferences: Sequence[float | None]) -> Path:
    rows = [
        {"instruction": f"Do {n}", "output_1": "one", "generator_1": "davinci", "dataset": "koala",
         "output_2": "two", "generator_2": "mine", "annotator": "judge", "preference": preference}
        for n, preference in enumerate(preferences)
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def arena(number: int, *labels: str | None) -> dict[str, Any]:
    asked = (
        "<|User Prompt|>\nWhy?\n\n<|The Start of Assistant A's Answer|>\nthe base's\n"
        "<|The End of Assistant A's Answer|>\n\n<|The Start of Assistant B's Answer|>\nmine\n"
        "<|The End of Assistant B's Answer|>"
    )
    games = [
        None if label is None else
        {"score": label or None, "judgment": {"answer": "..."},
         "prompt": [{"role": "system", "content": "Judge."}, {"role": "user", "content": asked}]}
        for label in labels
    ]  # fmt: skip
    return {"uid": f"u{number}", "category": "hard_prompt", "judge": "j", "model": "mine",
            "baseline": "base", "games": games}  # fmt: skip
