"""Rows of artifacts: the list of artifacts, pages of rows with counts and search, one row."""

from collections.abc import AsyncIterator
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
from spyhop.studio.site import artifact_of, event, fragment, page, site_of
from spyhop.studio.tables import PAGE_ROWS, Position, RowQuery, Table, position

nav = [("Rows", "/rows")]
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox allow-popups"
"""Of a report, which has its style in itself and no scripts."""
RANKS = {"id": 0, "turns": 1, "text": 2, "flag": 2, "integer": 3, "number": 3, "nested": 4}


def artifacts(request: Request) -> Response:
    """List the artifacts of every store."""
    catalogs = {name: site_of(request).catalog(name) for name in site_of(request).stores}
    wanted = request.query_params.get("q", "").lower()
    stores = {}
    for name, catalog in catalogs.items():
        steps = catalog.steps()
        pairs = [(each, steps.get(each.path.name, [])) for each in catalog.artifacts()]
        stores[name] = [(a, s) for a, s in pairs if wanted in f"{a.path.name} {s}".lower()]
    return page(request, "artifacts.html", stores=stores, catalogs=catalogs, wanted=wanted)


def rows(request: Request) -> Response:
    """Show a page of rows, or the files of an artifact without rows."""
    values, table, params = _names(request), _table(request), request.query_params
    if not table.names:
        return page(request, "files.html", **values)
    query, is_back = read_query(params), "before" in params
    place = params.get("before" if is_back else "after")
    is_searching, at = bool(query.text) and not query.sort, position(place) if place else None
    found = [] if is_searching else table.page(query, at, is_back=is_back, limit=PAGE_ROWS + 1)
    has_more = len(found) > PAGE_ROWS
    values |= {
        "query": query, "place": place, "is_searching": is_searching,
        "has_next": is_back or has_more, "has_previous": place and (has_more or not is_back),
    }  # fmt: skip
    return page(
        request, "rows.html", **values,
        **_shown(table, found[-PAGE_ROWS:] if is_back else found[:PAGE_ROWS]),
    )  # fmt: skip


async def hits(request: Request) -> Response:
    """Send the rows that contain a text as they are found."""
    table, values = _table(request), _names(request)
    after = request.query_params.get("after")
    scan = table.scan(read_query(request.query_params), position(after) if after else None)

    async def events() -> AsyncIterator[str]:
        state = values | {"num": 0, "parts": 0, "last": None, "table": table, "is_done": False}
        try:
            while step := await run_sync(partial(next, scan, None)):
                found, state["parts"] = step
                state["num"] += len(found)
                state["last"] = found[-1][" at"] if found else state["last"]
                shown = values | _shown(table, found, is_all=True)
                yield event("add", fragment(request, "rows_hits.html", **shown))
                yield event("part", fragment(request, "rows_searched.html", **state))
            html = fragment(request, "rows_searched.html", **state | {"is_done": True})
            yield event("part", html) + event("say", f"{state['num']} rows found")
        except SpyhopError as error:
            yield event("part", fragment(request, "rows_failed.html", text=str(error)))
        yield event("end", "")

    return StreamingResponse(events(), media_type="text/event-stream")


def counts(request: Request) -> Response:
    """Return the number of rows by value, and histograms, each to filter by."""
    table, query, site = _table(request), read_query(request.query_params), site_of(request)
    key = (str(table.artifact.path), table.artifact.digest, *table.names[:1])
    bins = site.keep(("bins", *key), table.bins)
    found = site.keep(("counts", *key, repr(query)), lambda: table.counts(query, bins))
    values = {"table": table, "query": query, "counts": found, "bins": bins}
    return page(request, "rows_counts.html", **values, **_names(request))


def check(request: Request) -> Response:
    """Verify the files of an artifact, and say so."""
    artifact = artifact_of(request)
    artifact.verify()
    return page(request, "rows_checked.html", num=len(artifact.record.files))


def row(request: Request) -> Response:
    """Show one row, by position or by id."""
    names, table, at = place_of(request)
    before, after = (table.page(RowQuery(), at, is_back=back, limit=1) for back in (True, False))
    return page(request, "row.html", row=table.row(at), before=before, after=after, **names)


def report(request: Request) -> Response:
    """Show the report that an artifact is."""
    artifact = artifact_of(request)
    if PAGE not in artifact.record.files:
        raise HTTPException(404, f"{artifact.path.name} has no report.")
    html = artifact.file(PAGE).read_text(encoding="utf-8", errors="replace")
    return HTMLResponse(html, headers={"Content-Security-Policy": REPORT_POLICY})


def place_of(request: Request) -> tuple[dict[str, Any], Table, Position]:
    """Return the names of a row's page, its table, and its position: `at`, or that of an `id`."""
    names, table, params = _names(request), _table(request), request.query_params
    place = params.get("at")
    if not place:
        found = table.find(["id"], [params.get("id", "")], 1) if "id" in table.columns else []
        if not found:
            raise HTTPException(404, f"{table.artifact.path.name} has no such row.")
        place = found[0][" at"]
    return {**names, "at": place}, table, position(place)


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


def _shown(table: Table, found: list[dict[str, Any]], *, is_all: bool = False) -> dict[str, Any]:
    """Return rows, the columns that differ among them, and the others with their one value."""
    first, is_many = found[0] if found else {}, len(found) > 1 and not is_all
    kinds = {name: "id" if name == "id" else table.columns[name].kind for name in table.top}
    plain = [name for name, kind in kinds.items() if is_many and kind not in ("id", "turns")]
    same = [name for name in plain if all(each[name] == first[name] for each in found)]
    names = [name for name in table.top if name not in same]
    names.sort(key=lambda name: 5 * name.endswith("_id") + RANKS[kinds[name]])
    return {"table": table, "rows": found, "names": names, "same": {n: first[n] for n in same}}


def _table(request: Request) -> Table:
    """Return the rows of an artifact, or with `dropped=1` those that its stage dropped."""
    is_dropped = "dropped" in request.query_params
    return Table(site_of(request).engine, artifact_of(request), is_dropped=is_dropped)


def _names(request: Request) -> dict[str, Any]:
    store, artifact = request.path_params["store"], artifact_of(request)
    steps = site_of(request).catalog(store).steps().get(artifact.path.name, [])
    return {
        "store": store, "artifact": artifact, "base": f"/rows/{store}/{quote(artifact.path.name)}",
        "steps": steps, "params": request.query_params,
    }  # fmt: skip


routes = [
    Route("/rows", artifacts),
    Route("/rows/{store}/{artifact}", rows),
    *(Route(f"/rows/{{store}}/{{artifact}}/{f.__name__}", f)
      for f in (hits, counts, check, row, report)),
]  # fmt: skip
