"""The studio's command."""

from pathlib import Path
from typing import Annotated

import typer

from spyhop.cli.folder import existing, output_folder
from spyhop.schema import InputError

try:
    from spyhop.studio.app import serve
except ModuleNotFoundError as error:
    raise InputError(f"the studio needs {error.name}: pip install 'spyhop[studio]'") from None


def studio(
    stores: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[STORE]...",
            help="Output folders. Default: that of this folder.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port; 0 picks a free one.")
    ] = 8777,
    token: Annotated[
        str | None,
        typer.Option("--token", help="Secret that browsers must know; needed with --host."),
    ] = None,
) -> None:
    """Open runs, rows and models in a browser.

    The page reads the output folders and never changes an artifact. Ctrl-C stops it.
    """
    serve(stores or [existing(output_folder(None))], host, port, token)
