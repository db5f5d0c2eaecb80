import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from filelock import FileLock

import toys
from spyhop.schema import ArtifactError, InputError
from spyhop.store import Inventory, Record, claim, find
from spyhop.store.artifact import digest_of, digests

SPAWN = multiprocessing.get_context("spawn")


def _record(key: str, digest: str) -> Record:
    return Record(key=key, stage="a.b", version=1, config={}, inputs={}, digest=digest)


def _silent(message: str) -> None:
    pass


def _write_slowly(root: Path, log: Path, waits: Path) -> None:
    config = toys.Numbers(num_rows=2, seconds=1.0, log=str(log))
    say = lambda progress: progress.is_lasting and toys.tell(str(waits), progress.doing)  # noqa: E731
    made = toys.numbers.run(root, config, report=say)
    assert [row.value for row in made.rows(toys.Number)] == [0, 1]


def _hold_state(root: Path) -> None:
    with claim(root, "a.b", "k", {"x": ["1"]}, _silent) as work:
        (work.state / "kept").write_text("half-way")
        (work.out / "thrown-away").write_text("half")
        (root / "ready").touch()
        time.sleep(60)


def test_without_its_record_nothing_is_finished(tmp_path: Path):
    made = toys.numbers.run(tmp_path, toys.Numbers())
    assert find(tmp_path, "toys.numbers", made.key) == made
    (made.path / "record.json").unlink()
    assert find(tmp_path, "toys.numbers", made.key) is None
    again = toys.numbers.run(tmp_path, toys.Numbers())
    assert again.digest == made.digest and (again.path / "record.json").is_file()


@pytest.mark.parametrize("text", ["", "{", '{"key": 1}', "[]", "\x00"])
def test_a_damaged_record_is_one_clear_line(tmp_path: Path, text: str):
    made = toys.numbers.run(tmp_path, toys.Numbers())
    (made.path / "record.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"record\.json: .*delete that folder"):
        toys.numbers.run(tmp_path, toys.Numbers())


def test_a_damaged_part_is_one_clear_line(tmp_path: Path):
    made = toys.numbers.run(tmp_path, toys.Numbers())
    (part,) = made.parts()
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match=r"part-00000\.parquet: damaged.*delete"):
        list(made.rows(toys.Number))


def test_a_crash_leaves_no_artifact(tmp_path: Path):
    broken = tmp_path / "broken"
    broken.touch()
    numbers = toys.numbers.run(tmp_path, toys.Numbers())
    config = toys.Sum(broken_while=str(broken))
    with pytest.raises(InputError, match="the toy is broken"):
        toys.added.run(tmp_path, config, parts={"one": numbers})
    assert not list(tmp_path.glob("toys.added-*"))
    broken.unlink()
    assert toys.added.run(tmp_path, config, parts={"one": numbers}).num_rows == 1


def test_nothing_partial_is_left_after_a_run_and_after_a_hit(tmp_path: Path):
    for _ in range(2):
        toys.numbers.run(tmp_path, toys.Numbers())
        assert [entry.kind for entry in Inventory(tmp_path).entries] == ["artifact"]


def test_two_processes_write_the_same_artifact_once(tmp_path: Path):
    log, waits = tmp_path / "log", tmp_path / "waits"
    both = [SPAWN.Process(target=_write_slowly, args=(tmp_path, log, waits)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len(toys.told(log)) == 1
    (said,) = toys.told(waits)
    assert said == "another run is making it; waiting for that one"
    assert [entry.kind for entry in Inventory(tmp_path).entries] == ["artifact"]


def test_state_outlives_a_kill_and_half_written_output_does_not(tmp_path: Path):
    process = SPAWN.Process(target=_hold_state, args=(tmp_path,))
    process.start()
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    with pytest.raises(Exception, match=r"b-k\.lock"):
        FileLock(tmp_path / ".partial" / "a.b-k.lock").acquire(timeout=0)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert find(tmp_path, "a.b", "k") is None
    with claim(tmp_path, "a.b", "k", {"x": ["1"]}, _silent) as work:
        assert (work.state / "kept").read_text() == "half-way"
        assert list(work.out.iterdir()) == []


def test_state_of_inputs_with_other_content_is_thrown_away(tmp_path: Path):
    with claim(tmp_path, "a.b", "k", {"x": ["1"]}, _silent) as work:
        (work.state / "kept").write_text("half-way")
    with claim(tmp_path, "a.b", "k", {"x": ["2"]}, _silent) as work:
        assert list(work.state.iterdir()) == []


def test_the_same_key_from_other_content_replaces(tmp_path: Path):
    for digest in ("one", "two"):
        with claim(tmp_path, "a.b", "k", {"x": [digest]}, _silent) as work:
            (work.out / digest).touch()
            work.finish(_record("k", digest))
        found = find(tmp_path, "a.b", "k")
        assert found and found.digest == digest_of(digests(found.path))
        assert sorted(p.name for p in found.path.iterdir()) == sorted([digest, "record.json"])
    assert [entry.kind for entry in Inventory(tmp_path).entries] == ["artifact"]


def test_the_digest_tells_names_and_contents_but_no_logs(tmp_path: Path):
    digests = set()
    for files in ({"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "logs/time": "3"}):
        with claim(tmp_path, "a.b", "k", {"x": [str(files)]}, _silent) as work:
            for name, text in files.items():
                (work.out / name).parent.mkdir(exist_ok=True)
                (work.out / name).write_text(text)
            digests.add(work.finish(_record("k", "")).digest)
    assert len(digests) == 3


def test_a_store_that_is_a_file_is_one_clear_line(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=r"cannot be written"):
        toys.numbers.run(tmp_path / "file", toys.Numbers())
