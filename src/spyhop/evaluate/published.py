"""Published results of both papers: reference columns, never paired with a run."""

from functools import cache
from pathlib import Path
from typing import Any

from spyhop.settings import read_toml

FILE = Path(__file__).with_name("published.toml")


@cache
def published_tables() -> list[dict[str, Any]]:
    """Return the tables as the papers print them."""
    tables: list[dict[str, Any]] = read_toml(FILE)["tables"]
    return tables


def published(suite: str) -> list[dict[str, str]]:
    """Return the published results on a suite, a row for each model of a table.

    A row has the paper and its table (`source`), the model, its percent by task, where an average
    is the task `all`, and the protocol as far as the paper states it.
    """
    found = []
    for table in published_tables():
        rows = {"all": table["rows"][suite]} if suite in table["rows"] else {}  # a single row
        if table["suite"] == suite:
            rows = table["rows"] | ({"all": table["average"]} if "average" in table else {})
        for place, model in enumerate(table["columns"] if rows else ()):
            cells = {task: f"{values[place]:g}" for task, values in rows.items()}
            found.append(
                (f"{table['paper']}, {table['table']}", model, cells, table["notes"][model])
            )
    tasks = dict.fromkeys((task for _, _, cells, _ in found for task in cells), "")
    return [
        {"source": source, "model": model, **tasks, **cells, "protocol": note}
        for source, model, cells, note in found
    ]
