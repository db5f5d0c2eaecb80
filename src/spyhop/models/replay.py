"""Recorded answers played back: human explanations, or replies that were paid for elsewhere."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Literal

from spyhop.models.base import Backend, ModelConfig
from spyhop.models.calls import Choice, Kind, Reply, Request, Sampling, TokenLogprobs
from spyhop.runtime import Runtime
from spyhop.schema import ModelError, Row
from spyhop.store import Artifact, row_id


class Recorded(Row):
    """One recorded answer to a query, whatever system message it stands under."""

    query: str
    response: str


class Replay(ModelConfig):
    """Answers each prompt with what was recorded for the text of its last user turn."""

    kind: Literal["replay"] = "replay"
    name: str = "recorded answers"
    """Display name; not part of the model's identity."""

    def connect(self, folder: Artifact | None, runtime: Runtime) -> Backend:
        """Index the recorded answers on disk, so that memory stays flat."""
        if folder is None:
            raise ModelError("a replay model needs the artifact of its recorded answers")
        return _ReplayBackend(folder)

    @property
    def label(self) -> str:
        """Return the given name."""
        return self.name


class _ReplayBackend:
    def __init__(self, recorded: Artifact) -> None:
        self._db = sqlite3.connect("")  # a temporary file that SQLite deletes by itself
        self._db.execute("CREATE TABLE answers (query TEXT PRIMARY KEY, response TEXT)")
        self._db.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", _pairs(recorded))

    def batches(self, requests: Sequence[Request], kind: Kind) -> list[list[Request]]:
        return [list(requests)]

    def generate(self, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        return [self._answer(request) for request in batch]

    def choose(self, batch: Sequence[Request]) -> list[Choice]:
        raise ModelError("recorded answers cannot choose between options")

    def logprobs(self, batch: Sequence[Request]) -> list[TokenLogprobs]:
        raise ModelError("recorded answers have no probabilities")

    def _answer(self, request: Request) -> Reply:
        query = request.messages[-1].content
        found = self._db.execute("SELECT response FROM answers WHERE query = ?", (row_id(query),))
        row = found.fetchone()
        if row is None:
            return Reply(id=request.id, text="", finish_reason="error", error="not recorded")
        return Reply(id=request.id, text=row[0], finish_reason="stop")


def _pairs(recorded: Artifact) -> Iterator[tuple[str, str]]:
    for row in recorded.rows(Recorded):
        yield row_id(row.query), row.response
