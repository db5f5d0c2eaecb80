"""Questions and responses of artifacts, whichever stage wrote them, for people to read."""

from collections.abc import Collection, Mapping
from typing import Any

from spyhop.store import Artifact
from spyhop.studio.lookup import made_from, rows_by_id

WITH_RESPONSES = (
    "evaluate.measure", "evaluate.respond", "evaluate.ready_answers", "augment.answer",
    "augment.filter_answers", "collect.read_answers",
)  # fmt: skip
"""Stages whose rows are responses of a model."""
BETWEEN = "\n\n"


def exchanges(artifact: Artifact, ids: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return question and response of rows by their ids; rows without a response are missing.

    A question that is no part of a row is read from the items or questions that were asked.
    """
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
    turns = row.get("messages") or ()
    asked = [turn["content"] for turn in turns if turn["role"] == "user"]
    if "response" not in row:  # a response's `turns` are those of the model
        asked = asked or (
            [] if "origin" in row and "turns" in row else list(row.get("turns") or ())
        )
    return BETWEEN.join(asked) or row.get("question") or row.get("instruction") or ""


def response_of(row: Mapping[str, Any]) -> str:
    """Return the response of a row: its text, its last turn, or the turns of its model."""
    turns = row.get("messages") or ()
    last = turns[-1]["content"] if turns and turns[-1]["role"] == "assistant" else ""
    return row.get("response") or last or BETWEEN.join(row.get("turns") or ())
