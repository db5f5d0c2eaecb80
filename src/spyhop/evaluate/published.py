"""Published results of both papers: reference columns, never paired with a run."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

FILE = "published.toml"


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
    tables: list[dict[str, Any]] = tomllib.loads(
        files("spyhop.evaluate").joinpath(FILE).read_text(encoding="utf-8")
    )["tables"]
    return tables


def published(suite: str) -> list[PublishedScore]:
    """Return the published results on a suite, cell by cell; an average is the task `all`."""
    return [
        PublishedScore(f"{table['paper']}, {table['table']}", model, task, float(value), note)
        for table in published_tables()
        for task, values in _rows(table, suite).items()
        for model, value in zip(table["columns"], values, strict=True)
        for note in [table["notes"][model]]
    ]


def _rows(table: dict[str, Any], suite: str) -> dict[str, list[float]]:
    """Return a suite's rows by task; a suite may be a single row of a table."""
    if table["suite"] == suite:
        return {**table["rows"], **({"all": table["average"]} if "average" in table else {})}
    return {"all": table["rows"][suite]} if suite in table["rows"] else {}
