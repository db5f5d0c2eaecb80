"""Follow a row from a score to its source, or from a query to its scores; its loss mask."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spyhop.store import Artifact
from spyhop.studio.helper import ask
from spyhop.studio.lineage import follow
from spyhop.studio.pages_rows import place_of
from spyhop.studio.site import page, site_of

TOKENIZER, SETTINGS = "tokenizer_config.json", ("train_on", "thinking", "history")


def trace(request: Request) -> Response:
    """Show where a row comes from and where it went."""
    names, table, at = place_of(request)
    site = site_of(request)
    catalog, row = site.catalog(names["store"]), table.row(at)
    stations = follow(site.engine, catalog, table.artifact, {" at": names["at"], **row})
    template = "follow_part.html" if "part" in request.query_params else "follow.html"
    return page(request, template, stations=stations, **(names | {"steps": catalog.steps()}))


def mask(request: Request) -> Response:
    """Show which tokens of a row the loss is taken on, under a tokenizer of the store.

    The page comes first; its part follows, since a tokenizer takes seconds to load.
    """
    names, table, at = place_of(request)
    if "part" not in request.query_params:
        return page(request, "mask_page.html", **names)
    catalog = site_of(request).catalog(names["store"])
    models = [each for each in catalog.artifacts() if TOKENIZER in each.record.files]
    models = [each for each in models if each.record.stage.startswith("train.")]
    models.sort(key=lambda each: not _reads(each, table.artifact))
    wanted = request.query_params.get("model")
    chosen = next((each for each in models if each.path.name == wanted), (*models, None)[0])
    found = None
    if chosen:
        settings = {k: v for k, v in chosen.record.config.items() if k in SETTINGS}
        found = ask("mask", chosen.path, table.row(at), settings)
    values: dict[str, Any] = {"models": models, "chosen": chosen, "found": found}
    return page(request, "mask.html", **values, **(names | {"steps": catalog.steps()}))


def _reads(model: Artifact, artifact: Artifact) -> bool:
    """Return whether a model was trained on an artifact."""
    inputs = (each for some in model.record.inputs.values() for each in some)
    return any(each.key == artifact.key for each in inputs)


routes = [Route("/follow/{store}/{artifact}", trace), Route("/mask/{store}/{artifact}", mask)]
