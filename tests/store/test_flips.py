"""A flipped bit anywhere in what the store wrote is one clear line, never another row."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import toys
from spyhop.models.journal import Journal
from spyhop.schema import ArtifactError, Query
from spyhop.store import Artifact, Source
from spyhop.store.artifact import load
from spyhop.store.verify import file_digest, sealed, unsealed

NUM_FLIPS = 75
"""For each of the four kinds of file."""


def _flips(path: Path, seed: str) -> list[bytes]:
    """Copies of a file with one flipped bit each."""
    raw, draw = path.read_bytes(), random.Random(seed)
    flipped = []
    for _ in range(NUM_FLIPS):
        place, bit = draw.randrange(len(raw)), 1 << draw.randrange(8)
        flipped.append(raw[:place] + bytes([raw[place] ^ bit]) + raw[place + 1 :])
    return flipped


def _refused(path: Path, read: Callable[[], object], remedy: str) -> None:
    whole, stat = path.read_bytes(), path.stat()
    for number, flipped in enumerate(_flips(path, path.name)):
        path.write_bytes(flipped)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + number + 1))
        with pytest.raises(ArtifactError) as error:
            read()
        text = str(error.value)
        assert path.name in text and remedy in text and "\n" not in text and len(text) < 400
    path.write_bytes(whole)
    read()


@pytest.fixture
def made(tmp_path: Path) -> Artifact:
    return toys.noise.run(tmp_path, toys.Numbers(num_rows=40))


def test_parts(made: Artifact):
    (part,) = made.parts()
    _refused(part, lambda: list(made.rows(Query)), "and rerun to rebuild it")
    part.unlink()
    for read in (made.parts, lambda: list(made.batches(["id"])), made.verify):
        with pytest.raises(ArtifactError, match=r"part-00000\.parquet: damaged \(No such file"):
            read()


def test_records(made: Artifact):
    _refused(made.path / "record.json", lambda: load(made.path), "and rerun to rebuild it")


def test_the_digest_cache(tmp_path: Path):
    for name in "abc":
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (time.time() - 60,) * 2)
    cache = tmp_path / "store" / ".digests.json"
    source = Source(tmp_path / "a")
    source.open(cache.parent)
    if not cache.exists():  # the file's change time is too new to be remembered
        time.sleep(2.1)
        source.open(cache.parent)
    _refused(cache, lambda: source.open(cache.parent), "delete it: files are then hashed again")


def test_a_closed_journal(tmp_path: Path):
    journal = Journal(tmp_path, "m")
    journal.put({f"key {n}": f"reply {n}" * 20 for n in range(50)})
    journal.close()

    def read() -> None:
        again = Journal(tmp_path, "m")
        assert len(again.get([f"key {n}" for n in range(50)])) == 50
        again.close()

    _refused(journal.path, read, "its replies are then requested again")
    journal.path.unlink()
    again = Journal(tmp_path, "m")
    assert again.is_empty()
    again.close()


def test_a_killed_journal_has_no_digest_and_two_users_leave_one(tmp_path: Path):
    one = Journal(tmp_path, "m")
    digest = one.path.with_suffix(".digest")
    two = Journal(tmp_path, "m")
    one.put({"a": "1"})
    one.close()
    assert not digest.exists()
    two.put({"b": "2"})
    two.close()
    assert digest.exists()
    three = Journal(tmp_path, "m")
    assert not digest.exists() and three.get(["a", "b"]) == {"a": "1", "b": "2"}
    three.close()


@pytest.mark.parametrize("document", ['{"a": 1}', '{\n "a": {"b": []}\n}', '{"a": "\\ud83d"}'])
def test_documents_are_sealed(document: str):
    assert b'"a"' in unsealed(sealed(document)) and unsealed(document.encode()) == document.encode()
    with pytest.raises(ValueError, match="checksum"):
        unsealed(sealed(document).replace(b"a", b"b", 1))


def test_files_of_an_artifact_are_verified_once(made: Artifact, monkeypatch: pytest.MonkeyPatch):
    hashed: list[Path] = []

    def counting(path: Path) -> str:
        hashed.append(path)
        return file_digest(path)

    monkeypatch.setattr(load.__module__ + ".file_digest", counting)
    assert set(made.record.files) == {"part-00000.parquet"}
    for _ in range(3):
        assert len(list(made.rows(Query))) == 40 and len(made.parts()) == 1
    assert len(hashed) == 1
