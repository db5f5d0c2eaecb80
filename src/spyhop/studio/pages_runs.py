"""Runs: the list of all stores."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spyhop.studio.site import page

nav = [("Runs", "/")]


def runs(request: Request) -> Response:
    """List the runs of every store."""
    return page(request, "runs.html")


routes = [Route("/", runs)]
