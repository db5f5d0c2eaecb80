"""Entry point: the table of commands, and how errors and signals end a command.

A command's module is imported when the command is used, so that `spyhop --help` answers at once.
"""

import errno
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import CompletionItem, TyperCommand, TyperGroup
from typer.exceptions import TyperException

from spyhop import __version__
from spyhop.cli.options import group, table
from spyhop.schema import TOO_MANY_FILES, SpyhopError, Unfinished

USER_ERROR, UNFINISHED = 2, 3

COMMANDS: dict[str, dict[str, tuple[str, str]]] = table()["commands"]
"""Commands by section of the help: each one's module in this room, and its summary."""

EXIT_CODES = (
    "Exit codes: 0 done; 1 internal error; 2 error in input, settings or environment; 3 stopped "
    "before the end, run again to resume; 128 + N stopped by signal N, run again to resume: 129 "
    "SIGHUP, 130 Ctrl-C, 143 SIGTERM."
)


class _Commands(TyperGroup):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 (typer has no public type)
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 (as above)
        for section in COMMANDS.values():
            if cmd_name in section:
                function = getattr(import_module(f"spyhop.cli.{section[cmd_name][0]}"), cmd_name)
                is_group = isinstance(function, typer.Typer)
                known = function if is_group else group("", **{cmd_name: function})
                found = typer.main.get_command(known)
                found.name = cmd_name
                return found
        return None

    def shell_complete(self, ctx: Any, incomplete: str) -> list[CompletionItem]:  # noqa: ANN401
        """Complete commands from the table, so that no command's module is imported."""
        summaries = {name: text for part in COMMANDS.values() for name, (_, text) in part.items()}
        found = [CompletionItem(name, help=text) for name, text in summaries.items()]
        options = super(TyperGroup, self).shell_complete(ctx, incomplete)
        return [item for item in found if item.value.startswith(incomplete)] + options

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 (as above)
        self.commands = dict.fromkeys(self.list_commands(ctx), TyperCommand(None))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 (as above)
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, summary) for name, (_, summary) in section.items()])


app = typer.Typer(
    cls=_Commands,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=EXIT_CODES,
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"spyhop {__version__}")  # noqa: T201
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """From the signals of large models to small models that reason, measured."""


def main() -> None:
    """Run the command line; `EXIT_CODES` says what its exit code means."""
    code = USER_ERROR
    try:
        sys.exit(app(args=sys.argv[1:] or ["--help"], prog_name="spyhop", standalone_mode=False))
    except TyperException as error:
        message = f"{error.format_message()} (`spyhop --help` lists commands and options)"
    except Unfinished as error:
        message, code = str(error), UNFINISHED
    except SpyhopError as error:
        message = str(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message = f"{where}{error.strerror or error}"
        if error.errno in (errno.EMFILE, errno.ENFILE):
            message = TOO_MANY_FILES
    print(f"spyhop: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    sys.exit(code)
