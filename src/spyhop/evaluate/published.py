"""Published results of both papers: reference columns, never paired with a run."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

FILE = "published.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedScore:
    """One cell of a published table."""

    source: str
    """Paper, and table or figure."""
    model: str
    suite: str
    task: str
    """Task of the suite; `all` for a figure of the whole suite."""
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
        PublishedScore(
            source=f"{table['paper']}, {table['table']}",
            model=model,
            suite=suite,
            task=task,
            percent=float(values[place]),
            note=table["notes"][model],
        )
        for table in published_tables()
        for task, values in _rows(table, suite).items()
        for place, model in enumerate(table["columns"])
    ]


def _rows(table: dict[str, Any], suite: str) -> dict[str, list[float]]:
    """Return a suite's rows by task; a suite may be a single row of a table."""
    if table["suite"] == suite:
        return {**table["rows"], **({"all": table["average"]} if "average" in table else {})}
    return {"all": table["rows"][suite]} if suite in table["rows"] else {}
