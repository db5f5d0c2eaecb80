"""Published results of both papers: reference columns, never paired with a run."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from spyhop.settings import read_toml

FILE = Path(__file__).with_name("published.toml")


class PublishedScore(NamedTuple):
    """One cell of a published table: an average is the task `all`."""

    source: str
    """Paper, and table or figure."""
    model: str
    task: str
    percent: float
    note: str
    """Protocol of the cell, as far as the paper states it."""


@cache
def published_tables() -> list[dict[str, Any]]:
    """Return the tables as the papers print them."""
    tables: list[dict[str, Any]] = read_toml(FILE)["tables"]
    return tables


def published(suite: str) -> list[PublishedScore]:
    """Return the published results on a suite, cell by cell; an average is the task `all`."""
    found = []
    for table in published_tables():
        rows = {"all": table["rows"][suite]} if suite in table["rows"] else {}  # a single row
        if table["suite"] == suite:
            rows = table["rows"] | ({"all": table["average"]} if "average" in table else {})
        source = f"{table['paper']}, {table['table']}"
        found += [
            PublishedScore(source, model, task, float(value), table["notes"][model])
            for task, values in rows.items()
            for model, value in zip(table["columns"], values, strict=True)
        ]
    return found
