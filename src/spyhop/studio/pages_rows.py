"""Rows of an artifact."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spyhop.studio.site import artifact_of, page

nav = [("Rows", "/rows")]


def artifacts(request: Request) -> Response:
    """List the artifacts of every store."""
    return page(request, "runs.html")


def rows(request: Request) -> Response:
    """Show the rows of an artifact."""
    return page(request, "artifact.html", artifact=artifact_of(request))


routes = [Route("/rows", artifacts), Route("/rows/{store}/{artifact}", rows)]
