"""The package as it is installed: a core without PyTorch, and the extra `[local]`.

`SPYHOP_CORE` and `SPYHOP_LOCAL` name the interpreters of environments with the wheel alone, and
with its extra. Without them, this environment serves: for the core, with the libraries blocked.
"""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import spyhop
from command import Done
from corpus.pages import write_articles
from recipes.test_quickstart import TINY
from server import KEY, Call, Server
from spyhop.lazy import EXTRAS

BLOCKED = (*EXTRAS["local"], "sentencepiece", "google.protobuf")
BLOCK = f"""
import sys
from importlib.machinery import PathFinder
class Absent(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in {BLOCKED} else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Absent
"""
IMPORT_ALL = """
import importlib, pkgutil, sys, spyhop
names = [each.name for each in pkgutil.walk_packages(spyhop.__path__, "spyhop.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
found = [name for name in sys.argv[1:] if sys.modules.get(name) or importlib.util.find_spec(name)]
assert not found, found
print(len(names), spyhop.__file__)
"""
COMMANDS = """
import contextlib, io, json, sys
from spyhop.cli import main
for words in json.load(sys.stdin):
    sys.argv, code, said = ["spyhop", *words], 0, [io.StringIO(), io.StringIO()]
    with contextlib.redirect_stdout(said[0]), contextlib.redirect_stderr(said[1]):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, *(each.getvalue() for each in said)]))
"""
"""Several commands in one process, for a start takes longer than most of them."""
QUESTIONS = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(6)]
TEACHER = 'model = "{0}"\n[[endpoints]]\nurl = "{1}"\nkey_env = "TOY_KEY"\n'


def _says(call: Call) -> str:
    """As a judge: prefer the first response. As a student: a right answer; the other is wrong."""
    asked = call.body["messages"][-1]["content"]
    if "[Response A]" in asked:
        return "Verdict: A"
    found = re.search(r"What is (\d+)", asked)
    number = int(found[1]) + (call.body["model"] == "student") if found else 0
    return f"The answer is {number}."


class Core:
    """Commands of an environment without PyTorch, in a folder outside the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = os.environ.get("SPYHOP_CORE", sys.executable)
        self.env = {**os.environ, "TOY_KEY": KEY}
        if "SPYHOP_CORE" not in os.environ:
            (folder / "block").mkdir()
            (folder / "block" / "sitecustomize.py").write_text(BLOCK)
            paths = [str(folder / "block"), os.environ.get("PYTHONPATH", "")]
            self.env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        else:
            self.env.pop("PYTHONPATH", None)

    def run(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [self.python, *arguments],
            cwd=self.folder, env=self.env, input=stdin, capture_output=True, text=True, timeout=220,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def __call__(self, *commands: Sequence[object]) -> list[Done]:
        words = json.dumps([[str(word) for word in command] for command in commands])
        lines = self.run("-c", COMMANDS, stdin=words).splitlines()
        return [Done(*json.loads(line)) for line in lines]

    def write(self, name: str, *rows: object) -> None:
        text = "".join(row if isinstance(row, str) else f"{json.dumps(row)}\n" for row in rows)
        (self.folder / name).write_text(text)


@pytest.fixture
def core(tmp_path: Path) -> Core:
    return Core(tmp_path)


@pytest.mark.slow
def test_every_module_is_imported_without_pytorch(core: Core):
    num_modules, place = core.run("-c", IMPORT_ALL, *EXTRAS["local"]).split()
    assert int(num_modules) > 200
    assert ("SPYHOP_CORE" in os.environ) == ("site-packages" in place)
    assert _files(Path(place).parent) == _files(Path(spyhop.__file__).parent)


def _files(package: Path) -> set[str]:
    found = (path.relative_to(package) for path in package.rglob("*") if path.is_file())
    return {str(path) for path in found if path.suffix != ".pyc"}


@pytest.mark.slow
def test_the_core_works_with_served_models_and_pages(core: Core):
    core.write("q.jsonl", *QUESTIONS)
    core.write("prompts.jsonl", *[{"prompt": row["question"]} for row in QUESTIONS])
    core.write("mine.toml", 'recipe = "answer"\nprompts = "prompts.jsonl"\n',
               'teacher = "student.toml"\n')  # fmt: skip
    write_articles(core.folder / "pages", 3)
    questions = ("--suite", "questions", "--data", "questions=q.jsonl", "--out", "eval")
    texts = ("--suite", "prompts.jsonl", "--judge", "judge.toml", "--out", "judged")
    logs = [f"eval/scores-{name}.jsonl" for name in ("other", "student")]
    commands = {
        ("doctor", "student.toml", "--quick"): "finish_reason stop",
        ("answer", "prompts.jsonl", "--teacher", "student.toml", "--out", "a"): ": 6 rows",
        ("plan", "mine.toml", "--out", "a"): "augment.answer",
        ("run", "mine.toml", "--out", "a"): "3 reused",
        ("report", "mine.toml", "--out", "a"): "report.html",
        ("eval", "student.toml", "other.toml", *questions): "questions",
        ("compare", *logs): "+100.0 points",
        ("judge", "a=student.toml", "b=other.toml", *texts): "verdicts.jsonl",
        ("segment", "pages", "--out", "segments"): " rows",
    }
    with Server(answer=_says, models=("student", "other", "judge")) as server:
        for name in ("student", "other", "judge"):
            core.write(f"{name}.toml", TEACHER.format(name, server.url))
        ended = dict(zip(commands, core(*commands), strict=True))
    assert {c: d for c, d in ended.items() if d.code or commands[c] not in d.stdout} == {}
    assert "<svg" in (core.folder / "judged/runs/judge/report/report.html").read_text()
    assert "Runs" in _studio(core, "a")


def _studio(core: Core, store: str) -> str:
    command = [core.python, "-m", "spyhop", "studio", store, "--port", "0"]
    more: Any = {"cwd": core.folder, "env": core.env, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **more) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found
            with urllib.request.urlopen(found[0], timeout=20) as reply:
                return str(reply.read().decode())
        finally:
            process.kill()


@pytest.mark.slow
def test_a_command_that_needs_weights_names_the_extra(core: Core, tiny_folder: Path):
    core.write("rows.jsonl", {"prompt": "Say it.", "response": "It."})
    core.write("q.jsonl", *QUESTIONS)
    data = ("--data", "questions=q.jsonl")
    training = ("train", "rows.jsonl", "--base", tiny_folder, "--out", "out")
    *refused, checked, planned = core(
        ("quickstart", "--out", "out"),
        training,
        ("eval", tiny_folder, "--suite", "questions", *data, "--out", "out"),
        ("answer", "rows.jsonl", "--teacher", tiny_folder, "--out", "out"),
        ("tasks", "questions", *data, "--tokenizer", tiny_folder),
        ("doctor", tiny_folder),
        (*training, "--plan"),
    )
    remedy = "pip install 'spyhop[local]'"
    for done in refused:
        assert done.code == 2 and len(done.stderr.splitlines()) == 1 and remedy in done.stderr, done
    assert checked.code == 2 and remedy in checked.stdout
    assert planned.code == 0 and remedy in planned.stdout
    assert not list(core.folder.glob("out/*.*-*"))


@pytest.mark.slow
def test_the_quick_start_runs_from_the_wheel(tmp_path: Path):
    python = os.environ.get("SPYHOP_LOCAL", sys.executable)
    small = [*TINY, "snapshots=[]", 'settings.0.arms=["explanations"]']
    options = [part for change in small for part in ("--set", change)]
    env = {**os.environ}
    if "SPYHOP_LOCAL" in os.environ:
        env.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, "-m", "spyhop", "quickstart", "--out", "out", *options],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/runs/quickstart/report/report.html").is_file()
