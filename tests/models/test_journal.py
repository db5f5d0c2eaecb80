import multiprocessing
import random
import signal
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

import toys
from spyhop.models.journal import Journal
from spyhop.schema import ArtifactError

SPAWN = multiprocessing.get_context("spawn")
FORK = multiprocessing.get_context("forkserver")
NUM_ROWS = 60
NUM_TURNS = 12


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


def test_models_have_journals_of_their_own(tmp_path: Path):
    one, other = Journal(tmp_path, "m"), Journal(tmp_path, "n")
    one.put({"a": "1"})
    assert other.get(["a"]) == {}
    one.close()
    other.close()


def test_others_read_while_one_writes(tmp_path: Path):
    journal = Journal(tmp_path, "m")
    readers = [SPAWN.Process(target=_read, args=(tmp_path, 200)) for _ in range(2)]
    for reader in readers:
        reader.start()
    for place in range(200):
        journal.put({str(place): f"reply {place}"})
        time.sleep(0.005)
    for reader in readers:
        reader.join(30)
    assert [reader.exitcode for reader in readers] == [0, 0]
    journal.close()


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
