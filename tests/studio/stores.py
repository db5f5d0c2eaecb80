"""Stores for tests of the studio: artifacts with given rows, and the folder of a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from starlette.testclient import TestClient

from spyhop.store import Artifact, InputRecord, PartWriter, Record, key_of, point
from spyhop.store.artifact import RECORD, digest_of, digests
from spyhop.store.verify import sealed
from spyhop.studio.app import create_app

DROPS = pa.schema([pa.field("reason", pa.string(), False), pa.field("row", pa.string(), False)])


def client(*stores: Path) -> TestClient:
    return TestClient(create_app(stores), base_url="http://127.0.0.1", raise_server_exceptions=True)


def artifact(
    store: Path,
    stage: str,
    rows: Sequence[Mapping[str, Any]] | pa.Table,
    inputs: Mapping[str, Artifact] | None = None,
    *,
    dropped: Sequence[tuple[str, str]] = (),
    part_rows: int = 50_000,
    **record: Any,
) -> Artifact:
    """Write a finished artifact; its key is the hash of its name and rows."""
    key = key_of([stage, repr(rows), part_rows])
    folder = store / f"{stage}-{key}"
    folder.mkdir(parents=True)
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist([*map(dict, rows)])
    for place, start in enumerate(range(0, max(1, len(table)), part_rows)):
        part = folder / "part"
        part.mkdir()
        writer = PartWriter(part, table.schema)
        for batch in table.slice(start, part_rows).to_batches():
            writer.add_batch(batch)
        writer.close()
        (part / "part-00000.parquet").rename(folder / f"part-{place:05d}.parquet")
        part.rmdir()
    if dropped:
        (folder / "dropped").mkdir()
        writer = PartWriter(folder / "dropped", DROPS)
        for reason, row in dropped:
            writer.add({"reason": reason, "row": row})
        writer.close()
    found = digests(folder)
    made = Record(
        key=key, stage=stage, version=1, config={}, rows=len(table), digest=digest_of(found),
        files={name: short for name, (_, short) in found.items()},
        dropped={reason: sum(r == reason for r, _ in dropped) for reason, _ in dropped},
        created="2026-11-26T10:00:00+00:00",
        inputs={
            name: [InputRecord(name=name, key=each.key, digest=each.digest)]
            for name, each in (inputs or {}).items()
        },
        **record,
    )  # fmt: skip
    (folder / RECORD).write_bytes(sealed(made.model_dump_json(indent=1)))
    return Artifact(folder, made)


def run(store: Path, name: str, steps: Mapping[str, Artifact], **described: Any) -> Path:
    """Write `run.json` and links of a run."""
    for step, made in steps.items():
        point(store, name, step, made)
    folder = store / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    listed = described.pop("listed", [{"name": step, "inputs": {}} for step in steps])
    (folder / "run.json").write_text(json.dumps({"state": "done", "steps": listed, **described}))
    return folder


def line(**event: Any) -> str:
    return json.dumps(event, separators=(",", ":")) + "\n"
