"""Scores of spyhop as other tools have them: inspect `.eval`, lm-eval results, the hub's YAML.

Sources: inspect-ai 0.3.285 (log schema 2), lm-eval 0.4.13, huggingface.co/docs/hub/eval-results.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import yaml

from spyhop import __version__
from spyhop.evaluate.logs.formats import Fields, LogRow, digest, spyhop_row
from spyhop.evaluate.logs.read import log_files, log_records
from spyhop.schema import InputError
from spyhop.store import atomic_write

Scored = list[tuple[Fields, LogRow]]
_STOPS = {"whole": "stop", "cut": "max_tokens", "refused": "content_filter"}
_SUMMARY = ("id", "epoch", "input", "target", "metadata", "scores")
_NO_NAME = re.compile(r"\W+")


def export_scores(
    path: Path, tool: str, out: Path, datasets: Mapping[str, str] | None = None
) -> list[Path]:
    """Write the scores of a model for another tool, and return the files.

    Args:
        path: `scores-NAME.jsonl`, or its folder.
        tool: `inspect`, `lm-eval` or `hub`.
        out: Folder of the files.
        datasets: For the hub: its data set, with `:task` if it has several, by pattern of tasks.

    Raises:
        InputError: If these are no scores of spyhop, or no task matches `datasets`.
    """
    (file,) = log_files(path)[:1]
    if file.kind != "spyhop":
        raise InputError(f"{path}: a log of {file.kind}; only scores of spyhop are exported")
    tasks: dict[str, Scored] = defaultdict(list)
    for _, where, fields in log_records(file):
        row = spyhop_row(fields, where, "")
        tasks[row.task].append((fields, row))
    model, now = file.model or file.path.stem, datetime.now(UTC).replace(microsecond=0)
    out.mkdir(parents=True, exist_ok=True)
    if tool == "hub":
        return _hub(out / ".eval_results", tasks, datasets or {}, now)
    return (_inspect if tool == "inspect" else _lm_eval)(out, model, tasks, now)


def _inspect(out: Path, model: str, tasks: Mapping[str, Scored], now: datetime) -> list[Path]:
    written = []
    for task, rows in tasks.items():
        samples = [_sample(model, fields, row) for fields, row in rows]
        names = {f"samples/{each['id']}_epoch_{each['epoch']}.json": each for each in samples}
        scores = [
            {"name": name, "scorer": name, "metrics": {
                "accuracy": {"name": "accuracy", "value": mean},
                "stderr": {"name": "stderr", "value": error}}}
            for name, (mean, error, _) in _means(rows).items()
        ]  # fmt: skip
        spec: dict[str, Any] = {
            "created": now.isoformat(), "task": task, "task_id": digest(task)[:22], "model": model,
            "dataset": {"name": task, "samples": len(samples)}, "config": {},
            "packages": {"spyhop": __version__},
        }  # fmt: skip
        start: dict[str, Any] = {"version": 2, "eval": spec, "plan": {}}
        done = {"total_samples": len(samples), "completed_samples": len(samples), "scores": scores}
        summaries = [{key: each[key] for key in _SUMMARY} | {"completed": True} for each in samples]
        header = {**start, "status": "success", "results": done}
        members: dict[str, Any] = {"_journal/start.json": start, **names}
        members |= {"summaries.json": summaries, "header.json": header}
        name = f"{now:%Y-%m-%dT%H-%M-%S}-00-00_{_NO_NAME.sub('-', task)}_{spec['task_id']}.eval"
        with atomic_write(out / name) as part, ZipFile(part, "w", ZIP_DEFLATED) as archive:
            for member, content in members.items():
                archive.writestr(member, json.dumps(content))
        written.append(out / name)
    return written


def _sample(model: str, fields: Fields, row: LogRow) -> dict[str, Any]:
    """Return a sample of inspect; a failed call has an error and no score."""
    system = fields.get("system_message")
    turns = [{"role": "system", "content": system}] if system else []
    reply = {"role": "assistant", "content": row.response, "source": "generate", "model": model}
    values = {k: {"value": v, "answer": row.answer} for k, v in row.values.items() if v is not None}
    sample = {
        "id": fields["id"], "epoch": row.sample + 1, "input": row.question, "target": row.gold,
        "choices": list(fields.get("options") or ()) or None, "scores": values,
        "messages": [*turns, {"role": "user", "content": row.question, "source": "input"}, reply],
        "output": {"model": model, "completion": row.response, "choices": [
            {"message": reply, "stop_reason": _STOPS.get(fields.get("ending", ""), "unknown")}]},
        "metadata": {"topic": row.topic, "passage": row.passage, "item_digest": row.item},
    }  # fmt: skip
    if fields.get("ending") == "failed":
        text = str(fields.get("error"))
        sample["error"] = {"message": text, "traceback": "", "traceback_ansi": ""}
    return sample


def _lm_eval(out: Path, model: str, tasks: Mapping[str, Scored], now: datetime) -> list[Path]:
    """Write `results_DATE.json` and the samples of each task; failed calls are left out."""
    folder = out / re.sub(r"[\"<>:/|\\?*\[\]]+", "__", model)
    date, names = f"{now:%Y-%m-%dT%H-%M-%S}.000000", {t: _NO_NAME.sub("_", t) for t in tasks}
    results, sizes, written = {}, {}, []
    for task, rows in tasks.items():
        kept = [(fields, row) for fields, row in rows if None not in row.values.values()]
        results[names[task]] = {"name": names[task], "alias": task, "sample_len": len(kept)} | {
            f"{name}{mark},none": value
            for name, (mean, error, _) in _means(rows).items()
            for mark, value in (("", mean), ("_stderr", error))
        }
        sizes[names[task]] = {"original": len(rows), "effective": len(kept)}
        lines = "".join(f"{json.dumps(_document(n, *pair))}\n" for n, pair in enumerate(kept))
        written.append(_put(folder / f"samples_{names[task]}_{date}.jsonl", lines.encode()))
    summary = {
        "results": results, "group_subtasks": {}, "configs": {n: {"task": n} for n in results},
        "versions": {}, "n-shot": {}, "n-samples": sizes, "date": now.timestamp(),
        "config": {"model": "spyhop", "model_args": {"pretrained": model}},
        "model_name": model, "spyhop_version": __version__,
    }  # fmt: skip
    text = json.dumps(summary, indent=2)
    return [_put(folder / f"results_{date}.json", text.encode()), *written]


def _document(number: int, fields: Fields, row: LogRow) -> dict[str, Any]:
    doc = {"question": row.question, "options": list(fields.get("options") or ()),
           "target": row.gold, "topic": row.topic, "passage": row.passage}  # fmt: skip
    sent: Fields = {"until": [], "max_gen_toks": fields.get("max_new_tokens")}
    hashed = {"doc": json.dumps(doc, indent=2, ensure_ascii=False), "prompt": row.question,
              "target": row.gold}  # fmt: skip
    return {
        "doc_id": number, "doc": doc, "target": row.gold, "filter": "none",
        "arguments": {"gen_args_0": {"arg_0": row.question, "arg_1": sent}},
        "resps": [[row.response]], "metrics": list(row.values), **row.values,
        "filtered_resps": ["[invalid]" if row.answer is None else row.answer],
        **{f"{name}_hash": sha256(text.encode()).hexdigest() for name, text in hashed.items()},
    }  # fmt: skip


def _hub(
    folder: Path, tasks: Mapping[str, Scored], datasets: Mapping[str, str], now: datetime
) -> list[Path]:
    """Write one file per data set of the hub; values are in percent."""
    written = []
    for pattern, named in datasets.items():
        rows = [
            pair for task, found in tasks.items() if fnmatchcase(task, pattern) for pair in found
        ]
        if not rows:
            raise InputError(f"no task {pattern!r}; the scores have {', '.join(tasks):.200}")
        name, (mean, error, num) = next(iter(_means(rows).items()))
        dataset, _, task_id = named.partition(":")
        entry = {
            "dataset": {"id": dataset, "task_id": task_id or "default"},
            "value": round(100 * mean, 2),
            "date": now.isoformat().replace("+00:00", "Z"),
            "notes": f"spyhop {__version__}: {name} in %, n = {num}, SE {100 * error:.2f}",
        }
        place = folder / f"{_NO_NAME.sub('-', named)}.yaml"
        written.append(_put(place, yaml.safe_dump([entry], sort_keys=False).encode()))
    if not written:
        raise InputError("name the hub's data set of at least one task, such as gsm8k=openai/gsm8k")
    return written


def _means(rows: Scored) -> dict[str, tuple[float, float, int]]:
    """Return mean, standard error and number of the scored rows, by metric."""
    names = dict.fromkeys(name for _, row in rows for name in row.values)
    found = {}
    for name in names:
        values = [v for _, row in rows if (v := row.values.get(name)) is not None]
        if n := len(values):
            error = float(np.std(values, ddof=min(1, n - 1))) / n**0.5
            found[name] = (float(np.mean(values)), error, n)
    return found


def _put(place: Path, content: bytes) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(place) as temporary:
        temporary.write_bytes(content)
    return place
