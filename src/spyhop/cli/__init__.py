"""The command line: every command reads its arguments and calls public functions."""

from spyhop.cli.commands import app, main

__all__ = ["app", "main"]
