"""The journal: a reply counts as received when its commit returns, and is never asked for again."""

import errno
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from spyhop.schema import ArtifactError
from spyhop.store.inventory import JOURNAL

CHUNK = 500
"""Keys of one SELECT; SQLite allows 999 variables in old builds."""

_TABLE = "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT) WITHOUT ROWID"


class Journal:
    """Replies of one model by the key of the exact request, in SQLite with a write-ahead log.

    `synchronous=NORMAL` survives the death of the process at any moment.
    """

    def __init__(self, root: Path, identity: str) -> None:
        folder = root / JOURNAL
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{identity}.sqlite"
        self._db = sqlite3.connect(path, timeout=60.0)
        try:  # the switch to WAL does not wait for another process that is at it: the lock does
            with _disk_errors(), FileLock(folder / f"{identity}.lock"):
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.execute(_TABLE)
                self._db.commit()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ArtifactError(
                f"{path}: the journal of replies cannot be used ({error}); if it is damaged, "
                "move it away to ask anew"
            ) from None

    def get(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the replies that are known, by key."""
        found: dict[str, str] = {}
        for start in range(0, len(keys), CHUNK):
            some = keys[start : start + CHUNK]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, reply FROM replies WHERE key IN ({marks})"
            found.update(self._db.execute(query, some).fetchall())
        return found

    def put(self, replies: dict[str, str]) -> None:
        """Commit replies; the first one of a key stays."""
        with _disk_errors(), self._db:
            self._db.executemany("INSERT OR IGNORE INTO replies VALUES (?, ?)", replies.items())

    def close(self) -> None:
        """Close the file."""
        self._db.close()


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Turn SQLite's word for a full disk into the system's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, str(error)) from None
        raise
