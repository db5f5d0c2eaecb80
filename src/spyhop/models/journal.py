"""The journal: a reply counts as received when its commit returns, and is never requested again.

Models in process commit batch by batch (`put`). The journal of a served model has one owner at a
time, which also keeps what the next run must know: what was spent, and whether it ended cleanly.
Its replies are collected and committed in a separate thread (`Commits`).
"""

import errno
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Generic, NamedTuple, TypeVar

from filelock import FileLock, Timeout

from spyhop.schema import ArtifactError
from spyhop.store import atomic_write
from spyhop.store.inventory import JOURNAL
from spyhop.store.verify import file_digest

CHUNK = 500
"""Rows of one INSERT."""
DIGEST = ".digest"
"""Ending of the file with a closed journal's digest."""
LAYOUT = 3
"""Raised when the tables or the keys change."""
GATHER_S, GATHER_ROW_S = 0.02, 0.0003
"""How long a reply waits for others to share its commit, at most and for each row of the last one:
its slot is not free until then, so that where few come it does not wait at all."""
SYNC_S = 1.0
"""Between two waits for the disk: what a loss of power may cost."""

_TABLES = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, reply TEXT, endpoint TEXT, attempt INTEGER, latency_s REAL, at REAL);
CREATE TABLE IF NOT EXISTS failures (
    key TEXT, kind TEXT, message TEXT, endpoint TEXT, attempt INTEGER, latency_s REAL, at REAL,
    maybe_billed INTEGER);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, endpoint TEXT, job TEXT, at REAL);
"""
_AMONG = "WHERE key IN (SELECT value FROM json_each(?))"


class Answered(NamedTuple):
    """A reply, and how it came."""

    key: str
    reply: str
    endpoint: str
    attempt: int
    latency_s: float
    at: float


class Failed(NamedTuple):
    """A failed attempt, logged for debugging only."""

    key: str
    kind: str
    message: str
    endpoint: str
    attempt: int
    latency_s: float
    at: float
    maybe_billed: bool


@dataclass(slots=True)
class State:
    """What the owner of a served model leaves for the next one."""

    is_closed: bool = True
    """False while a run uses the model; still false at the next start, the run was killed."""
    at: float = 0.0
    """Seconds since 1970 of the last commit."""
    spent_usd: float = 0.0
    """Price of the replies received."""
    reserved_usd: float = 0.0
    """Highest price of the requests in flight."""
    unsettled_usd: float = 0.0
    """Highest price of failed requests that may have been billed, until it is released."""
    ceiling: int = 0
    """Requests without a committed reply were never more than this, and not above `ceiling_usd`."""
    ceiling_usd: float = 0.0
    num_maybe_billed: int = 0
    """Failed requests of all runs that may have been billed for nothing."""
    num_maybe_twice: int = 0
    """Requests in flight at kills, or in batches not found again: perhaps billed twice."""
    maybe_billed_usd: float = 0.0
    """Highest price of both."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of all replies received; the cached ones are part of the prompts."""
    levels: dict[str, float] = field(default_factory=dict)
    """Requests in flight that each endpoint bore, by its address."""
    held: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """By limit: (age, amount) of what was sent in the last minute."""

    @property
    def bound_usd(self) -> float:
        """What is spent, or may be."""
        return self.spent_usd + self.unsettled_usd + self.reserved_usd

    def reserve(self, usd: float) -> None:
        """Keep the highest price of requests that may have been billed."""
        self.maybe_billed_usd += usd
        self.unsettled_usd += usd

    def taken_over(self) -> "State":
        """Return the state of the next owner; after a kill what was in flight may be billed."""
        state = replace(
            self, is_closed=False, reserved_usd=0.0, ceiling=0, ceiling_usd=0.0, held={}
        )
        if not self.is_closed:
            state.num_maybe_twice += self.ceiling
            state.reserve(max(self.ceiling_usd, self.reserved_usd))
        return state

    def rest_s(self, span_s: float) -> float:
        """Return how long to pause after an unclean shutdown, since recent sends are unknown."""
        away_s = max(0.0, time.time() - self.at)
        return 0.0 if self.is_closed else max(0.0, span_s - away_s)


class Journal:
    """Replies of one model by the key of the exact request, in SQLite with a write-ahead log.

    `synchronous=NORMAL` survives the death of the process at any moment.
    """

    def __init__(self, root: Path, identity: str, *, is_owned: bool = False) -> None:
        folder = root / JOURNAL
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{identity}.sqlite"
        self._also: list[sqlite3.Connection] = []
        self._ownership = FileLock(folder / f"{identity}.owner")
        try:
            if is_owned:
                self._ownership.acquire(timeout=0)
            self._db = self._connect()
        except Timeout:
            raise ArtifactError(
                f"{self.path}: another run is using this model and its journal; wait for it, stop "
                "it, or use another store with --out"
            ) from None
        except BaseException:
            self._ownership.release()
            raise

    def get(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the replies that are known, by key."""
        query, asked = f"SELECT key, reply FROM replies {_AMONG}", (json.dumps(keys),)
        try:
            return dict(row for db in (*self._also, self._db) for row in db.execute(query, asked))
        except sqlite3.DatabaseError as error:
            raise _damaged(self.path, str(error)) from None

    def read_also(self, root: Path) -> None:
        """Read the journal of the same model in another store, too; nobody writes to it now."""
        path = root / JOURNAL / self.path.name
        if path.exists():
            self._also.append(_reader(path, "mode=ro&immutable=1"))

    def first_read(self, keys: Sequence[str], table: str = "read") -> set[str]:
        """Return those of the keys that this object is asked for the first time.

        They are noted in a temporary table, so that memory stays flat.
        """
        create = f"CREATE TEMP TABLE IF NOT EXISTS {table} (key TEXT PRIMARY KEY) WITHOUT ROWID"
        self._db.execute(create)
        known = self._db.execute(f"SELECT key FROM temp.{table} {_AMONG}", (json.dumps(keys),))
        new = set(keys).difference(key for (key,) in known)
        self._db.executemany(f"INSERT INTO temp.{table} VALUES (?)", ((key,) for key in new))
        self._db.commit()
        return new

    def put(self, replies: Mapping[str, str]) -> None:
        """Commit replies; the first one of a key stays."""
        rows = [Answered(key, reply, "", 1, 0.0, 0.0) for key, reply in replies.items()]
        self.commit(rows, [], None)

    def commit(
        self, answered: Sequence[Answered], failed: Sequence[Failed], state: State | None
    ) -> None:
        """Commit replies, failures and the owner's state together."""
        with disk_errors(), self._db:
            self._insert("INSERT OR IGNORE INTO replies VALUES", answered)
            self._insert("INSERT INTO failures VALUES", failed)
            if state is not None:
                text = json.dumps({**asdict(state), "at": time.time()})
                self._db.execute("INSERT OR REPLACE INTO state VALUES ('owner', ?)", (text,))

    def open_job(self, job_id: str, endpoint: str, job: str, at: float) -> None:
        """Commit a batch of requests that a provider works on by itself, as JSON."""
        with disk_errors(), self._db:
            query = "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?)"
            self._db.execute(query, (job_id, endpoint, job, at))

    def open_jobs(self) -> list[str]:
        """Return the JSON of the batches that providers are working on, oldest first."""
        return [job for (job,) in self._db.execute("SELECT job FROM jobs ORDER BY at, id")]

    def close_job(self, job_id: str) -> None:
        """Forget a job whose results are committed."""
        with disk_errors(), self._db:
            self._db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def _insert(self, start: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Insert many rows a statement: one by one, each would wait for the interpreter's lock."""
        for place in range(0, len(rows), CHUNK):
            some = rows[place : place + CHUNK]
            marks = f"({','.join('?' * len(some[0]))})"
            values = [value for row in some for value in row]
            self._db.execute(f"{start} {','.join([marks] * len(some))}", values)

    def state(self) -> State:
        """Return what the last owner left."""
        return _state(self._db)

    def is_empty(self) -> bool:
        """Return whether no reply is held."""
        return self._db.execute("SELECT 1 FROM replies LIMIT 1").fetchone() is None

    def beside(self) -> "Journal":
        """Return the same journal over a connection for another thread; it owns nothing."""
        return Journal(self.path.parents[1], self.path.stem)

    def sync(self) -> None:
        """Wait until all commits would outlive a loss of power."""
        log = _log(self.path)
        if log.exists():
            with disk_errors(), log.open("rb") as stream:
                os.fsync(stream.fileno())

    def close(self) -> None:
        """Close the file and give up its ownership."""
        for db in (self._db, *self._also):
            db.close()
        with suppress(OSError), FileLock(self.path.with_suffix(".lock")):  # a full disk
            if not _log(self.path).exists():  # no other connection is open
                with atomic_write(self.path.with_suffix(DIGEST)) as temporary:
                    temporary.write_text(file_digest(self.path))
        self._ownership.release()

    def _connect(self) -> sqlite3.Connection:
        is_new = not self.path.exists()
        db = sqlite3.connect(self.path, timeout=60.0, check_same_thread=False)
        try:  # the switch to WAL does not wait for another process that is at it: the lock does
            with disk_errors(), FileLock(self.path.with_suffix(".lock")):
                digest = self.path.with_suffix(DIGEST)  # of the last clean end
                if digest.exists() and not is_new and digest.read_text() != file_digest(self.path):
                    raise sqlite3.DatabaseError("its content is not what was written")
                digest.unlink(missing_ok=True)
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=NORMAL")
                layout = _create(db)
        except sqlite3.DatabaseError as error:
            db.close()
            raise _damaged(self.path, str(error)) from None
        if layout != LAYOUT:
            db.close()
            raise ArtifactError(
                f"{self.path}: written in layout {layout}, this spyhop reads {LAYOUT}; "
                "move it away to ask again"
            )
        return db


def history(
    root: Path, identity: str, keys: Sequence[str], text: str = ""
) -> tuple[Answered | None, list[Failed]]:
    """Return the reply to the first of some requests that has one, and its failed attempts.

    The journal is only read, also while a run writes to it. Without any such request, it is the
    reply whose text begins with `text`.
    """
    path = root / JOURNAL / f"{identity}.sqlite"
    if not path.exists():
        return None, []
    by_key = "SELECT replies.* FROM json_each(?) JOIN replies ON value = replies.key ORDER BY id"
    by_text = "SELECT * FROM replies WHERE substr(reply ->> 'text', 1, length(?)) = ? LIMIT 1"
    by_call = "SELECT * FROM failures WHERE key = ? ORDER BY at"
    try:
        with closing(_reader(path, "mode=ro" if _log(path).exists() else "immutable=1")) as db:
            found = db.execute(by_key, (json.dumps(keys),)).fetchone()
            if found is None and text:
                found = db.execute(by_text, (text, text)).fetchone()
            key = found[0] if found else next(iter(keys), "")
            failed = db.execute(by_call, (key,)).fetchall()
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from None
    return Answered(*found) if found else None, [Failed(*row) for row in failed]


def left_state(root: Path, identity: str) -> State:
    """Return what the last owner of a model's journal left, without owning or creating it."""
    try:
        with closing(_reader(root / JOURNAL / f"{identity}.sqlite", "mode=ro")) as db:
            return _state(db)
    except sqlite3.DatabaseError:  # there is none yet; a damaged one is reported when it is used
        return State()


def _reader(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)


def _state(db: sqlite3.Connection) -> State:
    found = db.execute("SELECT value FROM state WHERE name = 'owner'").fetchone()
    return State(**json.loads(found[0])) if found else State()


def settle(root: Path) -> float:
    """Release what is reserved for requests that may have been billed; return dollars."""
    released = 0.0
    for path in sorted((root / JOURNAL).glob("*.sqlite")):
        with closing(Journal(root, path.stem, is_owned=True)) as journal:
            state = journal.state()
            released += state.unsettled_usd
            if state.unsettled_usd:
                journal.commit([], [], replace(state, unsettled_usd=0.0))
    return released


def _log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"{path}: the journal of replies cannot be used ({reason}); if it is damaged, restore a "
        f"copy, or delete {path.with_suffix('.*').name}: its replies are then requested again"
    )


def _create(db: sqlite3.Connection) -> int:
    """Create the tables that are missing; return the layout.

    A whole journal is not written to: another connection may be writing, and SQLite refuses the
    second of two writers at once where both began by reading.
    """
    layout = int(db.execute("PRAGMA user_version").fetchone()[0])
    query = "SELECT name FROM sqlite_master WHERE type = 'table'"
    tables = [name for (name,) in db.execute(query)]
    if layout == LAYOUT and "jobs" in tables:
        return layout
    held = [name for name in tables if db.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone()]
    if layout == LAYOUT or (layout == 0 and not held):  # new, or a crash left a part of it
        db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version={LAYOUT}; COMMIT;")
        return LAYOUT
    return layout


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise the system's error for a full disk in place of SQLite's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, str(error)) from None
        raise


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
        on_commit: Callable[[list[Settled]], object],
        on_error: Callable[[Exception], object],
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
