import csv
import gzip
import json
from pathlib import Path

import pytest

from spyhop.collect import Columns, DrawConfig, RecordsConfig, SourceTable, draw, read_records
from spyhop.schema import InputError, Query
from spyhop.stage import Runtime
from spyhop.store import Artifact, Source

ROWS = [
    {"inputs": f'Is "{n}",\nor {n}é, prime?', "targets": str(n), "task": f"t{n % 3}", "x": "y"}
    for n in range(500)
]


def _write(folder: Path, form: str) -> Path:
    folder.mkdir(parents=True)
    path = folder / f"a.{form}"
    if form == "jsonl.gz":
        path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in ROWS).encode()))
    elif form == "jsonl":
        path.write_text("\n".join(json.dumps({**r, "targets": int(r["targets"])}) for r in ROWS))
    else:
        with path.open("w", newline="", encoding="utf-8") as stream:
            delimiter = "\t" if form == "tsv" else ","
            writer = csv.DictWriter(stream, list(ROWS[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(ROWS)
    return path


def _draw(root: Path, path: Path, columns: Columns | None = None, **changes: int) -> Artifact:
    table = SourceTable(collection="c", columns=columns or Columns(), pattern="*")
    config = DrawConfig(table=table, **changes)
    made = Source(path.parent).open(root)
    return draw.run(root, config, runtime=Runtime(threads=2), queries={"one": made})


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "csv", "tsv"])
def test_a_table_of_lines_holds_the_rows_that_records_reads(tmp_path: Path, form: str):
    path = _write(tmp_path / form, form)
    made = _draw(tmp_path, path)
    config = RecordsConfig(collection="c")
    read = read_records.run(tmp_path, config, folder=Source(path.parent).open(tmp_path))
    assert sorted(made.rows(Query), key=lambda row: row.id) == sorted(
        read.rows(Query), key=lambda row: row.id
    )
    assert made.num_rows == 500 and _draw(tmp_path, path, num_rows=20).num_rows == 20


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", b'{"inputs": "a"}\n{"inputs": "b"\n', "not a whole table .*line"),
        ("a.jsonl", b'{"inputs": "a"}\n[1]\n', "not a whole table .*line 2"),
        ("a.jsonl", b'{"inputs": "\xff"}\n', "not a whole table .*UTF-8"),
        ("a.jsonl", b'{"question": "a"}\n', "no row has a query"),
        ("a.csv", b"question\na\n", "no column 'inputs'; found: question"),
        ("a.csv", b"inputs\na\nb,c\n", "Expected Number of Columns: 1 Found: 2"),
        ("a.csv", b"inputs\n\xff\n", "Line: 2 .*unicode"),
        ("a.txt", b"inputs\n", "unknown format; its name must end in one of .jsonl"),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path: Path, name: str, text: bytes, message: str):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(text)
    with pytest.raises(InputError, match=message) as caught:
        _draw(tmp_path, tmp_path / "in" / name, Columns(target="", task=""))
    assert "\n" not in str(caught.value) and name in str(caught.value)
