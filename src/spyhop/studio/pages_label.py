"""Labels of people: keep or drop, a score, why; one file that the gate of the next run reads."""

import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spyhop.schema import InputError
from spyhop.store import Artifact
from spyhop.studio.lookup import (
    LABELLED,
    parts_of,
    query,
    question_of,
    questions,
    response_of,
    rows_by_id,
)
from spyhop.studio.people import PEOPLE, people_rows, put
from spyhop.studio.site import artifact_of, form_of, page, problem, site_of

nav = [("Label", "/label")]
LABELS = "labels.jsonl"
MOST_ROWS = 500
"""Rows that are ranked for labelling: the most suspicious ones."""
MOST_AT_ONCE = 200_000
"""Rows that are ranked before the page is sent; a million take about a second."""
KEY = ("id", "rater", "response")
"""A label is of a response: those of several models to one item have the same id."""
GOOD = {"keep": True, "drop": False, "": None}
SCORES = {"", "1", "2", "3", "4", "5"}
Ranked = dict[str, tuple[dict[str, Any], list[str]]]
_SUSPICION = tomllib.loads((files("spyhop.studio") / "suspicion.toml").read_text("utf-8"))


def choose(request: Request) -> Response:
    """List the artifacts whose rows can be labelled, those with ratings first."""
    site, stores = site_of(request), {}
    for store, root in site.stores.items():
        steps = site.catalog(store).steps()
        labelled = {row["id"] for row in people_rows(root / PEOPLE / LABELS)}
        found = [each for each in site.catalog(store).artifacts() if each.record.stage in LABELLED]
        found.sort(key=lambda each: LABELLED.index(each.record.stage))
        stores[store] = [(each, steps.get(each.name, [""])[0]) for each in found], len(labelled)
    return page(request, "label_choose.html", stores=stores)


def label(request: Request) -> Response:
    """Show the next row that the person has not labelled, or the one that the address names.

    The page of a large table comes first; its row follows once the rows are ranked.
    """
    artifact, known = artifact_of(request), site_of(request).kept
    is_ready = artifact.num_rows <= MOST_AT_ONCE or ("label", artifact.digest) in known
    if not is_ready and "hx-request" not in request.headers:
        return page(request, "label.html", artifact=artifact, url=request.url, file=_file(request))
    rater = unquote(request.cookies.get("rater", ""))
    return _next(request, rater, request.query_params.get("row", ""))


async def save(request: Request) -> Response:
    """Write a label, or remove the last one, and show the next row."""
    form = await form_of(request)
    names = ("id", "rater", "keep", "score", "why", "undo")
    given = {name: form.get(name, "").strip() for name in names}
    try:
        return await run_in_threadpool(_save, request, given)
    except InputError as error:
        return problem(request, str(error))


def _save(request: Request, given: dict[str, str]) -> Response:
    artifact, path, rater = artifact_of(request), _file(request), given["rater"]
    if not 0 < len(rater) <= 80:
        raise InputError("write your name or initials first: each label belongs to a person")
    row_id = given["id"]
    if given["undo"]:
        here = (rater, artifact.name)
        own = [row for row in people_rows(path) if (row["rater"], row["artifact"]) == here]
        for last in own[-1:]:
            row_id = last["id"]
            put(path, last, KEY, is_removed=True)
    else:
        score = given["score"]
        if (not given["keep"] and not score) or given["keep"] not in GOOD or score not in SCORES:
            raise InputError("choose keep or drop, or a score from 1 to 5")
        row = _row(request, row_id)[0]
        if row is None:
            raise InputError(f"{artifact} has no row {row_id:.60}")
        label = {
            "id": row_id, "rater": rater, "good": GOOD[given["keep"]],
            "score": int(score) if score else None, "why": given["why"][:2000],
            "instruction": _question(artifact, row), "response": response_of(row),
            "artifact": artifact.name,
        }  # fmt: skip
        put(path, label, KEY)
        row_id = ""
    reply = _next(request, rater, row_id)
    reply.set_cookie("rater", quote(rater), httponly=True, samesite="strict", max_age=31_000_000)
    return reply


def _next(request: Request, rater: str, row_id: str) -> Response:
    artifact, labels = artifact_of(request), people_rows(_file(request))
    ranked = _ranked(request)
    own = {(each["id"], each["response"]): each for each in labels if each["rater"] == rater}
    said = defaultdict[tuple[str, str], set[Any]](set)
    for each in labels:
        said[each["id"], each["response"]].add(each["good"])
    pairs = {name: (name, response_of(each)) for name, (each, _) in ranked.items()}
    due = sorted(
        (name for name in ranked if pairs[name] not in own),
        key=lambda name: len(said[pairs[name]]) < 2,
    )
    row_id = row_id or next(iter(due), "")
    row, reasons = _row(request, row_id)
    response = response_of(row) if row else ""
    if len(said[row_id, response]) > 1:
        reasons = ["people disagree", *reasons]
    whole = "hx-request" not in request.headers
    return page(
        request, "label.html" if whole else "label_row.html", artifact=artifact, row=row,
        question=_question(artifact, row) if row else "", response=response, reasons=reasons,
        own=own.get((row_id, response), {"score": None, "why": ""}), rater=rater,
        due=len(due), done=len(own), total=len(ranked), file=_file(request), asked=row_id,
        path=request.url.path,
    )  # fmt: skip


def _ranked(request: Request) -> Ranked:
    artifact = artifact_of(request)
    found: Ranked = site_of(request).keep(("label", artifact.digest), lambda: ranking(artifact))
    return found


def _row(request: Request, row_id: str) -> tuple[dict[str, Any] | None, list[str]]:
    """Return a row, and the reasons to look at it; only a row that is not ranked is searched."""
    if row_id in (ranked := _ranked(request)):
        return ranked[row_id]
    return rows_by_id(artifact_of(request), [row_id] * bool(row_id)).get(row_id), []


def ranking(artifact: Artifact) -> Ranked:
    """Return the most suspicious rows by id, with the reasons; rows without one in random order."""
    parts, least = parts_of(artifact), _SUSPICION["least"]
    described = query("DESCRIBE FROM read_parquet($parts)", parts=parts)
    columns = {row["column_name"] for row in described}
    used = [row for row in _SUSPICION["reasons"] if row["needs"] in columns]
    values = list(dict.fromkeys(value for row in used for value in row.get("of", [])))
    sql = _SUSPICION["query"].format(
        length=next((sql for name, sql in _SUSPICION["length"].items() if name in columns), "0"),
        stats=", ".join(f"avg({v}) AS m{n}, stddev({v}) AS s{n}" for n, v in enumerate(values)),
        reasons=", ".join(f"coalesce({_suspicion(row, values)}, 0.0)::DOUBLE" for row in used),
    )
    reasons = {
        row["id"]: [u["name"] for u, part in zip(used, row["parts"], strict=True) if part >= least]
        for row in query(sql, parts=parts, least=least, most=MOST_ROWS)
    }
    rows = rows_by_id(artifact, reasons)
    return {row_id: (rows[row_id], some) for row_id, some in reasons.items()}


def _suspicion(reason: Mapping[str, Any], values: Sequence[str]) -> str:
    """Return a reason's SQL with the values that it compares with all rows as standard scores."""
    numbers = [(each, values.index(each)) for each in reason.get("of", [])]
    return str(reason["sql"]).format(*(f"(({v} - m{n}) / nullif(s{n}, 0))" for v, n in numbers))


def _question(artifact: Artifact, row: dict[str, Any]) -> str:
    return question_of(row) or questions(artifact, [row["id"]]).get(row["id"], "")


def _file(request: Request) -> Path:
    return artifact_of(request).path.parent / PEOPLE / LABELS


routes = [
    Route("/label", choose),
    Route("/label/{store}/{artifact}", label),
    Route("/label/{store}/{artifact}", save, methods=["POST"]),
]
