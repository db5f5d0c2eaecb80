"""Rows that people should look at first: where judges disagree, or likelihood or length is odd."""

import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from spyhop.store import Artifact
from spyhop.studio.lookup import columns_of, parts_of, query, rows_by_id

LEAST = 0.4
"""Suspicion from which a reason is shown."""
_TABLE = (files("spyhop.studio") / "suspicion.toml").read_text(encoding="utf-8")
_LENGTHS = {"response": "length(response)", "messages": "length(messages[-1].content)"}
_SQL = """WITH sized AS (SELECT *, ln(1 + {length}) AS size FROM read_parquet($parts)),
    stats AS (SELECT {stats} FROM sized),
    rated AS (SELECT id, [{reasons}] AS parts FROM sized, stats)
    FROM rated ORDER BY if(list_max(parts) >= $least, -list_max(parts), 0), md5(id), id LIMIT $most
"""


def ranking(artifact: Artifact, most: int) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Return the most suspicious rows by id, with the reasons.

    Rows without a reason follow in a fixed random order.
    """
    parts = parts_of(artifact)
    columns = columns_of(parts)
    used = [row for row in tomllib.loads(_TABLE)["reasons"] if row["needs"] in columns]
    values = list(dict.fromkeys(value for row in used for value in row.get("of", [])))
    sql = _SQL.format(
        length=next((sql for name, sql in _LENGTHS.items() if name in columns), "0"),
        stats=", ".join(f"avg({v}) AS m{n}, stddev({v}) AS s{n}" for n, v in enumerate(values)),
        reasons=", ".join(f"coalesce({_suspicion(row, values)}, 0.0)::DOUBLE" for row in used),
    )
    reasons = {
        row["id"]: [
            each["name"] for each, part in zip(used, row["parts"], strict=True) if part >= LEAST
        ]
        for row in query(sql, parts=parts, least=LEAST, most=most)
    }
    rows = rows_by_id(artifact, reasons)
    return {row_id: (rows[row_id], some) for row_id, some in reasons.items()}


def _suspicion(reason: Mapping[str, Any], values: Sequence[str]) -> str:
    """Return a reason's SQL with the values that it compares with all rows as standard scores."""
    numbers = [(each, values.index(each)) for each in reason.get("of", [])]
    return str(reason["sql"]).format(*(f"(({v} - m{n}) / nullif(s{n}, 0))" for v, n in numbers))
