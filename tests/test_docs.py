"""The documents and the code agree: commands, settings, messages, extras."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer
import yaml

from spyhop.cli.commands import app
from spyhop.evaluate.task import Protocol, Task
from spyhop.models.local import Local
from spyhop.models.service import Service
from spyhop.recipes import RECIPES
from spyhop.runtime import Runtime
from spyhop.settings import describe

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("[tp]*/*.md"))]
FENCED = re.compile(r"```(\w+)[^\n]*\n(.*?)```", re.DOTALL)
WORD = r"[a-z][a-z0-9_]*"


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _shell(page: Path) -> Iterator[list[str]]:
    """Yield the spyhop commands of a page, as a shell would split them."""
    text = page.read_text(encoding="utf-8")
    blocks = [code for kind, code in FENCED.findall(text) if kind in ("bash", "sh")]
    blocks += re.findall(r"(?:^    spyhop .*\n(?:^     .*\n)*)", FENCED.sub("", text), re.MULTILINE)
    for block in blocks:
        block = re.sub(r"<<'(\w+)'.*?^\1$", "", block, flags=re.DOTALL | re.MULTILINE)
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>(){}")
            lexer.whitespace_split = True
            words = list(lexer)
            while "spyhop" in words:
                words = words[words.index("spyhop") + 1 :]
                marks = (place for place, word in enumerate(words) if set(word) <= set("|&;<>(){}"))
                yield words[: next(marks, None)]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_are_those_of_the_program(page: Path):
    group = typer.main.get_command(app)
    outer = group.make_context("spyhop", ["plan", "x"], resilient_parsing=True)
    for name, *words in _shell(page):
        if name.startswith("-"):
            continue
        command = group.get_command(outer, name)
        assert command is not None, f"spyhop {name}"
        if (inner := getattr(command, "commands", None)) is not None:
            name, *words = words
            command = inner[name]
        command.make_context(name, words)  # raises where an option or argument is wrong


@cache
def _settings() -> dict[str, set[tuple[str, ...]]]:
    """Return the ends of all dotted names of settings, by their first part."""
    found: dict[str, set[tuple[str, ...]]] = {}
    kinds = [kind.config_type for kind in RECIPES.values()]
    for config_type in (*kinds, Runtime, Service, Local, Task, Protocol):
        outer = ["runtime"] if config_type is Runtime else []
        path = outer
        for line in describe(config_type):
            depth = (len(line) - len(line.lstrip())) // 2
            path = [*path[: depth + len(outer)], line.split()[0]]
            for place, part in enumerate(path):
                found.setdefault(part, set()).add(tuple(path[place:]))
    for name in OUTSIDE:
        found.setdefault(name, set()).add((name,))
    return found


def _is_setting(parts: tuple[str, ...]) -> bool:
    """Whether dotted names lead to a setting, apart from names of the user's own on the way."""
    own = next((place for place, part in enumerate(parts) if part in OWN), len(parts))
    parts = parts[: own + 1]
    return any(
        end[-1] == parts[-1] and all(part in parts for part in end)
        for end in _settings().get(parts[0], ())
    )


OUTSIDE = (
    "recipe", "name", "dtype", "runtime", "model", "revision", "omit", "extra", "folder", "style",
    "solver",
)  # fmt: skip
"""Keys of files that no config has: of recipes, teachers and benchmarks."""
OWN = (
    "extra", "shares", "data", "messages", "models", "students", "columns", "forms",
    "finish_reasons", "system_messages", "judges", "steps",
)  # fmt: skip
"""Tables whose keys are names of the user's own, or of a provider."""


def _keys(table: dict[str, object], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        yield (*above, key)
        if key in OWN:
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                yield from _keys(each, (*above, key))


def _unknown(keys: Iterator[tuple[str, ...]]) -> list[str]:
    return [".".join(parts) for parts in keys if not _is_setting(parts)]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_settings_are_those_of_the_code(page: Path):
    text = page.read_text(encoding="utf-8")
    for kind, code in FENCED.findall(text):
        if kind == "toml":
            assert not _unknown(_keys(tomllib.loads(code))), code
    plain = FENCED.sub("", text)
    inline = re.findall(rf"`({WORD}(?:\.{WORD})*) = [^`]+`", plain)
    changes = re.findall(rf"--set ['\"]?({WORD}(?:\.\w+)*)=", text)
    names = [
        tuple(each for each in name.split(".") if not each.isdigit())
        for name in (*inline, *changes)
    ]
    assert not _unknown(iter(names))


@cache
def _texts() -> str:
    """Return the source: adjacent literals joined, a mark where a value is filled in."""
    files = (ROOT / "src").rglob("*.py")
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    joined = re.sub(r"""(["'])\s*\n\s*f?["']""", "", source)
    return re.sub(r"\{[^{}]*\}", "…", joined).replace('\\"', '"')


MESSAGES = [
    message
    for _, message in re.findall(
        r"^\| (`{1,2})(.+?)\1[ |]", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE
    )
]


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_are_those_of_the_code(message: str):
    parts = [part.strip(" ;:()") for part in message.split("…")]
    assert max(map(len, parts)) > 8
    for part in parts:
        assert part in _texts(), part


def test_the_glossary_is_short():
    assert (DOCS / "glossary.md").read_text().count("\n|") - 2 <= 30


def test_the_page_on_installing_names_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    page = (DOCS / "install.md").read_text()
    assert [name for name in extras if f"`{name}`" not in page] == []


def test_every_page_is_in_the_navigation():
    site = (ROOT / "mkdocs.yml").read_text()
    pages = [path.relative_to(DOCS).as_posix() for path in PAGES[1:]]
    assert [page for page in pages if f": {page}" not in site] == []
    assert yaml.safe_load(site)["strict"]


@pytest.mark.parametrize("page", [ROOT / "CONTRIBUTING.md", *PAGES], ids=_name)
def test_files_of_the_code_are_there(page: Path):
    names = re.findall(r"`([a-z_/]+/[a-z_]+\.py)`", page.read_text(encoding="utf-8"))
    places = (ROOT, ROOT / "src/spyhop")
    assert [name for name in names if not any((at / name).is_file() for at in places)] == []
