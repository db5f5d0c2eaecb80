"""The application: the table of pages, the errors, the server."""

import logging
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from spyhop.report.html import asset
from spyhop.schema import ArtifactError, InputError, SpyhopError
from spyhop.studio import (
    pages_chat,
    pages_compare,
    pages_follow,
    pages_label,
    pages_rows,
    pages_runs,
)  # fmt: skip
from spyhop.studio.safety import LOOPBACK, Guard
from spyhop.studio.site import Site, page

PAGES: tuple[ModuleType, ...] = (
    pages_runs, pages_rows, pages_follow, pages_compare, pages_label, pages_chat,
)  # fmt: skip
"""Each offers `routes`; its `nav` is a list of title and address."""
PORT, CSS = 8777, {"content-type": "text/css; charset=utf-8"}


def create_app(
    stores: Sequence[Path], token: str | None = None, models: Sequence[Path] = ()
) -> Starlette:
    """Return the application over these output folders.

    `token` is required from every browser; None serves loopback addresses only. `models` are
    teacher files and folders of weights to chat with, besides the stores' checkpoints.
    """
    for store in stores:
        if not store.is_dir():
            raise InputError(f"{store}: no such folder; name the output folder of a run")
    app = Starlette(
        routes=[
            *(route for module in PAGES for route in module.routes),
            Route("/static/report.css", lambda request: Response(asset("report.css"), 200, CSS)),
            Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
        ],
        middleware=[Middleware(Guard, token=token)],
        exception_handlers=dict.fromkeys((HTTPException, SpyhopError, Exception), _error),
        lifespan=_closing,
    )
    nav = [entry for module in PAGES for entry in getattr(module, "nav", [])]
    app.state.site = Site(stores, nav, models)
    return app


@asynccontextmanager
async def _closing(app: Starlette) -> AsyncIterator[None]:
    """Close what pages have opened when the server stops."""
    with app.state.site.resources:
        yield


def serve(
    stores: Sequence[Path],
    host: str = "127.0.0.1",
    port: int = PORT,
    token: str | None = None,
    models: Sequence[Path] = (),
) -> None:
    """Serve the pages until the process is stopped; another address than loopback needs a token."""
    if host not in LOOPBACK and not token:
        raise InputError(
            f"--host {host}: other machines could open the page; add a secret, such as "
            f"--token {secrets.token_urlsafe(12)}"
        )
    app = create_app(stores, token, models)
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()
        except OSError as error:
            raise InputError(f"{shown}:{port}: {error.strerror}; choose another --port") from None
        address = f"http://{shown}:{listener.getsockname()[1]}/"
        print(f"{address}?token={token}" if token else address, flush=True)  # noqa: T201
        uvicorn.Server(config).run([listener])


async def _error(request: Request, error: Exception) -> Response:
    """Return the page of an error; with htmx the part that takes the place of what was asked."""
    status, title, text = 422, "Not possible", str(error)
    if isinstance(error, HTTPException):
        status, title = error.status_code, "Not found"
        text = "There is no such page." if error.detail == title else error.detail
    elif isinstance(error, ArtifactError):
        title = "Damaged"
    elif not isinstance(error, SpyhopError):
        logging.getLogger("uvicorn.error").error("%s failed", request.url.path, exc_info=error)
        status, title, text = 500, "Internal error", "The studio's terminal shows the traceback."
    template = "error_part.html" if "hx-request" in request.headers else "error.html"
    return page(request, template, status, title=title, text=text)
