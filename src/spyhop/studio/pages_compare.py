"""Two models on the same items: the paired table, rows side by side, and blind votes.

Every vote is a row of a file in the store.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from spyhop.evaluate.comparison import ComparedLogs, compare_logs
from spyhop.evaluate.logs import read_log
from spyhop.evaluate.votes import (
    SCREENING,
    VotePair,
    agreement,
    count_votes,
    match_pairs,
    read_screening,
    tallies,
)
from spyhop.report.comparison import comparison_sections
from spyhop.report.html import ReportSection
from spyhop.schema import InputError, Verdict
from spyhop.store import Artifact, key_of
from spyhop.studio.lookup import (
    WITH_RESPONSES,
    exchanges,
    model_name,
    parts_of,
    query,
    questions,
)
from spyhop.studio.people import PEOPLE, people_rows, put
from spyhop.studio.site import artifact_of, page, site_of
from spyhop.studio.vote_page import pairs_json
from spyhop.text.extract import marks

nav = [("Compare", "/compare"), ("Vote", "/vote")]
VERDICTS = ("evaluate.judge", "evaluate.ready_verdicts")
MOST_ROWS = 100
"""Rows to read of each task and side: a fixed random sample."""
ROWS_SHOWN = 10
MOST_PAIRS = 200
"""Pairs to vote on: a fixed random sample of the common questions."""
SIDES = {"first": "only the first is right", "second": "only the second is right"}
MOST_WORDS = 2000
"""Longer responses are shown without a diff, whose time grows with the square of the length."""
_WORD = re.compile(r"\s+|\w+|[^\w\s]")
_COMMON = """SELECT DISTINCT id FROM read_parquet($first) JOIN read_parquet($second) b USING (id)
    ORDER BY md5(id), id LIMIT $most"""

Span = tuple[int, int]
Piece = tuple[str, str]
"""A text and its kinds: `differs`, `answer`, both or neither."""


def choose_two(request: Request, kind: str, stages: Sequence[str]) -> Response:
    """Let a person choose two artifacts of a store; a chosen pair has an address of its own."""
    asked = request.query_params
    if {"store", "first", "second"} <= asked.keys():
        root = f"/{kind}/{asked['store']}"
        if asked["first"] == asked["second"]:
            raise InputError("these are the same responses; choose two models")
        for name in ("first", "second"):
            site_of(request).artifact(asked["store"], asked[name])
        return RedirectResponse(f"{root}/{asked['first']}/{asked['second']}", 303)
    site = site_of(request)
    found = {
        store: [
            (each.name, label_of(each, steps))
            for each in site.catalog(store).artifacts()
            if each.record.stage in stages
        ]
        for store in site.stores
        for steps in (site.catalog(store).steps(),)
    }
    return page(request, "choose.html", kind=kind, stores=found)


def label_of(artifact: Artifact, steps: Mapping[str, Sequence[str]]) -> str:
    """Return a model's name and step; the time and the key tell several runs apart."""
    time = artifact.record.created[:16].replace("T", " ")
    step = steps.get(artifact.name, [artifact.key[:8]])[0]
    return f"{model_name(artifact)}: {step}, {artifact.num_rows:,} rows, {time}"


def names_of(first: Artifact, second: Artifact) -> tuple[str, str]:
    """Return the names of two models; equal ones are followed by their keys."""
    one, two = model_name(first), model_name(second)
    return (one, two) if one != two else (f"{one} {first.key[:6]}", f"{two} {second.key[:6]}")


def compared(request: Request) -> Response:
    """Show the figures of two models, and rows on which they differ."""
    first, second = _two(request)
    key = ("compare", first.digest, second.digest)
    found, sections = site_of(request).keep(key, lambda: _compared(first, second))
    side, task = request.query_params.get("side", ""), request.query_params.get("task", "")
    rows = [
        row
        for row in found.disagreements
        if side in ("", "second" if row.second_value > row.first_value else "first")
        and task in ("", row.task)
    ]
    given = request.query_params.get("from", "0")
    start = int(given) if given.isdecimal() and len(given) < 9 else 0
    ids = [row.first.item for row in rows[start : start + ROWS_SHOWN]]
    catalog = site_of(request).catalog(request.path_params["store"])
    judged = [each for each in catalog.artifacts() if each.record.stage in VERDICTS]
    return page(
        request, "compare.html", found=found, sections=sections, total=len(rows),
        rows=rows[start : start + ROWS_SHOWN], start=start, asked=questions(first, ids),
        side_by_side=side_by_side, reasons=_reasons(judged, ids),
        step=ROWS_SHOWN, side=side, task=task, sides=SIDES, first=first, second=second,
        path=request.url.path, query=request.query_params, store=request.path_params["store"],
        tasks=[result.group for result in found.by_task],
    )  # fmt: skip


def _compared(first: Artifact, second: Artifact) -> tuple[ComparedLogs, list[ReportSection]]:
    """Return the comparison and its tables."""
    first.verify()
    second.verify()
    logs = (read_log(artifact.path) for artifact in (first, second))
    found = compare_logs(*logs, num_rows=MOST_ROWS, is_anyway=True)
    named = replace(found, names=names_of(first, second))
    return named, comparison_sections(named)


def _reasons(judged: Sequence[Artifact], ids: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the verdicts of all judges of a store on these items that give a reason."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    sql = """SELECT item_id, judge, a, b, "order", winner, reason FROM read_parquet($parts)
        WHERE item_id IN (SELECT unnest($ids)) AND reason <> ''"""
    for artifact in judged if ids else ():
        for row in query(sql, parts=parts_of(artifact), ids=list(ids)):
            better = {"a": f"{row['a']} is better", "b": f"{row['b']} is better", "tie": "a tie"}
            winner = better.get(row["winner"], "no verdict")
            found[row["item_id"]].append({**row, "winner": winner})
    return found


def side_by_side(
    first: str, second: str, answers: tuple[str | None, str | None] = (None, None)
) -> tuple[list[Piece], list[Piece]]:
    """Return both texts in pieces that together are the texts."""
    one, two = _differences(first, second)
    return (
        list(_pieces(first, one, answer_span(first, answers[0]))),
        list(_pieces(second, two, answer_span(second, answers[1]))),
    )


def answer_span(text: str, answer: str | None) -> Span | None:
    """Return where a response states the answer that was extracted, normalised, from it.

    It is the first match behind the last mark of an answer, else the last match in the text. Case,
    white space and thousands separators may differ; a label stands alone, as in `(A)`.
    """
    if not answer:
        return None
    shape = "".join(
        r"\s+" if part.isspace() else ",?".join(part) if part.isdigit() else re.escape(part)
        for part in re.findall(r"\s+|\d+|[^\d\s]+", answer.strip())
    )
    flags = 0 if len(answer) == 1 else re.IGNORECASE
    found = list(re.finditer(rf"(?<!\w){shape}(?!\w)", text, flags))
    stated = [mark.start for mark in marks(text)]
    behind = [match for match in found if stated and match.start() >= stated[-1]]
    best = behind[0] if behind else found[-1] if found else None
    return best.span() if best else None


def _differences(first: str, second: str) -> tuple[list[Span], list[Span]]:
    """Return the spans of either text that the other does not have."""
    one, two = _WORD.findall(first), _WORD.findall(second)
    if max(len(one), len(two)) > MOST_WORDS or not (one and two):
        return [], []
    found: tuple[list[Span], list[Span]] = [], []
    for kind, a, a_end, b, b_end in SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        for spans, words, start, end in ((found[0], one, a, a_end), (found[1], two, b, b_end)):
            if kind != "equal" and start < end:
                place = len("".join(words[:start]))
                spans.append((place, place + len("".join(words[start:end]))))
    return found


def _pieces(text: str, changed: list[Span], answer: Span | None) -> Iterator[Piece]:
    kinds = [("differs", span) for span in changed] + ([("answer", answer)] if answer else [])
    edges = sorted({0, len(text), *(edge for _, span in kinds for edge in span)})
    for start, end in pairwise(edges):
        inside = [kind for kind, (low, high) in kinds if low <= start < high]
        yield text[start:end], " ".join(inside)


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
    one, two = ([(row_id, *texts) for row_id, texts in exchanges(each, ids).items()]
                for each in (first, second))  # fmt: skip
    if not ids:
        raise InputError(f"{first} and {second} have no question in common; choose two models that "
                         "were asked the same questions")  # fmt: skip
    pairs = [pair for pair in match_pairs(one, two) if pair.a != pair.b] if one and two else []
    if not pairs:
        raise InputError(f"{first} and {second} have no two different whole responses to a common "
                         "question; options that are scored by likelihood have none")  # fmt: skip
    return pairs


routes = [
    Route("/compare", partial(choose_two, kind="compare", stages=("evaluate.measure",))),
    Route("/compare/{store}/{first}/{second}", compared),
    Route("/vote", partial(choose_two, kind="vote", stages=WITH_RESPONSES)),
    Route("/vote/{store}/{first}/{second}", vote),
    Route("/vote/{store}/{first}/{second}/votes", votes),
    Route("/vote/{store}/{first}/{second}/votes", receive, methods=["POST"]),
    Route("/vote/{store}/{first}/{second}/result", result),
]
