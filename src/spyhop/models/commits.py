"""Group commits: replies are collected, committed in a separate thread, and only then used."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
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
        self._answered: list[Answered] = []
        self._failed: list[Failed] = []
        self._settled: list[Settled] = []
        self._state = state
        self._is_changed = False
        self._is_closing = False
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def add(self, answered: list[Answered], failed: list[Failed], settled: list[Settled]) -> None:
        """Take rows, and what their commit settles."""
        with self._lock:
            self._answered += answered
            self._failed += failed
            self._settled += settled
            self._is_changed = True
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Commit what is left, with the state as it is now, and end."""
        with self._lock:
            self._is_changed = self._is_closing = True
        self._wake.set()
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
            if not self._wake.wait(SYNC_S if is_dirty else None):
                journal.sync()
                is_dirty = False
                continue
            if not self._is_closing:
                time.sleep(min(GATHER_S, GATHER_ROW_S * num_rows))
            with self._lock:
                self._wake.clear()
                answered, self._answered = self._answered, []
                num_rows = len(answered)
                failed, self._failed = self._failed, []
                settled, self._settled = self._settled, []
                is_closing = self._is_closing
                is_changed, self._is_changed = self._is_changed, False
            if is_changed:
                journal.commit(answered, failed, self._state)
                self._on_commit(settled)
                is_dirty = True
            if is_dirty and time.monotonic() - synced >= SYNC_S:
                journal.sync()
                synced, is_dirty = time.monotonic(), False
        journal.sync()
