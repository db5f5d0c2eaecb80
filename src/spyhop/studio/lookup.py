"""Rows of artifacts by their ids, with questions and responses, whichever stage wrote them."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from spyhop.lazy import duckdb
from spyhop.schema import ArtifactError
from spyhop.store import Artifact
from spyhop.store.artifact import load
from spyhop.studio.tables import SETTINGS

WITH_RESPONSES = (
    "evaluate.measure", "evaluate.respond", "evaluate.ready_answers", "augment.answer",
    "augment.verify", "augment.discuss", "augment.explain", "augment.moderate",
    "collect.read_answers", "collect.read_conversations",
)  # fmt: skip
"""Stages whose rows are responses of a model."""
LABELLED = (
    "curate.rate", "curate.rate_by_likelihood", "curate.keep", *WITH_RESPONSES,
    "augment.backtranslate", "collect.read_seeds", "collect.read_pairs",
)  # fmt: skip
"""Stages whose rows people label: those with ratings first."""


def query(sql: str, **values: Any) -> list[dict[str, Any]]:  # noqa: ANN401 (plain data)
    """Return the rows of a query; `$name` stands for a value, such as the parts of an artifact."""
    with duckdb.connect(config=SETTINGS) as base:
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


def exchanges(artifact: Artifact, ids: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return question and response of rows by their ids; rows without a response are missing."""
    rows = rows_by_id(artifact, ids)
    asked = questions(artifact, [row_id for row_id, row in rows.items() if not question_of(row)])
    return {
        row_id: (question_of(row) or asked.get(row_id, ""), response)
        for row_id, row in rows.items()
        if (response := response_of(row)) and row.get("ending") in (None, "whole")
    }


def questions(artifact: Artifact, ids: Collection[str]) -> dict[str, str]:
    """Return the questions of rows from the artifacts that the rows' artifact was made from."""
    found: dict[str, str] = {}
    for name in ("items", "questions"):
        for source in made_from(artifact, name):
            missing = [row_id for row_id in ids if row_id not in found]
            for row_id, row in rows_by_id(source, missing).items():
                found[row_id] = question_of(row)
    return found


def question_of(row: Mapping[str, Any]) -> str:
    """Return what a row asks: its question, its instruction, or the turns of its user."""
    asked = [turn["content"] for turn in row.get("messages") or () if turn["role"] == "user"]
    if "ending" not in row:  # the turns of a response are those of the model
        asked = asked or list(row.get("turns") or ())
    return "\n\n".join(asked) or row.get("question") or row.get("instruction") or ""


def response_of(row: Mapping[str, Any]) -> str:
    """Return the response of a row: its text, its last turn, or the turns of its model."""
    turns = row.get("messages") or ()
    last = turns[-1]["content"] if turns and turns[-1]["role"] == "assistant" else ""
    return row.get("response") or last or "\n\n".join(row.get("turns") or ())
