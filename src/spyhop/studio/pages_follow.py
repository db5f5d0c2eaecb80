"""Follow a row: to the rows it was made from, to what became of it, and to its model's reply.

A row names its sources in columns that end in `_id`, and an id is a hash of content, so equal ids
are the same row in every artifact. `system_id` names a set's entry that many rows share.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spyhop.augment.answer import AnswerConfig
from spyhop.evaluate.measure import MeasureConfig, request_of
from spyhop.models import Request as ModelRequest
from spyhop.models import Sampling
from spyhop.models.base import request_key
from spyhop.models.calls import Reply
from spyhop.models.journal import history
from spyhop.schema import InputError, Item, Message
from spyhop.store import Artifact
from spyhop.store.files import byte_lines, matching
from spyhop.store.rows import PARQUET, read_rows
from spyhop.studio.helper import ask
from spyhop.studio.lookup import made_from, response_of, rows_by_id
from spyhop.studio.pages_rows import place_of
from spyhop.studio.site import Catalog, artifact_of, page, site_of
from spyhop.studio.tables import Engine, Table

MOST_ROWS = 6
SEARCH_S, LEAST_CHARS, MOST_CHARS = 1.5, 10, 80
"""Seconds that source files are searched, and characters that are looked for."""
TOKENIZER, SETTINGS = "tokenizer_config.json", ("train_on", "thinking", "history")
ASKED = ("teacher", "model", "judge", "writer")
"""Names of the inputs that are models."""
Sent = tuple[ModelRequest, Sampling]


@dataclass(slots=True)
class Station:
    """An artifact that has the row, or a row that it was made from or into."""

    artifact: Artifact
    side: str
    """`before`, `here`, `after`; `model`: trained on the row; `score`: scores of that model."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    source: str = ""
    """File and line that its first row was read from."""


def follow(
    engine: Engine, catalog: Catalog, artifact: Artifact, row: Mapping[str, Any]
) -> list[Station]:
    """Return where a row comes from, the oldest first, and where it went."""
    by_key, parents, children = _graph(catalog)
    tables = {key: Table(engine, each) for key, each in by_key.items()}
    own = {str(row["id"])} if row.get("id") else set[str]()
    stations, back = [Station(artifact, "here", [dict(row)])], own | _links(row)
    for key in _reach(artifact.key, parents):
        found = _find(tables[key], ["id"], back) or _find(
            tables[key], _names(tables[key]), back - own
        )
        for each in found:
            back |= _links(each) | {str(each.get("id"))}
        stations[:0] = [Station(by_key[key], "before", found)] if found else []
    for station in stations[:1]:
        station.source = _source(station.artifact, station.rows[0])
    ids, readers = set(own), {artifact.key}
    for key in _reach(artifact.key, children):
        if found := _find(tables[key], ["id", *_names(tables[key])], ids):
            ids |= {str(each["id"]) for each in found if each.get("id")}
            readers.add(key)
            stations.append(Station(by_key[key], "after", found))
        elif by_key[key].record.stage.startswith("train.") and readers & {*parents[key]}:
            scores = [by_key[each] for each in children.get(key, [])]
            stations.append(Station(by_key[key], "model"))
            stations += [Station(s, "score") for s in scores if "correct" in s.record.counts]
    return stations


def _source(artifact: Artifact, row: Mapping[str, Any]) -> str:
    """Return the file and line that a row was read from, if it does not state them.

    The second half of its longest line is searched for (a template may have written its beginning)
    in the inputs that are files of this machine, for at most `SEARCH_S` seconds.
    """
    lines = [each for value in row.values() if isinstance(value, str) for each in value.split("\n")]
    longest, end = max(lines, key=len, default=""), monotonic() + SEARCH_S
    text = longest[len(longest) // 2 :][-MOST_CHARS:]
    if len(text) < LEAST_CHARS or re.search(r"(:|line) ?\d+$", str(row.get("origin", ""))):
        return ""
    wanted = {text.encode(errors="replace"), to_json(text)[1:-1], json.dumps(text)[1:-1].encode()}
    folders = [Path(each.name) for some in artifact.record.inputs.values() for each in some]
    with suppress(InputError, OSError):
        for path in (file for each in folders if each.exists() for file in matching(each, "*")):
            rows = (row for _, row in read_rows(path))
            found = map(to_json, rows) if path.suffix == PARQUET else byte_lines(path)
            for number, line in enumerate(found, 1):
                if any(form in line for form in wanted):
                    return f"{path.parent.name}/{path.name}:{number}"
                if monotonic() > end:
                    return ""
    return ""


def _graph(
    catalog: Catalog,
) -> tuple[dict[str, Artifact], dict[str, list[str]], dict[str, list[str]]]:
    """Return the artifacts by key, and the keys of each one's inputs and users.

    A model's key is not that of its artifact; its label ends with the step in parentheses.
    """
    by_key, steps = {each.key: each for each in catalog.artifacts()}, catalog.steps()
    made_by = {
        n.partition("/")[2]: k for k, a in by_key.items() for n in steps.get(a.path.name, [])
    }
    parents, children = dict[str, list[str]](), dict[str, list[str]]()
    for key, artifact in by_key.items():
        for each in (one for some in artifact.record.inputs.values() for one in some):
            source = made_by.get(each.name.rpartition("(")[2].removesuffix(")"), each.key)
            parents.setdefault(key, []).extend([source] * (source in by_key))
            children.setdefault(source, []).append(key)
    return by_key, parents, children


def _reach(start: str, near: Mapping[str, list[str]]) -> list[str]:
    """Return what can be reached from a key, the nearest first."""
    due = [start]
    for each in due:
        due += [key for key in dict.fromkeys(near.get(each, [])) if key not in due]
    return due[1:]


def _find(table: Table, names: list[str], ids: Collection[str]) -> list[dict[str, Any]]:
    known = [name for name in names if name in table.columns and table.columns[name].kind == "text"]
    return table.find(known, sorted(ids), MOST_ROWS + 1)


def _names(names: Table | Mapping[str, Any]) -> list[str]:
    every = names.top if isinstance(names, Table) else names
    return [name for name in every if name.endswith("_id") and name != "system_id"]


def _links(row: Mapping[str, Any]) -> set[str]:
    return {str(row[name]) for name in _names(row) if row[name]}


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
    models = [
        each for each in catalog.artifacts()
        if TOKENIZER in each.record.files and each.record.stage.startswith("train.")
    ]  # fmt: skip
    key = table.artifact.key
    models.sort(key=lambda m: all(i.key != key for some in m.record.inputs.values() for i in some))
    wanted = request.query_params.get("model")
    chosen = next((each for each in models if each.path.name == wanted), (*models, None)[0])
    found = None
    if chosen:
        settings = {k: v for k, v in chosen.record.config.items() if k in SETTINGS}
        found = ask("mask", chosen.path, table.row(at), settings)
    values: dict[str, Any] = {"models": models, "chosen": chosen, "found": found}
    return page(request, "mask.html", **values, **(names | {"steps": catalog.steps()}))


def reply(request: Request) -> Response:
    """Show what is known of the reply behind a row."""
    artifact, row_id = artifact_of(request), request.path_params["row"]
    row = rows_by_id(artifact, [row_id]).get(row_id)
    if row is None:
        raise HTTPException(404, f"{artifact} has no row {row_id:.80}.")
    inputs = artifact.record.inputs
    model = next((inputs[name][0] for name in ASKED if name in inputs), None)
    sent = {request_key("generate", sampling, each): (each, sampling)
            for each, sampling in _sent(artifact, row)}  # fmt: skip
    text = "" if sent else (row.get("reason") or (row.get("rating") or {}).get("reason") or "")
    identity = model.digest if model else ""
    found, failed = history(artifact.path.parent, identity, list(sent), text)
    request_sent = sent.get(found.key if found else "", next(iter(sent.values()), None))
    return page(
        request, "reply.html", artifact=artifact, row=row, model=model, answered=found,
        reply=Reply.model_validate_json(found.reply) if found else None, failed=failed,
        sent=request_sent, response=response_of(row), is_by_text=bool(text),
        store=request.path_params["store"],
    )  # fmt: skip


def _sent(artifact: Artifact, row: Mapping[str, Any]) -> Iterator[Sent]:
    """Yield the requests that a row may be the reply to: the first one, then its repetitions."""
    if artifact.record.stage == "augment.answer":
        turns = [Message.model_validate(turn) for turn in row["messages"]]
        asked = turns[:-1] if turns[-1].role == "assistant" else turns
        config = AnswerConfig.model_validate(artifact.record.config)
        more = round(config.sampling.max_new_tokens * config.outcomes.more_room)
        room = config.sampling.model_copy(update={"max_new_tokens": more})
        number = row["sample_index"]
        for sampling, sample in ((config.sampling, number), (room, number),
                                 (config.sampling, number + config.num_samples)):  # fmt: skip
            yield ModelRequest(id=row["id"], messages=asked, sample_index=sample), sampling
    elif artifact.record.stage == "evaluate.measure" and row["finish_reason"] != "likelihood":
        measured = MeasureConfig.model_validate(artifact.record.config)
        for source in made_from(artifact, "items"):
            for item in map(Item.model_validate, rows_by_id(source, [row["id"]]).values()):
                protocol = measured.protocol(item.suite)
                yield request_of(item, row["sample_index"], protocol), protocol.sampling


routes = [
    Route("/follow/{store}/{artifact}", trace),
    Route("/mask/{store}/{artifact}", mask),
    Route("/reply/{store}/{artifact}/{row}", reply),
]
