"""The studio's command."""

from pathlib import Path

from spyhop.cli.folder import existing, output_folder
from spyhop.cli.options import NO_PATHS
from spyhop.studio.app import serve


def studio(
    stores: list[Path] = NO_PATHS,
    host: str = "127.0.0.1",
    port: int = 8777,
    token: str | None = None,
    models: list[Path] = NO_PATHS,
) -> None:
    """Open runs, rows and models in a browser.

    The page reads the output folders and never changes an artifact. Ctrl-C stops it.
    """
    serve(stores or [existing(output_folder(None))], host, port, token, models)
