import os
import socket
from pathlib import Path

import pytest

from spyhop.store import atomic_write


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_is_written_appears_at_the_end(tmp_path: Path, is_folder: bool):
    place = tmp_path / "new[1]"
    with atomic_write(place) as temporary:
        if is_folder:
            temporary.mkdir()
        (temporary / "a" if is_folder else temporary).write_text("all")
        assert not place.exists()
    assert (place / "a" if is_folder else place).read_text() == "all"
    assert list(tmp_path.iterdir()) == [place]


def test_an_error_changes_nothing(tmp_path: Path):
    place = tmp_path / "file"
    place.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(place) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert place.read_text() == "old" and list(tmp_path.iterdir()) == [place]


def test_leftovers_of_dead_processes_of_this_host_go(tmp_path: Path):
    host = socket.gethostname()
    names = [f".file.{host}-{2**22 + 1}", f".file.elsewhere-{2**22 + 1}", f".file.{host}-1"]
    for name in names:
        (tmp_path / name).write_text("half")
    with atomic_write(tmp_path / "file") as temporary:
        assert temporary.name == f".file.{host}-{os.getpid()}"
        temporary.write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {"file", *names[1:]}
