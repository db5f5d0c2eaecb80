"""`spyhop tasks`: what is known of benchmarks, with and without their files."""

import hashlib
import json
from pathlib import Path

import pytest

from spyhop.cli import commands
from spyhop.evaluate.suite import FOLDER


def _run(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    commands.app(["tasks", *args], standalone_mode=False)
    return capsys.readouterr().out


def test_all_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]):
    lines = _run(capsys).splitlines()
    assert any(line.split()[:3] == ["mmlu", "14,042", "likelihood"] for line in lines)
    assert any(line.split() == ["orca", "bbh,", "agieval,", "truthfulqa_mc"] for line in lines)


def test_without_files_the_description_is_shown(capsys: pytest.CaptureFixture[str]):
    text = _run(capsys, "bbh")
    digest = hashlib.sha256((FOLDER / "bbh.toml").read_bytes()).hexdigest()[:16]
    for part in ("5,511 published", "2306.02707", "bbh:cot, bbh:free", digest, "--data bbh=FOLDER"):
        assert part in text
    assert text.count("SHA-256") == 1 and _run(capsys, "orca").count("SHA-256") == 3


def test_with_files_items_options_chance_and_the_first_prompt_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [
        {"question": "Which floats?", "options": ["cork", "coin"], "answer": "cork"},
        {"question": "What?", "options": ["a", "b", "c", "d"], "answer": "d"},
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = _run(capsys, "questions", "--data", f"questions={tmp_path}")
    assert ["mine", "2", "2-4", "37.5%", "18"] in [line.split() for line in text.splitlines()]
    prompt = (
        "Q: Which floats? Answer Choices: (A) cork (B) coin\nA: Among A through B, the answer is"
    )
    assert f"--- user turn of the first item\n{prompt}\n" in text
    assert "--- gold answer of the first item\nA\n" in text


def test_an_lm_eval_file_shows_what_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "t.jsonl").write_text('{"q": "Sky?", "c": ["blue", "red"], "g": 0}\n')
    (tmp_path / "sky.yaml").write_text(
        "task: sky\ndataset_path: a/b\ntest_split: test\noutput_type: multiple_choice\n"
        "doc_to_text: q\ndoc_to_choice: c\ndoc_to_target: g\n"
    )
    text = _run(capsys, str(tmp_path / "sky.yaml"), "--data", f"a/b={tmp_path / 't.jsonl'}")
    assert "likelihood, plain, metric acc" in text and "' blue'\n' red'\n" in text
    assert "--- plain text of the first item\nSky?\n" in text
