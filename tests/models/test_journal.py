import multiprocessing
import random
import signal
import sqlite3
import time
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import cast

import pytest

import toys
from spyhop.models.journal import Answered, Commits, Failed, Journal, State
from spyhop.schema import ArtifactError

SPAWN = multiprocessing.get_context("spawn")
FORK = multiprocessing.get_context("forkserver")
NUM_ROWS = 60
NUM_TURNS = 5


def _ask(root: Path, log: Path, seconds: float) -> None:
    model = toys.LoggedModel(log, seconds)
    toys.replies.run(root, toys.Numbers(num_rows=NUM_ROWS), model=model)


def _read(root: Path, num: int) -> None:
    journal = Journal(root, "m")
    seen = 0
    while seen < num:
        found = journal.get([str(place) for place in range(num)])
        assert len(found) >= seen and all(found[key] == f"reply {key}" for key in found)
        seen = len(found)
    journal.close()


def test_the_first_reply_of_a_key_stays(tmp_path: Path):
    journal = Journal(tmp_path, "m")
    journal.put({"a": "1", "b": "2"})
    journal.put({"a": "3"})
    journal.close()
    again = Journal(tmp_path, "m")
    assert again.get(["a", "b", "c"]) == {"a": "1", "b": "2"}
    again.close()


def test_many_keys_and_no_key(tmp_path: Path):
    journal = Journal(tmp_path, "m")
    replies = {str(place): f"reply {place}" for place in range(2_345)}
    journal.put(replies)
    assert journal.get(list(replies)) == replies
    assert journal.get([]) == {}
    journal.close()


def test_a_journal_that_was_half_created_is_completed(tmp_path: Path):
    (tmp_path / ".journal").mkdir()
    db = sqlite3.connect(tmp_path / ".journal" / "m.sqlite")
    db.execute("CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT, endpoint TEXT,"
               " attempt INTEGER, latency_s REAL, at REAL)")  # fmt: skip
    db.close()
    journal = Journal(tmp_path, "m")
    journal.put({"a": "1"})
    assert journal.get(["a"]) == {"a": "1"} and journal.state() == State()
    journal.close()


def test_open_jobs_outlive_the_run_until_they_are_closed(tmp_path: Path):
    journal = Journal(tmp_path, "m")
    for number in (2, 1):
        journal.open_job(f"batch-{number}", "http://x/v1", f"{number}", number)
    journal.close()
    again = Journal(tmp_path, "m")
    assert again.open_jobs() == ["1", "2"]
    again.close_job("batch-1")
    assert again.open_jobs() == ["2"]
    again.close()


def test_models_have_journals_of_their_own(tmp_path: Path):
    one, other = Journal(tmp_path, "m"), Journal(tmp_path, "n")
    one.put({"a": "1"})
    assert other.get(["a"]) == {}
    one.close()
    other.close()


def test_others_read_while_one_writes(tmp_path: Path):
    journal = Journal(tmp_path, "m")
    readers = [SPAWN.Process(target=_read, args=(tmp_path, 100)) for _ in range(2)]
    for reader in readers:
        reader.start()
    for place in range(100):
        journal.put({str(place): f"reply {place}"})
        time.sleep(0.005)
    for reader in readers:
        reader.join(30)
    assert [reader.exitcode for reader in readers] == [0, 0]
    journal.close()


def test_a_connection_opens_while_another_one_writes(tmp_path: Path):
    with closing(Journal(tmp_path, "m")) as journal, closing(sqlite3.connect(journal.path)) as db:
        db.execute("BEGIN IMMEDIATE")
        beside = journal.beside()
        assert beside.get(["a"]) == {}
        beside.close()


def test_a_writer_that_cannot_open_its_journal_says_so():
    class Broken:
        def beside(self) -> Journal:
            raise ArtifactError("no journal")

    errors: list[Exception] = []
    commits = Commits[str](cast("Journal", Broken()), State(), lambda settled: None, errors.append)
    commits.close()
    assert str(errors) == "[ArtifactError('no journal')]"


def _open_and_put(root: Path, place: int, at_once: Barrier) -> None:
    for turn in range(NUM_TURNS):
        at_once.wait()
        journal = Journal(root, f"m{turn}")
        journal.put({f"{place}": f"reply {place}", "shared": "one"})
        assert journal.get([str(place)]) == {str(place): f"reply {place}"}
        journal.close()


def test_many_processes_open_one_journal_at_once(tmp_path: Path):
    at_once = FORK.Barrier(8, timeout=60)
    many = [FORK.Process(target=_open_and_put, args=(tmp_path, n, at_once)) for n in range(8)]
    for process in many:
        process.start()
    for process in many:
        process.join(60)
    assert [process.exitcode for process in many] == [0] * 8
    for turn in range(NUM_TURNS):
        journal = Journal(tmp_path, f"m{turn}")
        assert len(journal.get([*map(str, range(8)), "shared"])) == 9
        journal.close()


def test_a_damaged_journal_is_one_clear_line(tmp_path: Path):
    (tmp_path / ".journal").mkdir()
    (tmp_path / ".journal" / "m.sqlite").write_text("this is not a database " * 100)
    with pytest.raises(ArtifactError, match=r"m\.sqlite: the journal of replies cannot be used"):
        Journal(tmp_path, "m")


def test_a_kill_at_any_moment_asks_nothing_committed_again(tmp_path: Path):
    whole = toys.replies.run(
        tmp_path / "whole",
        toys.Numbers(num_rows=NUM_ROWS),
        model=toys.LoggedModel(tmp_path / "other"),
    )
    root, log = tmp_path / "killed", tmp_path / "log"
    moments = random.Random(5)
    for _ in range(3):
        process = SPAWN.Process(target=_ask, args=(root, log, 0.01))
        process.start()
        begun = len(toys.told(log))
        while len(toys.told(log)) == begun and process.is_alive():
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, 0.15))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        before = toys.committed(root)
        assert len(toys.told(log)) - before <= 3  # each kill may lose the one in flight
    begun = toys.committed(root)
    assert 0 < begun < NUM_ROWS
    model = toys.LoggedModel(log)
    made = toys.replies.run(root, toys.Numbers(num_rows=NUM_ROWS), model=model)
    assert model.calls == NUM_ROWS - begun
    assert made.digest == whole.digest and made.record.usage == whole.record.usage


def _own(root: Path, is_owned: Barrier, may_end: Barrier) -> None:
    journal = Journal(root, "m", is_owned=True)
    is_owned.wait()
    may_end.wait()  # and then it ends without a word
    assert journal.path.exists()


def test_one_owner_at_a_time(tmp_path: Path):
    is_owned, may_end = SPAWN.Barrier(2, timeout=30), SPAWN.Barrier(2, timeout=30)
    other = SPAWN.Process(target=_own, args=(tmp_path, is_owned, may_end))
    other.start()
    is_owned.wait()
    with pytest.raises(ArtifactError, match=r"m\.sqlite: another run is using this model") as error:
        Journal(tmp_path, "m", is_owned=True)
    assert len(str(error.value).splitlines()) == 1
    Journal(tmp_path, "n", is_owned=True).close()  # another model is free
    reader = Journal(tmp_path, "m")  # and anybody may read
    assert reader.get(["a"]) == {}
    reader.close()
    may_end.wait()
    other.join(30)
    Journal(tmp_path, "m", is_owned=True).close()


def test_ownership_ends_with_close_and_with_the_process(tmp_path: Path):
    for _ in range(2):
        Journal(tmp_path, "m", is_owned=True).close()
    is_owned, may_end = SPAWN.Barrier(2, timeout=30), SPAWN.Barrier(2, timeout=30)
    other = SPAWN.Process(target=_own, args=(tmp_path, is_owned, may_end))
    other.start()
    is_owned.wait()
    other.kill()
    other.join()
    Journal(tmp_path, "m", is_owned=True).close()


def test_a_journal_that_cannot_be_opened_is_owned_by_nobody(tmp_path: Path):
    path = tmp_path / ".journal" / "m.sqlite"
    path.parent.mkdir()
    path.write_text("this is not a database " * 100)
    for _ in range(2):
        with pytest.raises(ArtifactError, match="cannot be used"):
            Journal(tmp_path, "m", is_owned=True)
    path.unlink()
    Journal(tmp_path, "m", is_owned=True).close()


def test_failures_are_kept_and_never_replayed(tmp_path: Path):
    journal = Journal(tmp_path, "m")
    row = Failed("a", "overloaded", "500 no", "http://host/v1", 2, 0.5, 1e9, True)
    journal.commit([], [row, row._replace(attempt=3, maybe_billed=False)], None)
    assert journal.get(["a"]) == {}
    journal.close()
    db = sqlite3.connect(tmp_path / ".journal" / "m.sqlite")
    found = [tuple(each) for each in db.execute("SELECT * FROM failures ORDER BY attempt")]
    db.close()
    assert found == [(*row[:7], 1), (*row[:4], 3, *row[5:7], 0)]


def test_how_a_reply_came_is_kept(tmp_path: Path):
    journal = Journal(tmp_path, "m")
    row = Answered("a", "yes", "http://host/v1", 2, 0.5, 1e9)
    journal.commit([row], [], None)
    journal.commit([row._replace(reply="no", attempt=9)], [], None)
    assert journal.get(["a"]) == {"a": "yes"}
    journal.close()
    db = sqlite3.connect(tmp_path / ".journal" / "m.sqlite")
    assert db.execute("SELECT * FROM replies").fetchall() == [tuple(row)]
    db.close()


def test_the_owners_state_comes_back(tmp_path: Path):
    journal = Journal(tmp_path, "m")
    assert journal.state() == State()
    assert State().is_closed  # a journal that nobody owned was not left hard
    state = State(is_closed=False, at=2.5, spent_usd=0.1, reserved_usd=0.02, ceiling=7)
    journal.commit([], [], state)
    state.spent_usd, state.held = 0.3, {"http://host requests": [(1.5, 2.0), (0.5, 1.0)]}
    journal.commit([], [], state)
    journal.close()
    again = Journal(tmp_path, "m")
    found = again.state()
    again.close()
    held = {name: [tuple(pair) for pair in pairs] for name, pairs in found.held.items()}
    assert (found.is_closed, found.spent_usd, found.ceiling) == (False, 0.3, 7)
    assert held == state.held


@pytest.mark.parametrize("layout", [0, 1, 99])
def test_another_layout_is_one_clear_line(tmp_path: Path, layout: int):
    (tmp_path / ".journal").mkdir()
    db = sqlite3.connect(tmp_path / ".journal" / "m.sqlite")
    db.execute("CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT)")
    db.execute("INSERT INTO replies VALUES ('a', 'paid for')")
    db.execute(f"PRAGMA user_version = {layout}")
    db.commit()
    db.close()
    with pytest.raises(
        ArtifactError, match=f"written in layout {layout}, .* move it away"
    ) as error:
        Journal(tmp_path, "m", is_owned=True)
    assert len(str(error.value).splitlines()) == 1
    db = sqlite3.connect(tmp_path / ".journal" / "m.sqlite")
    assert db.execute("SELECT * FROM replies").fetchall() == [("a", "paid for")]
    db.close()
