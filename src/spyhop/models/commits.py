"""Group commits: replies are collected, committed in a separate thread, and only then used."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from spyhop.models.journal import Answered, Failed, Journal, State

GATHER_S, GATHER_ROW_S = 0.02, 0.0003
"""How long a reply waits for others to share its commit, at most and for each row of the last one:
its slot is not free until then, so that where few come it does not wait at all."""
SYNC_S = 1.0
"""Between two waits for the disk: what a loss of power may cost."""


Settled = TypeVar("Settled")


class Commits(Generic[Settled]):
    """The one writer of an owned journal.

    `add` returns at once. After the commit of rows, `on_commit` is called in the writer's thread
    with what was said to be settled by them. When a commit fails, `on_error` is called once and
    nothing more is written. `state` is read at each commit and stands with the rows.
    """

    def __init__(
        self,
        journal: Journal,
        state: State,
        on_commit: Callable[[list[Settled]], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._journal = journal
        self._on_commit = on_commit
        self._on_error = on_error
        self._state = state
        self._waiting = SimpleQueue[tuple[list[Answered], list[Failed], list[Settled]] | None]()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def add(self, answered: list[Answered], failed: list[Failed], settled: list[Settled]) -> None:
        """Take rows, and what their commit settles."""
        self._waiting.put((answered, failed, settled))

    def close(self) -> None:
        """Commit what is left, with the state as it is now, and end."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            with closing(self._journal.beside()) as journal:
                self._write(journal)
        except Exception as error:  # noqa: BLE001 (the edge of a thread)
            self._on_error(error)

    def _write(self, journal: Journal) -> None:
        synced, is_dirty, is_closing, num_rows = time.monotonic(), False, False, 0
        while not is_closing:
            try:
                some = [self._waiting.get(timeout=SYNC_S if is_dirty else None)]
            except Empty:
                journal.sync()
                is_dirty = False
                continue
            if some[0] is not None:
                time.sleep(min(GATHER_S, GATHER_ROW_S * num_rows))
            while not self._waiting.empty():
                some.append(self._waiting.get())
            parts = [part for part in some if part is not None]
            is_closing = len(parts) < len(some)
            answered = [row for rows, _, _ in parts for row in rows]
            num_rows = len(answered)
            journal.commit(answered, [row for _, rows, _ in parts for row in rows], self._state)
            self._on_commit([each for _, _, settled in parts for each in settled])
            is_dirty = True
            if time.monotonic() - synced >= SYNC_S:
                journal.sync()
                synced, is_dirty = time.monotonic(), False
        journal.sync()
