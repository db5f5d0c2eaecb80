"""Rows of artifacts by their ids, and the artifacts that another one was made from."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from spyhop.lazy import duckdb
from spyhop.schema import ArtifactError
from spyhop.store import Artifact
from spyhop.store.artifact import load

MEMORY = "256MB"


def query(sql: str, **values: Any) -> list[dict[str, Any]]:  # noqa: ANN401 (plain data)
    """Return the rows of a query; `$name` stands for a value, such as the parts of an artifact.

    Raises:
        ArtifactError: If a file cannot be read, or has other columns than the query needs.
    """
    with duckdb.connect(config={"memory_limit": MEMORY, "threads": 2}) as base:
        try:
            found: list[dict[str, Any]] = base.sql(sql, params=values).to_arrow_table().to_pylist()
        except duckdb.Error as error:
            raise ArtifactError(f"its rows cannot be read ({str(error).splitlines()[0]})") from None
    return found


def parts_of(artifact: Artifact) -> list[str]:
    """Return the Parquet parts of an artifact, as a query takes them."""
    found = [str(path) for path in artifact.parts()]
    if not found:
        raise ArtifactError(f"{artifact}: it has no rows")
    return found


def columns_of(parts: Sequence[str]) -> set[str]:
    """Return the names of the columns of Parquet parts."""
    return {row["column_name"] for row in query("DESCRIBE FROM read_parquet($parts)", parts=parts)}


def rows_by_id(artifact: Artifact, ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the first row of each id that the artifact has."""
    sql = "FROM read_parquet($parts) WHERE id IN (SELECT unnest($ids))"
    rows = query(sql, parts=parts_of(artifact), ids=list(ids)) if ids else []
    return {row["id"]: row for row in reversed(rows)}


def made_from(artifact: Artifact, name: str) -> Iterator[Artifact]:
    """Yield the artifacts that were one input of an artifact, as far as the store has them."""
    for each in artifact.record.inputs.get(name, []):
        for path in artifact.path.parent.glob(f"*.*-{each.key}"):
            if (found := load(path)) is not None:
                yield found


def model_name(artifact: Artifact) -> str:
    """Return the name of the model that wrote an artifact's responses, without its folder."""
    inputs = artifact.record.inputs
    found = next((inputs[slot] for slot in ("model", "teacher", "writer") if slot in inputs), None)
    return found[0].name.partition(" (")[0] if found else artifact.name
