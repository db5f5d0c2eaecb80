import datetime
import decimal
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import scripted
from spyhop.augment import AnswerConfig, Outcomes, answer
from spyhop.augment.export import RESERVED, ExportConfig, export
from spyhop.collect.messages import MessagesConfig, read_prompts
from spyhop.models import Request, Sampling
from spyhop.runtime import Runtime
from spyhop.schema import InputError
from spyhop.store import Artifact, Source

BROUGHT = [*RESERVED[:-1]]


def _say(request: Request, sampling: Sampling) -> Any:
    asked = request.messages[-1].content
    if "fail" in asked:
        return scripted.failed("400 bad request")
    if "refuse" in asked:
        return scripted.reply("", "content_filter", error="the filter spoke")
    columns = {"prompt_tokens": 3, "response_tokens": 2, "log_probability": -0.5, "reasoning": "so"}
    return scripted.reply(f"to {asked} {request.sample_index}", **columns)


def _write(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    return path


def _export(root: Path, path: Path, form: Any = "", **changes: Any) -> Artifact:
    store = root / "store"
    file = Source(path).open(store)
    prompts = read_prompts.run(store, MessagesConfig(reserved=RESERVED), file=file)
    config = AnswerConfig(**changes)
    answers = answer.run(
        store, config, runtime=Runtime(max_error_frac=1.0), prompts=prompts,
        teacher=scripted.Scripted(_say),
    )  # fmt: skip
    made = ExportConfig(format=form, num_samples=config.num_samples)
    return export.run(store, made, file=file, prompts=prompts, answers=answers)


def _lines(made: Artifact) -> list[dict[str, Any]]:
    text = (made.path / "answers.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


def _user(text: str, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text, **more}]}


ROWS = [
    {"id": 3, **_user("a\u2028ä", name="Ann"), "extra": {"x": [1, None]}, "big": 2**70, "n": 0.1},
    {"prompt": "b", "messages": None},
    {**_user("fail"), "extra": "text"},
    {"prompt": "b"},
]


def test_rows_stay_as_they_came_and_are_one_turn_longer(tmp_path: Path):
    made = _export(tmp_path, _write(tmp_path / "p.jsonl", ROWS))
    first, second, third, fourth = _lines(made)
    assert list(first) == ["id", "messages", "extra", "big", "n", *BROUGHT]
    assert {k: first[k] for k in ("id", "extra", "big", "n")} == {
        k: ROWS[0][k] for k in ("id", "extra", "big", "n")
    }
    assert first["messages"] == [
        {"role": "user", "content": "a\u2028ä", "name": "Ann"},
        {"role": "assistant", "content": "to a\u2028ä 0"},
    ]
    assert {name: first[name] for name in BROUGHT} == {
        "finish_reason": "stop", "ending": "whole", "error": None, "reasoning": "so", "outcome": "",
        "model": "fake", "prompt_tokens": 3, "response_tokens": 2, "log_probability": -0.5,
    }  # fmt: skip
    assert second["prompt"] == fourth["prompt"] == "b"
    assert [turn["content"] for turn in second["messages"]] == ["b", "to b 0"]
    assert [turn["role"] for turn in third["messages"]] == ["user"]
    assert (third["error"], third["outcome"]) == ("400 bad request", "failed")
    assert made.record.counts == {"rows": 4, "failed/400": 1, "without_answer": 0}


def test_dropped_prompts_are_absent_and_counted(tmp_path: Path):
    rows = [_user(text) for text in ("fail 1", "a", "refuse", "fail 2", "b", "fail 3")]
    path = _write(tmp_path / "p.jsonl", rows)
    drop = Outcomes(failed="drop")
    made = _export(tmp_path, path, outcomes=drop)
    assert made.record.counts["without_answer"] >= 3
    assert "failed/400" not in made.record.counts
    found = _lines(made)
    assert [row["messages"][0]["content"] for row in found if not row["error"]] == ["a", "b"]


def test_all_samples_of_a_prompt_follow_it(tmp_path: Path):
    path = _write(tmp_path / "p.jsonl", [_user("a"), _user("b")])
    rows = _lines(_export(tmp_path, path, num_samples=3))
    said = [(row["messages"][-1]["content"], row["sample_index"]) for row in rows]
    assert said == [(f"to {name} {place}", place) for name in "ab" for place in range(3)]


def _odd_table(num_rows: int) -> pa.Table:
    when = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    turns = pa.list_(
        pa.struct([("content", pa.large_string()), ("role", pa.string()), ("weight", pa.int8())])
    )
    asked = [[{"role": "user", "content": f"q{n}", "weight": n % 9}] for n in range(num_rows)]
    return pa.table(
        {
            "when": pa.array([when] * num_rows, pa.timestamp("ns", "UTC")),
            "messages": pa.array(asked, turns),
            "price": [decimal.Decimal("1.50")] * num_rows,
            "pairs": pa.array([[("a", 1)]] * num_rows, pa.map_(pa.string(), pa.int64())),
            "kind": pa.array(["x"] * num_rows).dictionary_encode(),
            "id": pa.array(range(num_rows), pa.int16()),
            "none": pa.nulls(num_rows),
        }
    )


def test_columns_of_parquet_keep_their_types(tmp_path: Path):
    table = _odd_table(5000)
    pq.write_table(table, tmp_path / "p.parquet", row_group_size=900)
    made = _export(tmp_path, tmp_path / "p.parquet")
    found = pq.read_table(made.path / "answers.parquet")
    assert found.schema.names == [*table.schema.names, *BROUGHT]
    others = [name for name in table.schema.names if name != "messages"]
    assert found.select(others).equals(table.select(others))
    assert found.schema.field("messages").type == table.schema.field("messages").type
    last = found.slice(4999).to_pylist()[0]["messages"]
    assert last[0] == {"role": "user", "content": "q4999", "weight": 4999 % 9}
    assert last[1] == {"role": "assistant", "content": "to q4999 0", "weight": None}


def test_parquet_becomes_json_where_it_can(tmp_path: Path):
    pq.write_table(_odd_table(2), tmp_path / "p.parquet")
    first, _ = _lines(_export(tmp_path, tmp_path / "p.parquet", "jsonl"))
    assert (first["price"], first["pairs"], first["kind"]) == ("1.50", {"a": 1}, "x")
    assert first["when"].startswith("2020-01-01T00:00:00")
    pq.write_table(pa.table({"prompt": ["a"], "raw": [b"a"]}), tmp_path / "raw.parquet")
    with pytest.raises(InputError, match=r"raw\.parquet: row 1: b'a' \(bytes\) .*Parquet"):
        _export(tmp_path, tmp_path / "raw.parquet", "jsonl")


def test_a_folder_of_tables_becomes_one(tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(pa.table({"prompt": ["a"], "n": pa.array([1], pa.int8())}), folder / "1.parquet")
    pq.write_table(
        pa.table({"n": pa.array([2]), "prompt": ["b"], "m": ["x"]}), folder / "2.parquet"
    )
    made = _export(tmp_path, folder)
    rows = pq.read_table(made.path / "answers.parquet").to_pylist()
    assert [(row["prompt"], row["n"], row["m"]) for row in rows] == [("a", 1, None), ("b", 2, "x")]
    assert [len(row["messages"]) for row in rows] == [2, 2]
    pq.write_table(pa.table({"prompt": ["c"], "n": ["text"]}), folder / "3.parquet")
    with pytest.raises(InputError, match=r"in: the files have columns of different types"):
        _export(tmp_path, folder)


def test_a_mixed_folder_becomes_json(tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(pa.table({"prompt": ["a"]}), folder / "1.parquet")
    _write(folder / "2.jsonl", [{"prompt": "b"}])
    assert [row["prompt"] for row in _lines(_export(tmp_path, folder))] == ["a", "b"]
