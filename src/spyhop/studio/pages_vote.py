"""Blind votes on the responses of two models; every vote is a row of a file in the store."""

import re
from functools import partial
from pathlib import Path

from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from spyhop.evaluate.votes import (
    SCREENING,
    VotePair,
    agreement,
    count_votes,
    match_pairs,
    read_screening,
    tallies,
)  # fmt: skip
from spyhop.schema import InputError, Verdict
from spyhop.store import Artifact, key_of
from spyhop.studio.lookup import WITH_RESPONSES, exchanges, parts_of, query
from spyhop.studio.pages_compare import choose_two, names_of
from spyhop.studio.people import PEOPLE, people_rows, put
from spyhop.studio.site import artifact_of, page, site_of
from spyhop.studio.vote_page import pairs_json

nav = [("Vote", "/vote")]
MOST_PAIRS = 200
"""Pairs to vote on: a fixed random sample of the common questions."""
_COMMON = """SELECT DISTINCT id FROM read_parquet($first) JOIN read_parquet($second) b USING (id)
    ORDER BY md5(id), id LIMIT $most"""


def vote(request: Request) -> Response:
    """Show the pairs."""
    names, pairs = _pairs(request)
    url = f"{request.url.path}/votes"
    return page(
        request, "vote.html", data=pairs_json(names, pairs, url), url=url, pairs=pairs,
        screening=sum(pair.suite == SCREENING for pair in pairs), file=_file(request),
    )  # fmt: skip


def votes(request: Request) -> Response:
    """Return the votes of a person, for a page that is opened again."""
    rater = request.query_params.get("rater", "")
    return JSONResponse([row for row in people_rows(_file(request)) if row["judge"] == rater])


async def receive(request: Request) -> Response:
    """Write a vote, or remove one without a winner; it is on disk when the browser hears of it."""
    try:
        vote = Verdict.model_validate(from_json(await request.body()))
    except ValueError:
        return PlainTextResponse("this is not a vote", 400)
    return await run_in_threadpool(_cast, request, vote)


def _cast(request: Request, vote: Verdict) -> Response:
    names, pairs = _pairs(request)
    is_known = any((pair.id, pair.suite) == (vote.item_id, vote.suite) for pair in pairs)
    models = ("better", "worse") if vote.suite == SCREENING else names
    is_whole = bool(vote.order) and 0 < len(vote.judge) <= 80
    if not is_known or (vote.a, vote.b) != models or not is_whole:
        return PlainTextResponse("this vote is not on the pairs of this page", 422)
    row = vote.model_copy(update={"id": f"{vote.item_id}/{vote.judge}"}).model_dump()
    put(_file(request), row, is_removed=vote.winner is None)
    return Response(status_code=204)


def result(request: Request) -> Response:
    """Show wins with intervals, the votes that would settle it, and the agreement of people."""
    rows = map(Verdict.model_validate, people_rows(_file(request)))
    found = count_votes(rows, names_of(*_two(request)))
    people = tallies(found)[0] if found.verdicts else None
    return page(request, "vote_result.html", votes=found, people=people, alpha=agreement(found))


def _two(request: Request) -> tuple[Artifact, Artifact]:
    return artifact_of(request, "first"), artifact_of(request, "second")


def _file(request: Request) -> Path:
    """Return the file of votes on two artifacts, named after their models."""
    first, second = _two(request)
    names = "-".join(re.sub(r"[^\w.]+", "-", name) for name in names_of(first, second))
    key = key_of([first.key, second.key])[:8]
    return first.path.parent / PEOPLE / f"votes-{names[:80]}-{key}.jsonl"


def _pairs(request: Request) -> tuple[tuple[str, str], list[VotePair]]:
    """Return the models' names and the pairs, read once; screening items come last."""
    first, second = _two(request)
    screening = _file(request).with_name("screening.jsonl")
    changed = screening.stat().st_mtime_ns if screening.exists() else 0
    pairs: list[VotePair] = site_of(request).keep(
        ("vote", first.digest, second.digest, changed),
        lambda: [*_matched(first, second), *(read_screening(screening) if changed else [])],
    )
    return names_of(first, second), pairs


def _matched(first: Artifact, second: Artifact) -> list[VotePair]:
    rows = query(_COMMON, first=parts_of(first), second=parts_of(second), most=MOST_PAIRS)
    ids = [row["id"] for row in rows]
    one, two = (
        [(row_id, *texts) for row_id, texts in exchanges(each, ids).items()]
        for each in (first, second)
    )
    if not ids:
        raise InputError(f"{first} and {second} have no question in common; choose two models that "
                         "were asked the same questions")  # fmt: skip
    pairs = [pair for pair in match_pairs(one, two) if pair.a != pair.b] if one and two else []
    if not pairs:
        raise InputError(f"{first} and {second} have no two different whole responses to a common "
                         "question; options that are scored by likelihood have none")  # fmt: skip
    return pairs


routes = [
    Route("/vote", partial(choose_two, kind="vote", stages=WITH_RESPONSES)),
    Route("/vote/{store}/{first}/{second}", vote),
    Route("/vote/{store}/{first}/{second}/votes", votes),
    Route("/vote/{store}/{first}/{second}/votes", receive, methods=["POST"]),
    Route("/vote/{store}/{first}/{second}/result", result),
]
