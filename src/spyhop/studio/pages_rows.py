"""Rows of artifacts: the list of artifacts, pages of rows with counts and search, one row."""

from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from anyio.to_thread import run_sync
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from spyhop.report.html import PAGE
from spyhop.schema import InputError, SpyhopError
from spyhop.store import Artifact
from spyhop.studio.site import artifact_of, event, fragment, page, site_of
from spyhop.studio.tables import PAGE_ROWS, Position, RowQuery, Table

nav = [("Rows", "/rows")]
DROPPED = "dropped"
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox allow-popups"
"""Of a report, which has its style in itself and no scripts."""


def artifacts(request: Request) -> Response:
    """List the artifacts of every store."""
    site = site_of(request)
    wanted = request.query_params.get("q", "").lower()
    stores = {}
    for name in site.stores:
        catalog = site.catalog(name)
        steps = catalog.steps()
        found = [(each, steps.get(each.path.name, [])) for each in catalog.artifacts()]
        if wanted:
            found = [
                (each, named) for each, named in found
                if wanted in f"{each.path.name} {' '.join(named)}".lower()
            ]  # fmt: skip
        stores[name] = (found, catalog.damaged)
    return page(request, "artifacts.html", stores=stores, wanted=wanted)


def rows(request: Request) -> Response:
    """Show a page of rows, or the files of an artifact without rows."""
    artifact = artifact_of(request)
    table = table_of(request, artifact)
    values = {"artifact": artifact, "files": artifact.record.files, **_names(request)}
    if not table.names:
        return page(request, "files.html", **values)
    query, params = read_query(request.query_params), request.query_params
    is_back = "before" in params
    at = (
        Position.parse(params["before" if is_back else "after"])
        if {"before", "after"} & {*params}
        else None
    )
    is_searching = bool(query.text) and not query.sort
    found = [] if is_searching else table.page(query, at, is_back=is_back, limit=PAGE_ROWS + 1)
    has_more = len(found) > PAGE_ROWS
    found = found[-PAGE_ROWS:] if is_back else found[:PAGE_ROWS]
    values |= {
        "table": table, "query": query, "params": params, "at": at, "is_searching": is_searching,
        "has_next": is_back or has_more, "has_previous": bool(at) and (has_more or not is_back),
    }  # fmt: skip
    return page(request, "rows.html", **values, **shown_columns(table, found))


async def hits(request: Request) -> Response:
    """Send the rows that contain a text as they are found."""
    table, query = table_of(request, artifact_of(request)), read_query(request.query_params)
    after = request.query_params.get("after")
    scan = table.scan(query, Position.parse(after) if after else None)

    values = {"table": table, "params": request.query_params, **_names(request)}

    async def events() -> AsyncIterator[str]:
        num, parts, last = 0, 0, None
        try:
            while step := await run_sync(partial(next, scan, None)):
                found, parts = step
                num, last = num + len(found), found[-1][" at"] if found else last
                shown = values | shown_columns(table, found, is_all=True)
                yield event("add", fragment(request, "rows_hits.html", **shown))
                state = {"num": num, "parts": parts, "is_done": False}
                yield event("part", fragment(request, "rows_searched.html", **values, **state))
            state = {"num": num, "parts": parts, "is_done": True, "last": last}
            yield event("part", fragment(request, "rows_searched.html", **values, **state))
            yield event("say", f"{num} rows found")
        except SpyhopError as error:
            yield event("part", fragment(request, "rows_failed.html", text=str(error)))
        yield event("end", "")

    return StreamingResponse(events(), media_type="text/event-stream")


def counts(request: Request) -> Response:
    """Return the number of rows by value, and histograms, each to filter by."""
    table, query = table_of(request, artifact_of(request)), read_query(request.query_params)
    key = ("counts", str(table.artifact.path), table.artifact.digest, len(table.names), repr(query))
    site = site_of(request)
    bins = site.keep((*key[:-1], "bins"), table.bins)
    found = site.keep(key, lambda: table.counts(query, bins))
    values = {"table": table, "query": query, "params": request.query_params, **_names(request)}
    return page(request, "rows_counts.html", counts=found, bins=bins, **values)


def check(request: Request) -> Response:
    """Verify the files of an artifact, and say so."""
    artifact = artifact_of(request)
    artifact.verify()
    return page(request, "rows_checked.html", num=len(artifact.record.files))


def row(request: Request) -> Response:
    """Show one row, by position or by id."""
    artifact = artifact_of(request)
    table, params = table_of(request, artifact), request.query_params
    at = position_of(table, params)
    found = table.row(at)
    values = {
        "artifact": artifact, "table": table, "at": at, "row": found, "params": params,
        "is_plain": "plain" in params,
        "before": table.page(RowQuery(), at, is_back=True, limit=1),
        "after": table.page(RowQuery(), at, limit=1),
    }  # fmt: skip
    return page(request, "row.html", **values, **_names(request))


def report(request: Request) -> Response:
    """Show the report that an artifact is."""
    artifact = artifact_of(request)
    if PAGE not in artifact.record.files:
        raise HTTPException(404, f"{artifact.path.name} has no report.")
    html = artifact.file(PAGE).read_text(encoding="utf-8", errors="replace")
    return HTMLResponse(html, headers={"Content-Security-Policy": REPORT_POLICY})


def table_of(request: Request, artifact: Artifact) -> Table:
    """Return the rows of an artifact, or with `dropped=1` those that its stage dropped."""
    engine = site_of(request).engine
    return Table(engine, artifact, is_dropped=DROPPED in request.query_params)


def position_of(table: Table, params: Mapping[str, str]) -> Position:
    """Return the position that an address names: `at`, or the first row with that `id`."""
    if "at" in params:
        return Position.parse(params["at"])
    found = table.find("id = $id", {"id": params.get("id", "")}, 1) if "id" in table.columns else []
    if not found:
        raise HTTPException(404, f"{table.artifact.path.name} has no such row.")
    return Position(*found[0][" at"])


def read_query(params: QueryParams) -> RowQuery:
    """Read an address's filters (`is.task=cot`, `no.task=1`, `in.score=1:3`, `q`) and order."""
    facets: dict[str, list[str | None]] = {}
    ranges = {}
    for name, value in params.multi_items():
        kind, _, column = name.partition(".")
        if kind in ("is", "no") and column:
            facets.setdefault(column, []).append(value if kind == "is" else None)
        elif kind == "in" and column:
            try:
                low, high = map(float, value.split(":"))
            except ValueError:
                raise InputError(f"{name}={value:.60}: not a range, such as 1:3") from None
            ranges[column] = (low, high)
    return RowQuery(facets, ranges, params.get("q", ""), params.get("sort", ""), "desc" in params)


def shown_columns(table: Table, found: list[dict[str, Any]], *, is_all: bool = False) -> Any:  # noqa: ANN401
    """Return rows, the columns that differ among them, and the others with their one value."""
    first, is_many = found[0] if found else {}, len(found) > 1 and not is_all
    same = [n for n in table.top if is_many and all(each[n] == first[n] for each in found)]
    rank = {"id": 0, "turns": 1, "text": 2, "flag": 2, "nested": 4}
    names = sorted(
        (n for n in table.top if n == "id" or n not in same),
        key=lambda n: (
            5 * (n.endswith("_id")) + rank.get("id" if n == "id" else table.columns[n].kind, 3)
        ),
    )
    return {"rows": found, "names": names, "same": {name: first[name] for name in same}}


def _names(request: Request) -> dict[str, Any]:
    store, artifact = request.path_params["store"], request.path_params["artifact"]
    steps = site_of(request).catalog(store).steps().get(artifact, [])
    return {"store": store, "base": f"/rows/{store}/{quote(artifact)}", "steps": steps}


routes = [
    Route("/rows", artifacts),
    Route("/rows/{store}/{artifact}", rows),
    Route("/rows/{store}/{artifact}/hits", hits),
    Route("/rows/{store}/{artifact}/counts", counts),
    Route("/rows/{store}/{artifact}/check", check),
    Route("/rows/{store}/{artifact}/row", row),
    Route("/rows/{store}/{artifact}/report", report),
]
