"""Labels of people: keep or drop, a score, why; one file that the gate of the next run reads."""

from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, quote, unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spyhop.schema import InputError
from spyhop.store import Artifact
from spyhop.studio.lookup import columns_of, parts_of, rows_by_id
from spyhop.studio.people import PEOPLE, people_rows, put, remove_row
from spyhop.studio.responses import question_of, questions, response_of
from spyhop.studio.site import artifact_of, page, site_of
from spyhop.studio.suspicion import ranking

nav = [("Label", "/label")]
LABELS = "labels.jsonl"
MOST_ROWS = 500
"""Rows that are ranked for labelling: the most suspicious ones."""
KEY = ("id", "rater")
GOOD = {"keep": True, "drop": False, "": None}
SCORES = {"", "1", "2", "3", "4", "5"}
FIELDS = ("id", "rater", "keep", "score", "why", "undo")


def choose(request: Request) -> Response:
    """List the artifacts whose rows can be labelled, those with ratings first."""
    site, stores = site_of(request), {}
    for store, root in site.stores.items():
        steps = site.catalog(store).steps()
        labelled = {row["id"] for row in people_rows(root / PEOPLE / LABELS)}
        made = [each for each in site.catalog(store).artifacts() if each.num_rows]
        columns = {each.name: columns_of(parts_of(each)) for each in made}
        found = [each for each in made if columns[each.name] & {"response", "ending"}]
        found.sort(key=lambda each: "rating" not in columns[each.name])
        stores[store] = (
            [(each, steps.get(each.name, [""])[0]) for each in found], len(labelled)
        )  # fmt: skip
    return page(request, "label_choose.html", stores=stores)


def label(request: Request) -> Response:
    """Show the next row that the person has not labelled, or the one that the address names."""
    rater = unquote(request.cookies.get("rater", ""))
    return _next(request, rater, request.query_params.get("row", ""))


async def save(request: Request) -> Response:
    """Write a label, or remove the last one, and show the next row."""
    form = dict(parse_qsl((await request.body()).decode(errors="replace")))
    given = {name: form.get(name, "").strip() for name in FIELDS}
    try:
        return await run_in_threadpool(_save, request, given)
    except InputError as error:  # beside the form, which keeps what was written
        beside = {"HX-Retarget": "#problem", "HX-Reswap": "innerHTML"}
        return page(request, "error_part.html", 422, beside, text=str(error))


def _save(request: Request, given: dict[str, str]) -> Response:
    artifact, path, rater = artifact_of(request), _file(request), given["rater"]
    if not 0 < len(rater) <= 80:
        raise InputError("write your name or initials first: each label belongs to a person")
    row_id = given["id"]
    if given["undo"]:
        own = [row for row in people_rows(path) if row["rater"] == rater]
        row_id = own[-1]["id"] if own else row_id
        remove_row(path, {"id": row_id, "rater": rater}, KEY)
    else:
        score = given["score"]
        if (not given["keep"] and not score) or given["keep"] not in GOOD or score not in SCORES:
            raise InputError("choose keep or drop, or a score from 1 to 5")
        row = rows_by_id(artifact, [row_id]).get(row_id)
        if row is None:
            raise InputError(f"{artifact} has no row {row_id:.60}")
        put(path, _label(artifact, row, given), KEY)
        row_id = ""
    reply = _next(request, rater, row_id)
    reply.set_cookie("rater", quote(rater), httponly=True, samesite="strict", max_age=31_000_000)
    return reply


def _label(artifact: Artifact, row: dict[str, Any], given: dict[str, str]) -> dict[str, Any]:
    """Return the row to write: what `curate.read_labels` reads, and what people want to know."""
    return {
        "id": row["id"],
        "rater": given["rater"],
        "good": GOOD[given["keep"]],
        "score": int(given["score"]) if given["score"] else None,
        "why": given["why"][:2000],
        "instruction": _question(artifact, row),
        "response": response_of(row),
        "artifact": artifact.name,
    }


def _next(request: Request, rater: str, row_id: str) -> Response:
    artifact, labels = artifact_of(request), people_rows(_file(request))
    ranked = _ranked(request, artifact)
    own = {row["id"]: row for row in labels if row["rater"] == rater}
    others: dict[str, set[Any]] = {}
    for each in labels:
        others.setdefault(each["id"], set()).add(each["good"])
    disputed = {name for name, said in others.items() if len(said) > 1}
    due = [
        name for name in sorted(ranked, key=lambda name: name not in disputed) if name not in own
    ]
    row_id = row_id or next(iter(due), "")
    row = rows_by_id(artifact, [row_id]).get(row_id) if row_id else None
    reasons = [*(["people disagree"] if row_id in disputed else []), *ranked.get(row_id, [])]
    whole = "hx-request" not in request.headers
    return page(
        request, "label.html" if whole else "label_row.html", artifact=artifact, row=row,
        question=_question(artifact, row) if row else "", response=response_of(row) if row else "",
        reasons=reasons, own=own.get(row_id, {"score": None, "why": ""}), rater=rater,
        due=len(due), done=len(own), total=len(ranked), file=_file(request), asked=row_id,
        path=request.url.path,
    )  # fmt: skip


def _question(artifact: Artifact, row: dict[str, Any]) -> str:
    return question_of(row) or questions(artifact, [row["id"]]).get(row["id"], "")


def _ranked(request: Request, artifact: Artifact) -> dict[str, list[str]]:
    """Return the most suspicious rows with the reasons, found once."""
    key = ("label", artifact.digest)
    found = site_of(request).keep(key, lambda: ranking(parts_of(artifact), MOST_ROWS))
    return cast(dict[str, list[str]], found)


def _file(request: Request) -> Path:
    return site_of(request).store(request.path_params["store"]) / PEOPLE / LABELS


routes = [
    Route("/label", choose),
    Route("/label/{store}/{artifact}", label),
    Route("/label/{store}/{artifact}", save, methods=["POST"]),
]
