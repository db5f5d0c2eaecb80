from pathlib import Path

import pytest

from spyhop.schema import ArtifactError
from spyhop.store.atomic import export


def test_a_file_is_replaced_whole(tmp_path: Path):
    (tmp_path / "made.jsonl").write_text("new")
    (tmp_path / "out.jsonl").write_text("older and longer")
    assert export(tmp_path / "made.jsonl", tmp_path / "out.jsonl").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"made.jsonl", "out.jsonl"}


def test_a_link_is_replaced_and_nothing_else_is(tmp_path: Path):
    for name in ("one", "two", "own"):
        (tmp_path / name).mkdir()
    for name in ("one", "two"):
        place = export(tmp_path / name, tmp_path / "model")
        assert place.resolve() == tmp_path / name and not place.readlink().is_absolute()
    with pytest.raises(
        ArtifactError, match=r"own: exists and is no link of spyhop.s; the result is .*/two"
    ):
        export(tmp_path / "two", tmp_path / "own")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "one", "own", "two"}


@pytest.mark.parametrize("make", [lambda path: path.write_text("paid for"), Path.mkdir])
def test_where_the_result_is_stands_in_the_error(tmp_path: Path, make):
    make(tmp_path / "made")
    with pytest.raises(ArtifactError, match=r"absent/x: cannot be written .*result is .*made"):
        export(tmp_path / "made", tmp_path / "absent" / "x")
