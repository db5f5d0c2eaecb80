import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spyhop.collect import MessagesConfig, read_conversations
from spyhop.schema import Answer, InputError
from spyhop.store import Artifact, Source

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "What is 1 + 1?"}
SAID = {"role": "assistant", "content": "2"}
ROW = {"messages": [SYSTEM, USER, SAID]}
PACK = {
    ".bz2": bz2.compress,
    ".gz": gzip.compress,
    ".zst": lambda text: pa.compress(text, "zstd", asbytes=True),
}


def _read(root: Path, *rows: object, name: str = "rows.jsonl") -> Artifact:
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(rows)), root / name)
    else:
        text = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
        (root / name).write_bytes(PACK.get(Path(name).suffix, bytes)(text))
    file = Source(root / name).open(root / "store")
    return read_conversations.run(root / "store", MessagesConfig(), file=file)


@pytest.mark.parametrize(
    "name", ["rows.jsonl", "rows.json.bz2", "rows.jsonl.gz", "rows.jsonl.zst", "rows.parquet"]
)
def test_a_row_is_a_conversation_that_ends_with_a_response(tmp_path: Path, name: str):
    first = {**ROW, "id": "7", "model": "teacher-1", "licence": "mit", "finish_reason": "length"}
    made = _read(tmp_path, first, {"messages": [USER, SAID]}, name=name)
    one, other = made.rows(Answer)
    assert (one.id, one.model, one.finish_reason, one.error) == ("7", "teacher-1", "length", None)
    assert [turn.model_dump() for turn in one.messages] == ROW["messages"]
    assert (other.model, other.finish_reason, other.system_id) == ("unknown", "stop", "none")
    assert one.system_id not in ("", "none")
    assert made.record.counts == {
        "licence/mit": 1, "licence/unknown": 1, "model/teacher-1": 1, "model/unknown": 1,
        "shape/messages": 2,
    }  # fmt: skip


def test_a_prompt_and_its_response_are_taken_too(tmp_path: Path):
    (row,) = _read(tmp_path, {"prompt": "Hi", "response": "Hello"}).rows(Answer)
    assert [(turn.role, turn.content) for turn in row.messages] == [
        ("user", "Hi"), ("assistant", "Hello"),
    ]  # fmt: skip


def test_answers_of_a_teacher_are_read_with_their_errors(tmp_path: Path):
    failed = {"messages": [USER], "error": "500 from the server", "finish_reason": "error"}
    again = {**ROW, "id": "a", "sample_index": 0}
    made = _read(tmp_path, again, failed, {**again, "sample_index": 1})
    rows = list(made.rows(Answer))
    assert [row.id for row in rows][::2] == ["a", "a-2"]
    assert rows[1].error == "500 from the server" and rows[1].messages[-1].role == "user"
    assert made.record.counts["model/unknown"] == 2


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            {"messages": [USER]},
            r"rows\.jsonl:2: 1 turns, the last one the user's .* nothing to train",
        ),
        ({"messages": [SAID]}, r"rows\.jsonl:2: 1 turns, the last one the assistant's"),
        ({"messages": []}, r"rows\.jsonl:2: 0 turns: there is nothing to train on"),
        ({"messages": "Hi"}, r"rows\.jsonl:2: messages = 'Hi' is not a list of turns"),
        ({"messages": [{"role": "judge", "content": "Hi"}]}, r"messages\[0\]\.role = 'judge'"),
        ({"prompt": "Hi"}, r"rows\.jsonl:2: no .response.; it has prompt"),
        ({"prompt": "Hi", "response": 3}, r"response = 3 is not text"),
        ({"text": "Hi"}, r"rows\.jsonl:2: no messages; it has text"),
        ({**ROW, "model": 4}, r"rows\.jsonl:2: model = 4 is not text"),
    ],
)
def test_a_wrong_row_is_one_line(tmp_path: Path, row: Any, text: str):
    with pytest.raises(InputError, match=text) as caught:
        _read(tmp_path, ROW, row)
    assert "\n" not in str(caught.value)


def test_no_rows_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no rows"):
        _read(tmp_path)


def test_turns_bring_their_thoughts_and_weights(tmp_path: Path):
    turns = [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Wrong.", "weight": 0},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "No.", "train": False, "reasoning": "eh"},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So.", "reasoning_content": "hm", "weight": 1},
    ]
    (row,) = _read(tmp_path, {"messages": turns}).rows(Answer)
    said = [each for each in row.messages if each.role == "assistant"]
    assert [each.is_trained for each in said] == [False, False, None]
    assert [each.reasoning for each in said] == [None, "eh", "hm"]
    assert row.messages[0].model_dump() == {"role": "user", "content": "Why?"}


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "x", "function_call": {"name": "f"}},
    ],
)
def test_rows_with_tool_calls_are_dropped_by_name(tmp_path: Path, turn: dict[str, object]):
    made = _read(tmp_path, {"messages": [USER, turn, SAID]}, ROW)
    assert made.num_rows == 1 and made.record.dropped == {"tool_calls": 1}


def test_keys_without_a_meaning_are_counted(tmp_path: Path):
    odd = {"messages": [USER, {**SAID, "name": "x"}], "split": "a", "source": 1}
    made = _read(tmp_path, odd, {**ROW, "split": "b"})
    unused = {key: num for key, num in made.record.counts.items() if key.startswith("unused/")}
    assert unused == {"unused/messages[].name": 1, "unused/source": 1, "unused/split": 2}
