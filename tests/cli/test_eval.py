"""`spyhop eval`: from folders of weights and files of questions to scores with their rates."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from command import Done

QUESTIONS = [
    {"question": f"Which is {n}?", "answer": "AB"[n % 2], "options": [f"{n}", f"not {n}"]}
    for n in range(6)
] + [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(4)]
QUICK = ("--set", "measure.sampling.max_new_tokens=6", "--set", "runtime.device=cpu")


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture
def place(tmp_path: Path, tiny_folder: Path) -> Path:
    for name in ("base", "other"):
        shutil.copytree(tiny_folder, tmp_path / name)
    _write(tmp_path / "q.jsonl", QUESTIONS)
    return tmp_path


def _command(*more: str) -> tuple[str, ...]:
    given = ("--suite", "questions", "--data", "questions=q.jsonl", "--out", "out", *QUICK)
    return ("eval", "base", *given, *more)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _refused(done: Done, text: str) -> None:
    code, _, error = done
    (line,) = error.splitlines()
    assert code == 2 and re.search(text, line), line


def test_models_are_scored_and_every_row_says_what_was_asked(cli, place: Path):
    code, told, error = cli(*_command("--samples", "4"), "other")
    assert code == 0, error
    assert re.search(r"^questions all +base +10 .* asked ", told, re.M), told
    assert "exploratory, scored" in told
    one, other = (_rows(place / "out" / f"scores-{name}.jsonl") for name in ("base", "other"))
    assert len(one) == len(other) == 10 and one[0]["model"] == "base"
    assert [row["item_digest"] for row in one] == [row["item_digest"] for row in other]
    assert len({row["item_digest"] for row in one}) == 10
    assert one[0]["question"].startswith("Q: Which is 0? Answer Choices: (A) 0 (B) not 0\nA: Among")
    sampled = _rows(place / "out" / "sampled-base.jsonl")
    assert [row["sample_index"] for row in sampled] == [0, 1, 2, 3] * 10
    page = (place / "out" / "runs" / "eval" / "report" / "report.html").read_text()
    for text in ("error between samples", "strict %", "Tango"):
        assert text in page
    code, told, _ = cli(*_command("--samples", "4"), "other")
    assert code == 0 and "0 steps run" in told


def test_a_plan_says_which_difference_can_be_shown(cli, place: Path):
    code, told, error = cli(*_command("--plan"))
    assert code == 0, error
    assert re.search(r"questions: 10 items can show no difference between two models", told)
    assert not list(place.glob("out/evaluate.*"))
    code, told, error = cli(*_command("--plan", "--limit", "3"))
    assert code == 0 and "questions: 3 items can show" in told, error


def test_system_messages_are_swept(cli, place: Path):
    _write(place / "m.jsonl", [{"id": "Empty", "text": ""}, {"id": "brief", "text": "Be brief."}])
    code, _, error = cli(*_command("--system-messages", "m.jsonl", "--set", "measure.sampling."
                                      "max_new_tokens=2"))  # fmt: skip
    assert code == 0, error
    page = (place / "out" / "runs" / "eval" / "report" / "report.html").read_text()
    assert "best on test %" in page and "brief" in page


def test_options_are_scored_by_likelihood(cli, place: Path):
    _write(place / "q.jsonl", QUESTIONS[:6])
    code, told, error = cli(*_command("--set", "measure.method=likelihood"))
    assert code == 0, error
    rows = _rows(place / "out" / "scores-base.jsonl")
    assert all(row["metrics"].keys() >= {"acc", "acc_norm", "acc_bytes"} for row in rows)
    assert re.search(r"asked likelihood", told)


def test_a_changed_extractor_asks_nothing_and_lists_the_verdicts(cli, place: Path):
    code, _, error = cli(*_command())
    assert code == 0, error
    shutil.rmtree(place / "base")
    shutil.rmtree(place / "out" / ".journal")
    code, told, error = cli("eval", "--rescore", "out")
    assert code == 0 and "0 of 10 verdicts change" in told, error
    code, told, error = cli("eval", "--rescore", "out", "--set", "measure.extract=first_capital")
    assert code == 0, error
    rows = _rows(place / "out" / "rescores-base.jsonl")
    before = _rows(place / "out" / "scores-base.jsonl")
    num = sum(a["extracted"] != b["extracted"] for a, b in zip(rows, before, strict=True))
    assert f"{num} of 10 verdicts change" in told
    assert not (place / "out" / ".journal").exists()
    for change, text in [
        ("measure.extract=last", r"measure\.extract.*last"),
        ("measure.extracted=stated", r"measure\.extracted"),
        ("measure.form=prefilled", r"measure\.form: .*stored.* extract, metric"),
        ("measure=3", r"--set measure: "),
        ("limit=3", r"--set limit: "),
    ]:
        _refused(cli("eval", "--rescore", "out", "--set", change), text)


def test_wrong_inputs_are_one_line(cli, place: Path):
    _refused(cli("eval", "base"), r"name at least one model and one --suite")
    _refused(cli("eval", "base", "--suite", "questions"), r"--data questions=")
    _refused(cli("eval", "--rescore", "."), r"no finished evaluation")
    _refused(cli(*_command("--set", "measure.metric=acc_norm")), r"acc_norm.*likelihood")
    _refused(cli(*_command("--set", "measure.form=begun")), r"measure\.form.*begun")
    _refused(cli(*_command("--data", "qestions=q.jsonl")), r"'qestions': no suite .* questions$")
    shown = cli("tasks", "questions", "--data", "question=q.jsonl")
    _refused(shown, r"'question': no suite here reads it; known: questions")
    (place / "q.jsonl").write_text("")
    _refused(cli(*_command()), r"q\.jsonl: no items of questions")
    _refused(cli(*_command("--system-messages", "q.jsonl")), r"q\.jsonl: no rows")
    _refused(cli(*_command("--system-messages", "m.jsonl")), r"m\.jsonl: no such file")
    (place / "q.jsonl").write_text('{"question": "Q", "answer": \n')
    _refused(cli(*_command()), r"q\.jsonl: line 1: not JSON")
    _refused(cli("eval", "none", *_command()[2:]), r"none: ")


def _num_replies(out: Path) -> int:
    """Return how many replies are journaled, while another process writes them."""
    found = 0
    for path in out.glob(".journal/*.sqlite"):
        try:
            with sqlite3.connect(path) as db:
                found += db.execute("SELECT count(*) FROM replies").fetchone()[0]
        except sqlite3.Error:
            continue
    return found


@pytest.mark.slow
def test_an_evaluation_killed_twice_equals_a_fresh_one(cli, place: Path):
    _write(place / "q.jsonl", [{**row, "question": f"{row['question']} {n}"}
                               for n in range(12) for row in QUESTIONS])  # fmt: skip
    long = ("--set", "measure.sampling.max_new_tokens=16", "--samples", "2",
            "--set", "runtime.inference_tokens=600")  # fmt: skip
    command = [sys.executable, "-m", "spyhop", *_command(*long), "--out", "killed"]
    for _ in range(2):
        had = _num_replies(place / "killed")
        process = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 90
        while _num_replies(place / "killed") < had + 20:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.02)
        process.kill()
        process.wait()
    for out in ("killed", "fresh"):
        code, _, error = cli(*_command(*long), "--out", out)
        assert code == 0, error
    for name in ("scores-base.jsonl", "sampled-base.jsonl"):
        assert (place / "killed" / name).read_bytes() == (place / "fresh" / name).read_bytes()


def test_a_trained_model_is_named_by_its_output_folder(cli, place: Path):
    for name in ("other", "third"):
        (place / name / "kept").mkdir(parents=True, exist_ok=True)
        (place / name / "model").symlink_to(place / "base")
    code, _, error = cli(*_command(), "other/model", "./third/../third/model")
    assert code == 0, error
    names = {path.name for path in (place / "out").glob("scores-*.jsonl")}
    assert names == {"scores-base.jsonl", "scores-other.jsonl", "scores-third.jsonl"}


def test_a_declared_metric_is_that_of_a_suite(cli, place: Path):
    sealed = ("--set", "sealed.arms=['base','other']", "--set", "sealed.smallest_difference=0.1")
    declared = (*sealed, "--set", "sealed.metric=f1")
    _refused(cli(*_command(*declared), "other"), r"sealed\.metric = 'f1': questions has 'accuracy'")
    code, told, error = cli(*_command(*sealed), "other")
    assert code == 0, error
    assert re.search(r"^confirmatory: metric accuracy, base against other", told, re.M)
    page = (place / "out" / "runs" / "eval" / "report" / "report.html").read_text()
    assert "Confirmatory" in page and "smallest of interest" in page
    assert "10 items can be expected to show no difference" in told and "note sealed" in told


def test_a_model_without_a_chat_template_is_asked_in_blocks_and_noted(cli, place: Path):
    for path in [place / "base" / "spyhop.json", place / "base" / "chat_template.jinja"]:
        path.unlink(missing_ok=True)
    settings = place / "base" / "tokenizer_config.json"
    told = json.loads(settings.read_text())
    settings.write_text(json.dumps({k: v for k, v in told.items() if k != "chat_template"}))
    code, told, error = cli(*_command())
    assert code == 0, error
    assert "base has no chat template: it is asked in Orca's blocks." in told


def test_a_training_measures_its_base_and_its_student(cli, place: Path):
    turns = lambda n: [{"role": "user", "content": f"Say {n}."},  # noqa: E731
                       {"role": "assistant", "content": f"{n}"}]  # fmt: skip
    _write(place / "rows.jsonl", [{"messages": turns(n)} for n in range(20)])
    code, _, error = cli(
        "train", "rows.jsonl", "--base", "base", "--out", "out", "--suite", "questions",
        "--data", "questions=q.jsonl", *QUICK, "--set", "train.batch_tokens=300",
        "--set", "train.max_tokens=90", "--set", "train.epochs=1", "--set", "probe=false",
    )  # fmt: skip
    assert code == 0, error
    page = (place / "out" / "runs" / "train" / "report" / "report.html").read_text()
    assert "student minus base" in page and "strict %" in page
    assert "questions" in (place / "out" / "model" / "README.md").read_text()
