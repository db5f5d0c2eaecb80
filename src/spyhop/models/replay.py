"""Recorded answers played back: human explanations, or replies that were paid for elsewhere."""

import sqlite3
from collections.abc import Sequence
from typing import Literal

from spyhop.models.base import Backend, ModelConfig
from spyhop.models.calls import Reply, Request, Sampling
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


class _ReplayBackend(Backend):
    def __init__(self, recorded: Artifact) -> None:
        self._db = sqlite3.connect("")  # a temporary file that SQLite deletes by itself
        pairs = ((row_id(row.query), row.response) for row in recorded.rows(Recorded))
        self._db.execute("CREATE TABLE answers (query TEXT PRIMARY KEY, response TEXT)")
        self._db.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", pairs)

    def generate(self, batch: Sequence[Request], sampling: Sampling) -> list[Reply]:
        replies = []
        for request in batch:
            key = (row_id(request.messages[-1].content),)
            row = self._db.execute("SELECT response FROM answers WHERE query = ?", key).fetchone()
            error = None if row else "not recorded"
            text, reason = (row[0], "stop") if row else ("", "error")
            replies.append(Reply(id=request.id, text=text, finish_reason=reason, error=error))
        return replies
