"""Follow a row through a store by its id: to the rows it was made from, and to what became of it.

A row names its sources in columns that end in `_id`, and an id is a hash of content, so equal ids
are the same row in every artifact. `system_id` names a set's entry that many rows share.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spyhop.store import Artifact
from spyhop.studio.catalog import Catalog
from spyhop.studio.tables import Column, Engine, Table

MOST_ROWS = 6
SHARED = {"system_id"}


@dataclass(slots=True)
class Station:
    """An artifact that has the row, or a row that it was made from or into."""

    artifact: Artifact
    side: str
    """`before`, `here`, `after`; `model`: trained on the row; `score`: scores of that model."""
    steps: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    has_more: bool = False


def follow(
    engine: Engine, catalog: Catalog, artifact: Artifact, row: Mapping[str, Any]
) -> list[Station]:
    """Return where a row comes from, the oldest first, and where it went."""
    by_key = {each.key: each for each in catalog.artifacts()}
    steps = catalog.steps()
    made_by = {
        n.partition("/")[2]: key for key, a in by_key.items() for n in steps.get(a.path.name, [])
    }
    parents = {key: _inputs(each, made_by) for key, each in by_key.items()}
    children: dict[str, list[str]] = {}
    for key, found in parents.items():
        for parent in found:
            children.setdefault(parent, []).append(key)
    own = {str(row["id"])} if row.get("id") else set()
    before, back = list[Station](), own | {str(row[n]) for n in row if _is_link(n) and row[n]}
    for each in _reach(artifact, by_key, parents):
        station = _station(engine, each, "before", steps, back, ["id"])
        if not station.rows:
            station = _station(engine, each, "before", steps, back - own, None)
        for found in station.rows:
            back |= {str(found[n]) for n in found if (n == "id" or _is_link(n)) and found[n]}
        before += [station] if station.rows else []
    after, ids = list[Station](), set(own)
    readers = {artifact.key}
    """Artifacts that contain the row."""
    for each in _reach(artifact, by_key, children):
        station = _station(engine, each, "after", steps, ids, None)
        if station.rows:
            ids |= {str(found["id"]) for found in station.rows if found.get("id")}
            readers.add(each.key)
            after.append(station)
        elif each.record.stage.startswith("train.") and readers & {*parents[each.key]}:
            after.append(Station(each, "model", steps.get(each.path.name, [])))
            after += [
                Station(by_key[key], "score", steps.get(by_key[key].path.name, []))
                for key in children.get(each.key, []) if "correct" in by_key[key].record.counts
            ]  # fmt: skip
    here = Station(artifact, "here", steps.get(artifact.path.name, []), [dict(row)])
    return [*reversed(before), here, *after]


def _reach(
    start: Artifact, by_key: Mapping[str, Artifact], near: Mapping[str, list[str]]
) -> list[Artifact]:
    """Return what can be reached from an artifact, the nearest first."""
    due = [start.key]
    for each in due:
        due += [key for key in near.get(each, []) if key in by_key and key not in due]
    return [by_key[key] for key in due[1:]]


def _station(
    engine: Engine, artifact: Artifact, side: str, steps: Mapping[str, list[str]], ids: set[str],
    names: list[str] | None,
) -> Station:  # fmt: skip
    station = Station(artifact, side, steps.get(artifact.path.name, []))
    table = Table(engine, artifact)
    linked = [each for each in table.columns.values() if _links(each, names)]
    if linked and ids:
        where = " OR ".join(f"{each.sql} IN (SELECT unnest($ids::VARCHAR[]))" for each in linked)
        station.rows = table.find(where, {"ids": sorted(ids)}, MOST_ROWS + 1)
        station.has_more = len(station.rows) > MOST_ROWS
        del station.rows[MOST_ROWS:]
    return station


def _links(column: Column, names: list[str] | None) -> bool:
    is_named = column.name in names if names else column.name == "id" or _is_link(column.name)
    return is_named and column.kind == "text"


def _is_link(name: str) -> bool:
    return name.endswith("_id") and name not in SHARED


def _inputs(artifact: Artifact, made_by: Mapping[str, str]) -> list[str]:
    """Return the keys of an artifact's inputs; a model's is that of the step in its label."""
    every = [each for some in artifact.record.inputs.values() for each in some]
    return [made_by.get(each.name.rpartition("(")[2].removesuffix(")"), each.key) for each in every]
