"""Rows and records, readable in a terminal."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from spyhop.recipe.graph import Recipe
from spyhop.recipe.resolve import resolve
from spyhop.schema import ArtifactError
from spyhop.store import Artifact
from spyhop.store.artifact import load

LONG_CHARS = 2000


def find_artifact(root: Path, name: str, recipe: Recipe | None) -> Artifact:
    """Return an artifact by its folder, by `runs/<recipe>/<step>`, or by a step of a recipe.

    Raises:
        ArtifactError: If it is not made.
    """
    if recipe is not None:
        recipe.step(name)
        made = resolve(recipe, root).made.get(name)
        if made is None:
            raise ArtifactError(f"{name} is not made yet in {root}; `spyhop run` makes it")
        return made
    for path in (root / name, Path(name), *sorted((root / "runs").glob(f"*/{name}"))):
        found = load(path)
        if found is not None:
            return Artifact(path.resolve(), found.record)
    raise ArtifactError(f"{name}: no finished artifact of that name in {root}")


def show_rows(artifact: Artifact, num_rows: int, console: Console, *, dropped: bool) -> None:
    """Print the record's main figures and the first rows."""
    record = artifact.record
    console.print(f"{artifact.path.name}  ({record.rows or 0} rows, {record.seconds:.1f} s)")
    for name, values in (
        ("counts", record.counts),
        ("dropped", record.dropped),
        ("usage", record.usage),
    ):
        if values:
            figures = ", ".join(f"{key} {_figure(value)}" for key, value in values.items())
            console.print(f"  {name}: {figures}", markup=False)
    for row in islice(_dropped(artifact) if dropped else _rows(artifact), num_rows):
        console.rule()
        for column, value in row.items():
            _print_value(console, column, value)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4f}"


def _rows(artifact: Artifact) -> Iterator[dict[str, Any]]:
    for batch in artifact.batches():
        yield from batch.to_pylist()


def _dropped(artifact: Artifact) -> Iterator[dict[str, Any]]:
    for reason, row in artifact.dropped():
        yield {"reason": reason, **json.loads(row)}


def _print_value(console: Console, column: str, value: Any) -> None:  # noqa: ANN401 (any column)
    if column == "messages":
        for turn in value:
            console.print(f"[{turn['role']}]", markup=False, style="bold")
            console.print(turn["content"][:LONG_CHARS], markup=False)
    elif value not in (None, "", []):
        console.print(f"{column}: {value!s:.{LONG_CHARS}}", markup=False)
