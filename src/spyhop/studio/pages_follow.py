"""Follow a row from a score to its source, or from a query to its scores; its loss mask."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spyhop.store import Artifact
from spyhop.studio.helper import ask
from spyhop.studio.lineage import follow
from spyhop.studio.pages_rows import position_of, table_of
from spyhop.studio.site import artifact_of, page, site_of

TOKENIZER = "tokenizer_config.json"


def trace(request: Request) -> Response:
    """Show where a row comes from and where it went."""
    site, artifact = site_of(request), artifact_of(request)
    store, table = request.path_params["store"], table_of(request, artifact)
    at = position_of(table, request.query_params)
    stations = follow(site.engine, site.catalog(store), artifact, {" at": at, **table.row(at)})
    template = "follow_part.html" if "part" in request.query_params else "follow.html"
    return page(request, template, store=store, stations=stations, at=at, artifact=artifact)


def mask(request: Request) -> Response:
    """Show which tokens of a row the loss is taken on, under a tokenizer of the store."""
    artifact, store = artifact_of(request), request.path_params["store"]
    table = table_of(request, artifact)
    at = position_of(table, request.query_params)
    models = _models(request, artifact)
    chosen = next(
        (each for each in models if each.path.name == request.query_params.get("model")), None
    )
    chosen = chosen or next(iter(models), None)
    found: dict[str, Any] | None = None
    if chosen:
        names = ("train_on", "thinking", "history")
        settings = {k: v for k, v in chosen.record.config.items() if k in names}
        found = ask("mask", chosen.path, table.row(at), settings)
    steps = site_of(request).catalog(store).steps()
    labels = [(each, (steps.get(each.path.name) or [each.path.name])[0]) for each in models]
    return page(
        request,
        "mask.html",
        found=found,
        labels=labels,
        chosen=chosen,
        at=at,
        store=store,
        artifact=artifact,
    )


def _models(request: Request, artifact: Artifact) -> list[Artifact]:
    """Return the models of a store; those first that were trained on the artifact."""
    every = site_of(request).catalog(request.path_params["store"]).artifacts()
    found = [
        each
        for each in every
        if TOKENIZER in each.record.files and each.record.stage.startswith("train.")
    ]
    keys = {
        each.key: {i.key for some in each.record.inputs.values() for i in some} for each in found
    }
    return sorted(found, key=lambda each: artifact.key not in keys[each.key])


routes = [Route("/follow/{store}/{artifact}", trace), Route("/mask/{store}/{artifact}", mask)]
