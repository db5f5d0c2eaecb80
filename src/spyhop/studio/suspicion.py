"""Rows that people should look at first: where judges disagree, or likelihood or length is odd."""

from collections.abc import Sequence

from spyhop.studio.lookup import columns_of, query

REASONS = (
    ("two ratings differ", "rating", "abs(rating.score - rating.second_score) / 3"),
    ("written and expected score differ", "rating", "abs(rating.written - rating.score) / 3"),
    ("the judge is undecided", "rating",
     "1.4 - 2 * list_max(rating.probabilities)"),
    ("no score", "rating", "CASE WHEN rating.score IS NULL AND rating.missing <> '' THEN 0.6 END"),
    ("good score, unlikely text", "rating",
     "percent_rank() OVER (ORDER BY rating.score) - percent_rank() OVER (ORDER BY rating.value)"),
    ("not a whole response", "ending", "CASE WHEN ending <> 'whole' THEN 0.6 END"),
    ("no answer was found", "extracted", "CASE WHEN extracted IS NULL THEN 0.5 END"),
    ("unlikely response", "log_probability",
     "CASE WHEN log_probability IS NOT NULL THEN percent_rank() OVER "
     "(ORDER BY -log_probability / greatest(response_tokens, 1)) END"),
    ("unusual length", "", "(abs(size - avg(size) OVER ()) / nullif(stddev(size) OVER (), 0) - 1) / 3"),
)  # fmt: skip
"""Reason, the column that it needs, and how suspicious a row is: from 0 to 1 for most rows."""
LEAST = 0.4
"""Suspicion from which a reason is shown."""
_TEXTS = {"response": "length(response)", "messages": "length(messages[-1].content)",
          "turns": "length(turns[1])"}  # fmt: skip


def ranking(parts: Sequence[str], most: int) -> dict[str, list[str]]:
    """Return the ids of the most suspicious rows in order, with the reasons.

    Rows without a reason follow in a fixed random order.
    """
    columns = columns_of(parts)
    size = next((sql for name, sql in _TEXTS.items() if name in columns), "0")
    used = [(name, sql) for name, column, sql in REASONS if not column or column in columns]
    sql = f"""WITH sized AS (SELECT *, ln(1 + {size}) AS size FROM read_parquet($parts)),
        rated AS (SELECT id, [{", ".join(f"coalesce({sql}, 0)" for _, sql in used)}] AS parts FROM sized)
        SELECT id, parts FROM rated
        ORDER BY CASE WHEN list_max(parts) >= {LEAST} THEN -list_max(parts) ELSE 0 END, md5(id), id
        LIMIT {most}"""
    return {
        row["id"]: [
            name for (name, _), part in zip(used, row["parts"], strict=True) if part >= LEAST
        ]
        for row in query(sql, parts=list(parts))
    }
