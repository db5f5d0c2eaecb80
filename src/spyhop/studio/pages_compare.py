"""Two models on the same items: the paired table, and rows side by side."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from spyhop.evaluate.comparison import ComparedLogs, compare_logs
from spyhop.evaluate.logs import read_log
from spyhop.report.comparison import comparison_sections
from spyhop.report.html import ReportSection
from spyhop.schema import InputError
from spyhop.store import Artifact
from spyhop.studio.lookup import model_name, parts_of, query, questions
from spyhop.studio.marking import side_by_side
from spyhop.studio.site import artifact_of, page, site_of

nav = [("Compare", "/compare")]
SCORES = ("evaluate.measure",)
VERDICTS = ("evaluate.judge", "evaluate.ready_verdicts")
MOST_ROWS = 100
"""Rows to read of each task and side: a fixed random sample."""
ROWS_SHOWN = 10
SIDES = {"first": "only the first is right", "second": "only the second is right"}


def compare(request: Request) -> Response:
    """Show one table of two models, or let the person choose them."""
    return choose_two(request, "compare", SCORES)


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
    names = model_name(first), model_name(second)
    if names[0] != names[1]:
        return names
    return f"{names[0]} {first.key[:6]}", f"{names[1]} {second.key[:6]}"


def compared(request: Request) -> Response:
    """Show the figures of two models, and rows on which they differ."""
    first, second = artifact_of(request, "first"), artifact_of(request, "second")
    found, sections = _compared(request, first, second)
    side, task = request.query_params.get("side", ""), request.query_params.get("task", "")
    rows = [
        row
        for row in found.disagreements
        if side in ("", "second" if row.second_value > row.first_value else "first")
        and task in ("", row.task)
    ]
    start = _number(request.query_params.get("from", "0"))
    shown = rows[start : start + ROWS_SHOWN]
    ids = [row.first.item for row in shown]
    return page(
        request, "compare.html", found=found, sections=sections, total=len(rows),
        rows=shown, start=start, asked=questions(first, ids), side_by_side=side_by_side,
        reasons=_reasons(_judged(request), ids),
        step=ROWS_SHOWN, side=side, task=task, sides=SIDES, first=first, second=second,
        path=request.url.path, query=request.query_params, store=request.path_params["store"],
        tasks=[result.group for result in found.by_task],
    )  # fmt: skip


def _compared(
    request: Request, first: Artifact, second: Artifact
) -> tuple[ComparedLogs, list[ReportSection]]:
    """Return the comparison and its tables, made once."""

    def make() -> tuple[ComparedLogs, list[ReportSection]]:
        first.verify()
        second.verify()
        logs = (read_log(artifact.path) for artifact in (first, second))
        found = compare_logs(*logs, num_rows=MOST_ROWS, is_anyway=True)
        named = replace(found, names=names_of(first, second))
        return named, comparison_sections(named)

    made = site_of(request).keep(("compare", first.digest, second.digest), make)
    return cast(tuple[ComparedLogs, list[ReportSection]], made)


def _judged(request: Request) -> list[Artifact]:
    catalog = site_of(request).catalog(request.path_params["store"])
    return [each for each in catalog.artifacts() if each.record.stage in VERDICTS]


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


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 9 else 0


routes = [
    Route("/compare", compare),
    Route("/compare/{store}/{first}/{second}", compared),
]
