"""Scores written for other tools, read back by their readers and by ours."""

import json
import os
import subprocess
from pathlib import Path

import huggingface_hub
import pytest
import yaml

import written
from command import Command
from spyhop.evaluate.logs import Log, export_scores, read_log
from spyhop.schema import InputError

READ_BACK = """
import json, sys
from inspect_ai.log import list_eval_logs, read_eval_log, write_eval_log
found = []
for info in list_eval_logs(sys.argv[1]):
    log = read_eval_log(info)
    write_eval_log(log, f"{sys.argv[2]}/{log.eval.task.replace(' ', '-')}.eval")
    found.append({
        "task": log.eval.task, "model": log.eval.model, "status": log.status,
        "accuracy": log.results.scores[0].metrics["accuracy"].value,
        "samples": [
            [each.input, each.choices, each.target, each.output.completion, each.output.stop_reason,
             {name: score.as_float() for name, score in (each.scores or {}).items()}]
            for each in log.samples
        ],
    })
print(json.dumps(sorted(found, key=lambda each: each["task"])))
"""


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    rows = [
        written.spyhop_row(
            n, float(n % 3 > 0), task="add" if n < 5 else "sub it", options=["x", "y"],
            system_message="Be brief é.", sample_index=k, topic="t",
            ending={3: "failed", 4: "cut"}.get(n, "whole"), error="HTTP 400" if n == 3 else None,
        )
        for n in range(8)
        for k in range(2)
    ]  # fmt: skip
    return written.lines(tmp_path / "out" / "scores-m.jsonl", rows)


def _values(log: Log) -> list[tuple[str, float | None]]:
    columns = (log.table.column(name).to_pylist() for name in ("task", "value"))
    return sorted(zip(*columns, strict=True), key=str)


def test_inspect_archives_are_the_same_rows(scores: Path, tmp_path: Path):
    files = export_scores(scores, "inspect", tmp_path / "logs")
    assert len(files) == 2
    own, log = read_log(scores), read_log(tmp_path / "logs")
    assert (log.kind, log.model, log.metrics) == ("inspect", "m", own.metrics)
    assert _values(log) == _values(own) and None in dict(_values(log)).values()
    assert sorted(log.table.column("sample").to_pylist()) == [1] * 8 + [2] * 8
    assert {name for names in log.offered.values() for name in names} == {"accuracy", "strict"}


def test_lm_eval_results_are_the_same_rows_without_failed_calls(scores: Path, tmp_path: Path):
    summary, *_ = export_scores(scores, "lm-eval", tmp_path / "lm")
    own, log = read_log(scores), read_log(tmp_path / "lm")
    assert (log.kind, log.model) == ("lm-eval", "m")
    kept = [value for _, value in _values(own) if value is not None]
    assert sorted(log.table.column("value").to_pylist()) == sorted(kept)
    results = json.loads(summary.read_text())
    assert results["results"]["sums_add"]["accuracy,none"] == pytest.approx(6 / 8)
    assert results["n-samples"]["sums_add"] == {"original": 10, "effective": 8}


def test_hub_entries_are_read_by_its_library(scores: Path, tmp_path: Path):
    named = {"sums*": "openai/gsm8k:main", "sums add": "a/b"}
    first, second = export_scores(scores, "hub", tmp_path / "hub", named)
    entry, other = (
        huggingface_hub.parse_eval_result_entries(yaml.safe_load(path.read_text()))[0]
        for path in (first, second)
    )
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "main", 71.43)
    assert (other.task_id, other.value) == ("default", 75.0)
    assert first.parent == tmp_path / "hub" / ".eval_results" and "n = 14" in entry.notes


def test_what_cannot_be_exported_is_one_line(
    scores: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    command = Command(monkeypatch, capsys)
    done = command("export", scores, "--to", "hub", "--out", tmp_path / "hub")
    assert done.code == 2 and "name the hub's data set" in done.stderr
    done = command(
        "export", scores, "--to", "hub", "--out", tmp_path, "--dataset", "mmlu=cais/mmlu"
    )
    assert done.code == 2 and "no task 'mmlu'; the scores have sums add" in done.stderr
    done = command("export", scores, "--to", "hub", "--out", tmp_path, "--dataset", "sums add")
    assert done.code == 2 and "--dataset 'sums add': write TASK=ID" in done.stderr
    done = command("export", scores, "--to", "inspect", "--out", tmp_path / "logs")
    assert done.code == 0 and done.stdout.count(".eval\n") == 2
    with pytest.raises(InputError, match="a log of inspect; only scores of spyhop are exported"):
        export_scores(tmp_path / "logs", "lm-eval", tmp_path)


@pytest.mark.slow
def test_inspect_itself_reads_the_archives_and_writes_what_we_read(scores: Path, tmp_path: Path):
    """CI has inspect in an environment of its own (`.ci/run`)."""
    python = os.environ.get("SPYHOP_INSPECT")
    if not python:
        pytest.skip("needs inspect-ai: set SPYHOP_INSPECT to the Python of its environment")
    export_scores(scores, "inspect", tmp_path / "logs")
    (tmp_path / "again").mkdir()
    arguments = [python, "-c", READ_BACK, tmp_path / "logs", tmp_path / "again"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    add, sub = json.loads(done.stdout)
    assert (add["task"], add["model"], add["status"]) == ("sums add", "m", "success")
    assert (add["accuracy"], len(add["samples"]), len(sub["samples"])) == (0.75, 10, 6)
    assert add["samples"][1] == [
        "How much is 1 + 1?", ["x", "y"], "A", "So it is 1.", "stop",
        {"accuracy": 1.0, "strict": 1.0},
    ]  # fmt: skip
    assert [each[4:] for each in add["samples"][3:5]] == [
        ["unknown", {}], ["max_tokens", {"accuracy": 1.0, "strict": 1.0}]
    ]  # fmt: skip
    assert _values(read_log(tmp_path / "again")) == _values(read_log(tmp_path / "logs"))
