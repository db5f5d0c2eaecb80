"""The commands of the Orca page, run on small files of the collections' own shapes."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "orca.md").read_text()
COMMANDS = re.findall(r"^    (spyhop .*?)(?:  +#.*)?$", PAGE, re.MULTILINE)
SMALLER = {
    "max_new_tokens = 96": "max_new_tokens = 4",
    "limit = 40": 'limit = 1\ntasks = ["TASK"]',
    "hidden_size = 64": "hidden_size = 32",
    "intermediate_size = 192": "intermediate_size = 64",
    "num_layers = 4": "num_layers = 2",
}
BBH_TASK, AGIEVAL_TASK = "web_of_lies", "aqua-rat"
CHOICES = "Options:\n(A) one\n(B) two"


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def _files() -> dict[str, str]:
    sums = [(f"What is {n} and {n % 7} together?", str(n + n % 7)) for n in range(40)]
    task = {
        "Definition": ["Name the number."],
        "Categories": ["Number Naming"],
        "Input_language": ["English"],
        "Output_language": ["English"],
        "Instruction_language": ["English"],
        "Domains": ["Mathematics"],
        "Source": ["toy"],
        "URL": ["https://example.org"],
        "Instances": [
            {"id": str(n), "input": f"Number {n}?", "output": [f"it is {n}"]} for n in range(20)
        ],
        "Instance License": ["MIT"],
    }
    templates = [{"prompt": f"Say {n} in words.", "completion": f"word {n}"} for n in range(20)]
    bbh = [{"input": f"Which is number {n}?\n{CHOICES}", "target": "(A)"} for n in range(2)]
    agieval = [
        {"passage": None, "question": f"Which is item {n}?", "options": ["(A)one", "(B)two"],
         "label": "B"} for n in range(2)
    ]  # fmt: skip
    return {
        "flan_cot/cot_data/toy_train.tsv": "".join(
            f"{asked}\t{gold}\tI add them up to {gold}.\n" for asked, gold in sums
        ),
        "natural_instructions_en/tasks/task1_toy.json": json.dumps(task),
        "t0_p3_templates_50k/data_per_template/toy_say.jsonl": _lines(templates),
        f"bbh/bbh/{BBH_TASK}.json": json.dumps({"examples": bbh}),
        f"agieval/v1/{AGIEVAL_TASK}.jsonl": _lines(agieval),
    }


def _run(folder: Path, command: str) -> str:
    words = shlex.split(command)[1:]
    done = subprocess.run(
        [sys.executable, "-m", "spyhop", *words],
        cwd=folder, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_commands_of_the_page_run(tmp_path: Path, words: Any):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    data = tmp_path / "examples" / "data"
    for name, text in _files().items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(text)
    words.save_pretrained(data / "tok_llama2")
    mini = tmp_path / "examples" / "orca-mini.toml"
    text = mini.read_text()
    for large, small in SMALLER.items():
        assert large in text
        text = text.replace(large, small)
    for task in (BBH_TASK, AGIEVAL_TASK):
        text = text.replace("TASK", task, 1)
    mini.write_text(text)
    assert len(COMMANDS) >= 4
    told = {command: _run(tmp_path, command) for command in COMMANDS}
    (ran,) = (text for command, text in told.items() if " run " in command)
    assert "report: " in ran and "done reversed" in ran and "done answers-only" in ran
    out = tmp_path / "examples" / "spyhop-out" / "runs" / "orca-mini"
    assert "student minus answers-only" in (out / "report" / "report.html").read_text()
    assert "train.jsonl" in (out / "dataset" / "README.md").read_text()
