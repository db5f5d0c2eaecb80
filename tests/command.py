"""The command line in the tests' own process, for a start takes longer than most commands."""

import io
import sys
from typing import NamedTuple

import pytest

from spyhop.cli import main


class Done(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


class Command:
    """`spyhop` with arguments; `said` is everything that it has printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.said: list[str] = []
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object, stdin: str = "") -> Done:
        """Run it to its end."""
        words = ["spyhop", *(str(argument) for argument in arguments)]
        self._monkeypatch.setattr(sys, "argv", words)
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        found = self._capsys.readouterr()
        self.said += found
        return Done(int(ended.value.code or 0), found.out, found.err)
