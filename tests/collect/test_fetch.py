import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from spyhop.collect import FetchConfig, T0Config, fetch, read_t0
from spyhop.schema import InputError, NotInstalled, Query

ROW = '{"prompt": "Q?", "completion": "A"}\n'


def test_files_of_any_address_become_an_artifact(tmp_path: Path):
    (tmp_path / "there" / "sub").mkdir(parents=True)
    (tmp_path / "there" / "sub" / "a.jsonl").write_text(ROW)
    (tmp_path / "there" / "b.txt").write_text("no")
    config = FetchConfig(address=f"file://{tmp_path}/there", revision="1", pattern="**/*.jsonl")
    made = fetch.run(tmp_path, config)
    assert made.record.counts == {"files": 1}
    (row,) = read_t0.run(tmp_path, T0Config(), folder=made).rows(Query)
    assert row.query == "Q?"
    assert fetch.run(tmp_path, config) == made
    nothing = config.model_copy(update={"pattern": "*.csv"})
    with pytest.raises(InputError, match=r"no file matches '\*\.csv'$"):
        fetch.run(tmp_path, nothing)
    nowhere = FetchConfig(address=f"file://{tmp_path}/nowhere", revision="1", pattern="*")
    with pytest.raises(InputError, match="nowhere"):
        fetch.run(tmp_path, nowhere)


def test_a_data_set_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    folder = tmp_path / "set"
    folder.mkdir()
    pq.write_table(pa.table({"inputs": ["a", "b"], "n": [1, 2]}), folder / "train.parquet")
    made = fetch.run(tmp_path, FetchConfig(address=str(folder), revision="1"))
    assert pq.read_table(made.path / "part-00000.parquet").to_pydict() == {
        "inputs": ["a", "b"], "n": [1, 2]
    }  # fmt: skip
    with pytest.raises(InputError, match="cannot be loaded"):
        fetch.run(tmp_path, FetchConfig(address=str(folder), revision="1", split="other"))


def test_hub_addresses_are_pinned():
    for address in ("hf://datasets/o/n", "o/n"):
        with pytest.raises(ValidationError, match="name the commit"):
            FetchConfig(address=address, revision="main")
    FetchConfig(address="hf://datasets/o/n", revision="b" * 40)


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    config = FetchConfig(address="s3://bucket/x", revision="1")
    with pytest.raises(NotInstalled, match=r"s3://bucket/x needs s3fs: .*spyhop\[hub\]"):
        fetch.run(tmp_path, config)
