import json
import os
import sys
import time
from pathlib import Path

import pytest

from spyhop.schema import ArtifactError, InputError
from spyhop.store import Source
from spyhop.store.verify import sealed, unsealed

SOURCE = sys.modules["spyhop.store.source"]


@pytest.fixture
def old_is_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SOURCE, "RACY_S", 0.05)


def _folder(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def test_an_edit_of_the_same_size_in_the_same_tick_is_seen(tmp_path: Path):
    folder = _folder(tmp_path / "in", a="one", b="two")
    keys = []
    for place in range(200):
        (folder / "a").write_text(f"{place:03}")
        keys.append(Source(folder).open(tmp_path).key)
    assert len(set(keys)) == 200


def test_an_edit_with_its_mtime_set_back_is_seen(tmp_path: Path, old_is_soon: None):
    folder = _folder(tmp_path / "in", a="one")
    time.sleep(0.1)
    before, stat = Source(folder).open(tmp_path).key, (folder / "a").stat()
    (folder / "a").write_text("two")
    os.utime(folder / "a", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    time.sleep(0.1)
    assert Source(folder).open(tmp_path).key != before


def test_unchanged_files_are_not_read_again(tmp_path: Path, old_is_soon: None):
    folder = _folder(tmp_path / "in", a="one")
    time.sleep(0.1)
    before = Source(folder).open(tmp_path).key
    cache = tmp_path / ".digests.json"
    known = json.loads(unsealed(cache.read_bytes()))["files"]
    assert list(known) == [str((folder / "a").resolve())]
    other = {name: [stamp, "0" * 64] for name, (stamp, _) in known.items()}
    cache.write_bytes(sealed(json.dumps({"files": other})))
    assert Source(folder).open(tmp_path).key != before  # the cached digest was believed


def test_a_fresh_file_is_not_cached(tmp_path: Path):
    folder = _folder(tmp_path / "in", a="one")
    Source(folder).open(tmp_path)
    assert not (tmp_path / ".digests.json").exists()


def test_a_damaged_cache_is_one_line_and_an_older_one_is_empty(tmp_path: Path):
    folder = _folder(tmp_path / "in", a="one")
    before = Source(folder).open(tmp_path).key
    cache = tmp_path / ".digests.json"
    cache.write_text('{"half')
    with pytest.raises(ArtifactError, match=r"digests\.json: damaged \(.*\); delete it"):
        Source(folder).open(tmp_path)
    cache.write_text('{"/a/file": ["1-2-3-4", "0123"]}')  # without a checksum
    assert Source(folder).open(tmp_path).key == before


def test_content_and_names_are_identity_and_the_place_is_not(tmp_path: Path):
    first = Source(_folder(tmp_path / "one", a="x", b="y")).open(tmp_path)
    moved = Source(_folder(tmp_path / "two", a="x", b="y")).open(tmp_path)
    renamed = Source(_folder(tmp_path / "three", a="x", c="y")).open(tmp_path)
    swapped = Source(_folder(tmp_path / "four", a="y", b="x")).open(tmp_path)
    assert first.key == moved.key == first.digest
    assert len({first.key, renamed.key, swapped.key}) == 3


def test_hidden_files_are_left_out(tmp_path: Path):
    folder = _folder(tmp_path / "in", a="x")
    before = Source(folder).open(tmp_path).key
    (folder / ".hidden").write_text("z")
    (folder / ".git").mkdir()
    (folder / ".git" / "head").write_text("z")
    assert Source(folder).open(tmp_path).key == before


def test_a_single_file_is_a_source(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.txt").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_text("x")
    names = ("a.txt", "b.txt", "elsewhere/a.txt")
    one, other, moved = (Source(tmp_path / name).open(tmp_path) for name in names)
    assert one.key == moved.key != other.key  # some readers take the task from the name
    assert one.record.config == {"files": 1, "bytes": 1}


def test_what_is_not_there_is_one_clear_line(tmp_path: Path):
    with pytest.raises(InputError, match=r"absent: no such file or folder$"):
        Source(tmp_path / "absent").open(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: the folder holds no files$"):
        Source(tmp_path / "empty").open(tmp_path)


def test_a_store_that_cannot_be_written_is_one_clear_line(tmp_path: Path, old_is_soon: None):
    folder = _folder(tmp_path / "in", a="one")
    time.sleep(0.1)
    with pytest.raises(ArtifactError, match="cannot be written"):
        Source(folder).open(folder / "a" / "store")


def test_a_pipe_is_named_as_what_it_is(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"pipe: neither a file nor a folder$"):
        Source(tmp_path / "pipe").open(tmp_path)
