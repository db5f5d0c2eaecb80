"""Texts for users: every setting, command and option is described, in the same manner."""

import re
from typing import Any, get_args

import pytest
import typer.main
from pydantic import BaseModel

from spyhop.cli import app
from spyhop.models import Service
from spyhop.recipes import RECIPES
from spyhop.runtime import Runtime
from spyhop.schema import Config


def _types(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for inner in get_args(annotation) for kind in _types(inner)]


def _reachable() -> set[type[BaseModel]]:
    todo: list[type[BaseModel]] = [Runtime, Service, *(r.config_type for r in RECIPES.values())]
    found: set[type[BaseModel]] = set()
    while todo:
        kind = todo.pop()
        if kind not in found:
            found.add(kind)
            todo += [t for info in kind.model_fields.values() for t in _types(info.annotation)]
    return found


def _fault(text: str | None) -> str:
    words = " ".join((text or "").split())
    if not words:
        return "is empty"
    if not words[0].isupper():
        return f"does not start with a capital letter: {words}"
    return f"mentions Python's None: {words}" if re.search(r"\bNone\b", words) else ""


def test_every_setting_is_described():
    kinds = _reachable()
    assert len(kinds) > 50
    faults = [
        f"{kind.__module__}.{kind.__name__}.{name} {fault}"
        for kind in kinds
        for name, info in kind.model_fields.items()
        if (fault := _fault(info.description))
    ]
    assert sorted(faults) == []


def _commands(command: Any, name: str) -> list[tuple[str, Any]]:
    listed = getattr(command, "list_commands", lambda context: [])(None)
    inner = [(f"{name} {each}", command.get_command(None, each)) for each in listed]
    return [(name, command), *(pair for n, c in inner for pair in _commands(c, n))]


def test_every_command_and_option_is_described():
    commands = _commands(typer.main.get_command(app), "spyhop")
    assert len(commands) > 18
    texts = {name: command.help for name, command in commands}
    for name, command in commands:
        texts |= {f"{name} {p.name}": p.help for p in command.params if p.name != "help"}
    faults = [f"{name} {fault}" for name, text in texts.items() if (fault := _fault(text))]
    assert faults == []


def test_no_help_is_truncated_or_wider_than_80_columns(cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name, _ in _commands(typer.main.get_command(app), "spyhop"):
        lines = cli(*name.split()[1:], "--help").stdout.splitlines()
        assert lines[0].startswith(f"Usage: {name}") and max(map(len, lines)) <= 80
        assert [line for line in lines[1:] if line.endswith("...")] == [], name


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "is empty"),
        (" \n", "is empty"),
        ("how many", "does not start"),
        ("`a` or b", "does not start"),
        ("Number of rows; None takes all.", "mentions"),
        ("Number of rows. Default: all.", ""),
        ("Nonetheless.", ""),
    ],
)
def test_faults_are_found(text: str | None, fault: str):
    assert _fault(text).startswith(fault) and bool(_fault(text)) == bool(fault)


def test_a_table_of_settings_is_described_by_its_type():
    class Inner(Config):
        """Settings of something.

        More of it.
        """

    class Outer(Config):
        one: Inner = Inner()
        """Said here."""
        two: Inner = Inner()
        three: tuple[Inner, ...] | None = None

    found = [info.description for info in Outer.model_fields.values()]
    assert found == ["Said here.", "Settings of something.", "Settings of something."]
