"""What README and the examples say, done."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from server import Server
from spyhop.recipe.load import read_recipe
from spyhop.recipes import RECIPES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_library_example_runs(tmp_path: Path):
    page = (ROOT / "docs/python.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 100
    assert all(re.fullmatch(r"Start: .* Answer: \w+", line) for line in lines)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.name)
def test_the_examples_of_the_docs_run(page: Path, tmp_path: Path):
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.slow
def test_the_commands_on_segments_run(tmp_path: Path):
    pages = [
        (ROOT / "docs" / name).read_text() for name in ("tutorials/documents.md", "segments.md")
    ]
    blocks = re.findall(r"```bash\n(.*?)```", "\n".join(pages), re.DOTALL)
    script = "\n".join([f'spyhop() {{ "{sys.executable}" -m spyhop "$@"; }}', *blocks])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for said in ("[email]", "done distinct                 1 rows", "1 dropped"):
        assert said in done.stdout, done.stdout


@pytest.mark.slow
def test_the_commands_of_the_tutorial_on_prompts_run(tmp_path: Path):
    page = (ROOT / "docs/tutorials/prompts.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    script = "\n".join([f'spyhop() {{ "{sys.executable}" -m spyhop "$@"; }}', *blocks])
    with Server() as server:
        (tmp_path / "teacher.toml").write_text(
            f'model = "teacher"\n[[endpoints]]\nurl = "{server.url}"\nkey_env = "KEY"\n'
        )
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], env={**os.environ, "KEY": server.key},
            cwd=tmp_path, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(server.billed()) == 5  # one by doctor, four prompts
    asked, answered = (
        [json.loads(line).get("prompt") for line in (tmp_path / name).read_text().splitlines()]
        for name in ("prompts.jsonl", "answers/answers.jsonl")
    )
    assert answered == asked
    assert (tmp_path / "mine/mine.toml").is_file()


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(link: str):
    assert (ROOT / link).exists()


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda p: p.name)
def test_example_recipes_build(path: Path):
    file = read_recipe(path)
    kind = RECIPES[file.recipe]
    recipe = kind.build(file.config(kind.config_type), file.name)
    assert recipe.steps[-1].name == "report"
    file.runtime_with({})


def test_figures_of_the_quickstart_page_are_those_of_the_benchmark():
    page = (ROOT / "docs/quickstart.md").read_text()
    table = re.search(r"\| training data.*?\n\n", page, re.DOTALL)
    assert table
    measured = (ROOT / "benchmarks" / "quickstart_xeon-2core_202611.md").read_text()
    cells = re.findall(r"\| ([\d.]+) \| ([\d.]+ to [\d.]+) \|", table[0])
    assert len(cells) == 8
    for accuracy, interval in cells:
        assert f"| {accuracy} | {interval} |" in measured


def test_intervals_of_the_readme_are_those_of_benchmarks():
    measured = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.md"))
    intervals = re.findall(r"\[(\d[\d.]*), (\d[\d.]*)\]", README)
    assert len(intervals) >= 2
    for low, high in intervals:
        assert re.search(rf"\[\+?{re.escape(low)}, \+?{re.escape(high)}\]", measured), (low, high)
