import bz2
import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spyhop.collect.messages import MessagesConfig, read_prompts
from spyhop.schema import InputError, Prompt
from spyhop.stage import Context
from spyhop.store import Artifact, Source

USER = {"role": "user", "content": "What is 1 + 1?"}
SYSTEM = {"role": "system", "content": "Be brief."}


def _text(*rows: object) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


ZST = pa.compress(_text(*({"prompt": f"{n}"} for n in range(99))), "zstd", asbytes=True)


def _read(root: Path, content: bytes, name: str = "prompts.jsonl", **config: Any) -> Artifact:
    (root / name).write_bytes(content)
    file = Source(root / name).open(root / "store")
    return read_prompts.run(root / "store", MessagesConfig(**config), file=file)


def test_a_row_becomes_a_prompt(tmp_path: Path):
    row = {"messages": [SYSTEM, USER], "id": 7, "target": "2", "task": "sums", "collection": "own"}
    first, second = _read(tmp_path, _text(row, {"prompt": "Hi"})).rows(Prompt)
    assert (first.id, first.query_id, first.target) == ("7", "7", "2")
    assert (first.task, first.collection, first.system_id) == ("sums", "own", "given")
    assert [turn.model_dump() for turn in first.messages] == [SYSTEM, USER]
    assert [turn.model_dump() for turn in second.messages] == [{"role": "user", "content": "Hi"}]
    assert (second.task, second.collection, second.system_id) == ("prompts", "prompts", "none")
    assert second.target == ""


def test_ids_differ_and_do_not_depend_on_the_place(tmp_path: Path):
    one, other = {"messages": [USER]}, {"messages": [SYSTEM, USER]}
    content = _text(one, other, one, one, {**one, "id": "x"})
    a, b, c, d, e = (row.id for row in _read(tmp_path, content).rows(Prompt))
    assert (c, d, e) == (f"{a}-2", f"{a}-3", "x") and a != b
    again = _read(tmp_path, _text(other, {"prompt": USER["content"]}), "again.jsonl")
    assert [row.id for row in again.rows(Prompt)] == [b, a]
    (tmp_path / "taken").mkdir()
    taken = _read(tmp_path / "taken", _text({**one, "id": f"{a}-2"}, one, one))
    assert [row.id for row in taken.rows(Prompt)] == [f"{a}-2", a, f"{a}-3"]


def test_every_form_says_the_same(tmp_path: Path):
    rows = [{"messages": [SYSTEM, {**USER, "content": f"Say {n}"}], "id": n} for n in range(3)]
    text = _text(*rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "table")
    contents = {
        "a.jsonl": text,
        "b.json": b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n\r\n") + b"  ",
        "c.jsonl.gz": gzip.compress(text),
        "d.parquet": (tmp_path / "table").read_bytes(),
        "e.jsonl.bz2": bz2.compress(text),
        "f.jsonl.zst": pa.compress(text, "zstd", asbytes=True),
        "g.json.gz": gzip.compress(text),
    }
    made = [_read(tmp_path, content, name) for name, content in contents.items()]
    found = [[row.model_dump() for row in each.rows(Prompt)] for each in made]
    assert all(each == found[0] for each in found)
    assert [row["id"] for row in found[0]] == ["0", "1", "2"]


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.jsonl").write_bytes(_text({"prompt": "2"}))
    (folder / "a.jsonl").write_bytes(_text({"prompt": "1"}))
    pq.write_table(pa.table({"prompt": ["3"]}), folder / "sub" / "c.parquet")
    (folder / "README.md").write_text("no prompts")
    (folder / "empty.jsonl").write_text("")
    (folder / ".hidden.jsonl").write_text("{")
    made = read_prompts.run(tmp_path, MessagesConfig(), file=Source(folder).open(tmp_path))
    assert [row.messages[0].content for row in made.rows(Prompt)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({}, r"prompts\.jsonl:2: no messages; it has nothing; write"),
        ({"text": "a"}, r"prompts\.jsonl:2: no messages; it has text; write \"messages\""),
        ({"messages": None}, r"no messages"),
        ({"messages": []}, r"messages is empty"),
        ({"messages": "hello"}, r"messages = 'hello' is not a list of turns"),
        ({"messages": ["hello"]}, r"messages\[0\] = 'hello' is not a turn"),
        (
            {"messages": [USER, {"role": "tool", "content": "x"}]},
            r"messages\[1\]: tool calls are not supported",
        ),
        ({"messages": [{"role": "narrator"}]}, r"role = 'narrator': write system, user, assistant"),
        ({"messages": [{"content": "x"}]}, r"messages\[0\]\.role = None"),
        ({"messages": [{"role": "user", "content": None}]}, r"content = None is not text"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, r"role = \['user'\]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "text": "x"}]}]},
            r"messages\[0\]\.content = \[.*\] is not text",
        ),
        ({"prompt": " \n"}, r":2: the prompt is empty; remove the row$"),
        ({"messages": [SYSTEM, {**USER, "content": ""}]}, r":2: the prompt is empty"),
        (
            {"messages": [USER, {"role": "assistant", "content": "2"}]},
            r"the last turn is the assistant's \('2'\).*remove that turn",
        ),
        ({"prompt": 3}, r"prompt = 3 is not text"),
        ({"prompt": "a", "id": "first"}, r"id = 'first' is the id of an earlier row"),
        ({"prompt": "a", "id": 1.5}, r"id = 1\.5 is neither"),
        ({"prompt": "a", "id": True}, r"id = True is neither"),
        ({"prompt": "a", "id": ""}, r"id = '' is neither"),
        ({"prompt": "a", "target": 42}, r"target = 42 is not text"),
        ({"prompt": "a", "model": "x"}, r"the column 'model' is one that the answers bring"),
        (["a"], r'\["a"\] is not a row'),
    ],
)
def test_a_wrong_row_is_one_line(tmp_path: Path, row: object, text: str):
    content = _text({"prompt": "good", "id": "first"}, row)
    with pytest.raises(InputError, match=text) as error:
        _read(tmp_path, content, reserved=("model",))
    assert "prompts.jsonl:2: " in str(error.value) and "\n" not in str(error.value)
    assert not list((tmp_path / "store").glob("collect.read_prompts-*"))


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.jsonl", b"{nope}", r"a\.jsonl:1: not JSON \(.*\): '\{nope\}'"),
        ("a.jsonl", b'[\n{"prompt": "a"}\n', r"a\.jsonl: the JSON array ends after row 1"),
        ("a.json", b'{"data":\n [1]\n}', r"a\.json: one JSON object, .* lists under data"),
        ("a.jsonl", b'{"prompt": "\\ud800"}', r"a\.jsonl:1: not JSON"),
        ("a.jsonl", b'{"prompt": "\xe9"}', r"a\.jsonl:1: not UTF-8 \(byte 12: .*UTF-8"),
        ("a.jsonl", '{"prompt": "a"}'.encode("utf-16"), r"a\.jsonl:1: .*looks like UTF-16"),
        ("a.jsonl", b"", r"a\.jsonl: no rows"),
        ("a.jsonl", b" \n\n", r"a\.jsonl: no rows"),
        ("a.jsonl.gz", b"none", r"a\.jsonl\.gz: cannot be read"),
        (
            "a.jsonl.gz",
            gzip.compress(_text({"prompt": "a"}), mtime=0)[:-9],
            r"a\.jsonl\.gz: cannot be read",
        ),
        ("a.jsonl.bz2", b"none", r"a\.jsonl\.bz2: cannot be read \("),
        ("a.jsonl.bz2", bz2.compress(_text({"prompt": "a"}))[:-9], r"bz2: cannot be read \("),
        ("a.jsonl.zst", b"none", r"a\.jsonl\.zst: cannot be read \("),
        ("a.jsonl.zst", ZST[:-9], r"a\.jsonl\.zst: cannot be read \("),
        ("a.jsonl.zst", pa.compress(b"{}\n{nope}", "zstd", asbytes=True), r"zst:1: no messages"),
        ("a.csv", b"a", r"a\.csv: no rows"),
        ("a.csv", b"a\nb", r"a\.csv:2: no messages; it has a;"),
        ("a.xlsx", b"a", r"a\.xlsx: unknown format; its name must end in one of \.jsonl"),
        ("a.parquet", b"PAR1", r"a\.parquet: not a whole Parquet file"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, name: str, content: bytes, text: str):
    with pytest.raises(InputError, match=text) as error:
        _read(tmp_path, content, name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"text": ["a"]}, r"p\.parquet: no column of messages or prompts; it has text"),
        ({"prompt": ["a", None]}, r"p\.parquet: row 2: no messages"),
        ({"prompt": ["a"], "error": ["b"]}, r"p\.parquet: row 1: the column 'error' is one that"),
        ({"prompt": pa.array([], pa.string())}, r"p\.parquet: no rows"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path: Path, columns: dict[str, Any], text: str):
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    with pytest.raises(InputError, match=text):
        _read(tmp_path, (tmp_path / "p.parquet").read_bytes(), "p.parquet", reserved=("error",))


def test_an_empty_folder_is_one_line(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    with pytest.raises(InputError, match=r"in: the folder has no file that ends in"):
        read_prompts.run(tmp_path, MessagesConfig(), file=Source(tmp_path / "in").open(tmp_path))


def test_memory_holds_ids_only(tmp_path: Path, context: Context):
    num_rows = 5_000
    with (tmp_path / "large.jsonl").open("w") as stream:
        for place in range(num_rows):
            stream.write(json.dumps({"prompt": f"{place} {'x' * 5000}"}) + "\n")
    file = Source(tmp_path / "large.jsonl").open(tmp_path)
    tracemalloc.start()
    made = sum(1 for _ in read_prompts.function(context, MessagesConfig(), file=file))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made == num_rows
    assert most / num_rows < 500, most / num_rows
