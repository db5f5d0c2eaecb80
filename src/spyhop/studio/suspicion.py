"""Rows that people should look at first: where judges disagree, or likelihood or length is odd."""

import tomllib
from collections.abc import Sequence
from importlib.resources import files

from spyhop.studio.lookup import columns_of, query

LEAST = 0.4
"""Suspicion from which a reason is shown."""
_TABLE = (files("spyhop.studio") / "suspicion.toml").read_text(encoding="utf-8")
_LENGTHS = {"response": "length(response)", "messages": "length(messages[-1].content)"}
_SQL = """WITH sized AS (SELECT *, ln(1 + {length}) AS size FROM read_parquet($parts)),
    rated AS (SELECT id, [{parts}] AS parts FROM sized)
    FROM rated ORDER BY if(list_max(parts) >= $least, -list_max(parts), 0), md5(id), id LIMIT $most
"""


def ranking(parts: Sequence[str], most: int) -> dict[str, list[str]]:
    """Return the ids of the most suspicious rows in order, with the reasons.

    Rows without a reason follow in a fixed random order.
    """
    columns = columns_of(parts)
    used = [row for row in tomllib.loads(_TABLE)["reasons"] if row["needs"] in columns]
    length = next((sql for name, sql in _LENGTHS.items() if name in columns), "0")
    sql = _SQL.format(
        length=length, parts=", ".join(f"coalesce({row['sql']}, 0.0)::DOUBLE" for row in used)
    )
    return {
        row["id"]: [
            each["name"] for each, part in zip(used, row["parts"], strict=True) if part >= LEAST
        ]
        for row in query(sql, parts=list(parts), least=LEAST, most=most)
    }
