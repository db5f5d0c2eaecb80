"""The answers as a data set for others: Parquet and JSONL of messages, with a card.

`datasets`, TRL and axolotl load the folder as it is: a column `messages` of role and content.
"""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spyhop.schema import Answer, Config, Query
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact, Artifacts
from spyhop.text.template import write_markdown

BATCH_ROWS = 2000
UNKNOWN = "unknown"
OPEN = ("apache", "bsd", "cc 0", "cc by", "cdla", "gfdl", "mit", "odbl", "odc", "public domain")
"""Families of licences that allow any use, in words."""
_LIMITS = {
    "academic", "educational", "nc", "nd", "noderivatives", "non", "noncommercial", "not",
    "research",
}  # fmt: skip
_LINK = re.compile(r"https?://\S+")
_TEXT = pa.field("", pa.string(), nullable=False)
_TURN = pa.struct([_TEXT.with_name("role"), _TEXT.with_name("content")])
_TEXTS = ("collection", "task", "system_id", "target", "model", "outcome", "license", "origin")
SCHEMA = pa.schema(
    [
        _TEXT.with_name("id"),
        pa.field("messages", pa.list_(_TURN), False),
        *(_TEXT.with_name(name) for name in _TEXTS),
    ]
)
TABLES = {
    "collection": "Sources",
    "license": "Licences",
    "model": "Who answered",
    "system_id": "System messages",
    "outcome": "Outcomes of checks",
}
"""Columns that the card counts, and their headings."""


class DatasetConfig(Config):
    """How the data set is called."""

    title: str
    language: str = "en"


@stage(version=4, writes=FOLDER, plan=lambda config, **inputs: Estimate(seconds=5))
def dataset(
    ctx: Context, config: DatasetConfig, *, answers: Artifacts, queries: Artifact | None = None
) -> None:
    """Write `data/train.parquet`, `train.jsonl` and `README.md`, the card.

    Failed calls are dropped and counted. Licence and origin are those of the query; answers that
    came ready have their own.
    """
    (ctx.out / "data").mkdir()
    counts: dict[str, Counter[str]] = {name: Counter() for name in TABLES}
    with (
        closing(_origins(queries)) as known,
        pq.ParquetWriter(ctx.out / "data" / "train.parquet", SCHEMA, compression="zstd") as table,
        (ctx.out / "train.jsonl").open("w", encoding="utf-8") as lines,
    ):
        held: list[dict[str, Any]] = []
        for row in _rows(ctx, answers, known):
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            held.append(row)
            for name, counter in counts.items():
                counter[row[name]] += 1
            if len(held) == BATCH_ROWS:
                table.write_table(pa.Table.from_pylist(held, schema=SCHEMA))
                held.clear()
        table.write_table(pa.Table.from_pylist(held, schema=SCHEMA))
    licences = counts["license"]
    for licence, num in licences.items():
        ctx.count(f"licence/{licence}", num)
    closed = sorted(licence for licence in licences if not is_open(licence))
    one = next(iter(licences), "other").lower().replace(" ", "-")
    card = write_markdown(
        "spyhop.report", "dataset.md", title=config.title, language=config.language,
        tag="other" if closed or len(licences) > 1 else one, total=licences.total(), closed=closed,
        tables={title: counts[name] for name, title in TABLES.items()},
    )  # fmt: skip
    (ctx.out / "README.md").write_text(card, encoding="utf-8")


def _rows(ctx: Context, answers: Artifacts, known: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    for artifact in answers.values():
        for row in ctx.track(artifact.rows(Answer), "writing", total=artifact.num_rows):
            if row.error is not None:
                ctx.count("failed")
                continue
            select = "SELECT licence, origin FROM queries WHERE id = ?"
            licence, origin = known.execute(select, (row.query_id,)).fetchone() or ("", "")
            ctx.count("rows")
            plain = row.model_dump(include={"id", "messages", *_TEXTS})
            own = {"license": row.licence or licence or UNKNOWN, "origin": row.origin or origin}
            yield {name: (plain | own)[name] for name in SCHEMA.names}


def _origins(queries: Artifact | None) -> sqlite3.Connection:
    base = sqlite3.connect("")  # a temporary file that SQLite deletes by itself
    base.execute("CREATE TABLE queries (id TEXT PRIMARY KEY, licence TEXT, origin TEXT)")
    base.executemany(
        "INSERT OR IGNORE INTO queries VALUES (?, ?, ?)",
        ((row.id, row.licence, row.origin) for row in (queries.rows(Query) if queries else ())),
    )
    return base


def is_open(licence: str) -> bool:
    """Return whether a licence is known to allow any use; of several between `;`, every one."""
    for each in licence.split(";"):
        words = re.findall(r"[a-z]+|\d+", _LINK.sub(" ", each.casefold()))
        said = f" {' '.join(words)} "
        if not any(f" {name} " in said for name in OPEN) or not _LIMITS.isdisjoint(words):
            return False
    return True
