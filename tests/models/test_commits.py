"""What is settled is on the disk first, soon, and in groups."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spyhop.models.journal import Answered, Commits, Failed, Journal, State


class Seen:
    """What the writer told, when, and what another connection found at that moment."""

    def __init__(self, root: Path) -> None:
        self._path = root / ".journal" / "m.sqlite"
        self.settled: list[str] = []
        self.batches: list[int] = []
        self.missing: list[str] = []
        self.times: list[float] = []
        self.errors: list[Exception] = []
        self.came = threading.Event()

    def commit(self, settled: list[str]) -> None:
        known = self.keys()
        self.missing += [key for key in settled if key not in known]
        self.times += [time.monotonic()] * len(settled)
        self.batches.append(len(settled))
        self.settled += settled
        self.came.set()

    def fail(self, error: Exception) -> None:
        self.errors.append(error)
        self.came.set()

    def keys(self) -> set[str]:
        db = sqlite3.connect(self._path)
        try:
            return {key for (key,) in db.execute("SELECT key FROM replies")}
        finally:
            db.close()


@contextmanager
def writing(root: Path, state: State | None = None) -> Iterator[tuple[Commits[str], Seen]]:
    journal = Journal(root, "m", is_owned=True)
    seen = Seen(root)
    commits = Commits[str](journal, state or State(is_closed=False), seen.commit, seen.fail)
    try:
        yield commits, seen
    finally:
        commits.close()
        journal.close()


def row(key: str, reply: str = "yes") -> Answered:
    return Answered(key, reply, "http://host/v1", 1, 0.1, 1e9)


def test_nothing_is_settled_before_another_connection_sees_it(tmp_path: Path):
    with writing(tmp_path) as (commits, seen):
        for place in range(400):
            commits.add([row(str(place))], [], [str(place)])
            time.sleep(0.001)
    assert seen.settled == [str(place) for place in range(400)]
    assert seen.missing == [] and seen.errors == []


def test_a_reply_is_settled_within_100_ms_in_groups(tmp_path: Path):
    added = []
    with writing(tmp_path) as (commits, seen):
        for place in range(300):
            added.append(time.monotonic())
            commits.add([row(str(place))], [], [str(place)])
    delays = sorted(after - before for before, after in zip(added, seen.times, strict=True))
    assert delays[len(delays) // 2] < 0.1  # the machine may be busy: not of every one
    assert delays[-1] < 1.0
    assert len(seen.batches) < 60  # groups, not a commit each


def test_nothing_is_written_while_nothing_comes(tmp_path: Path):
    with writing(tmp_path) as (_, seen):
        time.sleep(0.2)
        assert seen.batches == []


def test_closing_commits_the_rest_and_the_state_as_it_is_then(tmp_path: Path):
    state = State(is_closed=False)
    with writing(tmp_path, state) as (commits, seen):
        commits.add([row("a")], [], ["a"])
        state.is_closed, state.spent_usd = True, 2.5
    assert seen.settled == ["a"] and seen.keys() == {"a"}
    again = Journal(tmp_path, "m")
    found = again.state()
    again.close()
    assert (found.is_closed, found.spent_usd) == (True, 2.5)
    assert abs(found.at - time.time()) < 5


def test_the_state_stands_with_the_rows_it_belongs_to(tmp_path: Path):
    state = State(is_closed=False)
    with writing(tmp_path, state) as (commits, seen):
        for place in range(1, 4):
            state.spent_usd = float(place)
            seen.came.clear()
            commits.add([row(str(place))], [], [str(place)])
            assert seen.came.wait(5)
            reader = Journal(tmp_path, "m")
            found = reader.state()
            assert found.spent_usd == place == len(seen.keys())
            assert not found.is_closed and abs(found.at - time.time()) < 5
            reader.close()


def test_failures_and_what_needs_no_row_are_settled_too(tmp_path: Path):
    failed = Failed("b", "lost", "no", "http://host/v1", 1, 0.1, 1e9, True)
    with writing(tmp_path) as (commits, seen):
        commits.add([], [failed], [])
        commits.add([], [], ["given up"])
    assert seen.settled == ["given up"] and seen.keys() == set()


def test_many_threads_may_add(tmp_path: Path):
    with writing(tmp_path) as (commits, seen):

        def add(name: str) -> None:
            for place in range(100):
                commits.add([row(f"{name}{place}")], [], [f"{name}{place}"])

        threads = [threading.Thread(target=add, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(seen.settled) == sorted(seen.keys()) and len(seen.settled) == 400
    assert seen.missing == []


def test_a_full_disk_is_told_once_and_settles_nothing(small_disk: Path):
    with writing(small_disk) as (commits, seen):
        for place in range(40):
            commits.add([row(str(place), "x" * 60_000)], [], [str(place)])
            time.sleep(0.02)
            if seen.errors:
                break
        assert seen.came.wait(5)
        time.sleep(0.2)
        commits.add([row("more")], [], ["more"])
        time.sleep(0.2)
    [error] = seen.errors
    assert isinstance(error, OSError) and "full" in str(error)
    assert set(seen.settled) <= seen.keys()
    assert "more" not in seen.settled and seen.missing == []


def test_an_error_of_the_receiver_is_told_too(tmp_path: Path):
    journal = Journal(tmp_path, "m", is_owned=True)
    seen = Seen(tmp_path)

    def broken(settled: list[str]) -> None:
        raise RuntimeError("the receiver broke")

    commits = Commits[str](journal, State(), broken, seen.fail)
    commits.add([row("a")], [], ["a"])
    assert seen.came.wait(5)
    commits.close()
    journal.close()
    with pytest.raises(RuntimeError, match="the receiver broke"):
        raise seen.errors[0]
