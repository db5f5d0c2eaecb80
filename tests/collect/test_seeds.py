import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from spyhop.collect import SeedsConfig, pair_id, read_seeds
from spyhop.collect.pairs import GivenPairsConfig, read_pairs
from spyhop.schema import InputError, Pair
from spyhop.store import Artifact, Source


def _read(root: Path, path: Path, kind: str, **changes: object) -> Artifact:
    config = SeedsConfig.model_validate({"kind": kind, **changes})
    return read_seeds.run(root / "store", config, folder=Source(path).open(root / "store"))


def _lines(root: Path, rows: Sequence[object], name: str = "rows.jsonl") -> Path:
    path = root / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _message(name: str, parent: str | None, role: str, **columns: object) -> dict[str, object]:
    known = {"text": f"text of {name}", "lang": "en", "rank": None, "deleted": False}
    return {"message_id": name, "parent_id": parent, "role": role, **known, **columns}


def test_the_papers_rule_selects_what_the_real_file_holds(tmp_path: Path, data_dir: Path):
    made = _read(tmp_path, data_dir / "oasst1_en_validation" / "en-validation.jsonl", "oasst")
    rows = list(made.rows(Pair))
    assert len(rows) == 186 and made.record.dropped == {"no_first_reply": 2}
    assert {(row.tag, row.collection, row.licence) for row in rows} == {
        ("seed", "oasst", "Apache-2.0")
    }
    assert rows[0].origin == "en-validation.jsonl: line 2"


def test_trees_are_read_as_messages_are(tmp_path: Path, data_dir: Path):
    folder = data_dir / "oasst_en_100_trees" / "model" / "model_eval" / "manual" / "data"
    made = _read(tmp_path, folder, "oasst", pattern="en_100_tree.jsonl")
    assert made.num_rows == 99 and made.record.dropped == {"no_first_reply": 1}


def test_first_turn_rank_zero_english_and_not_deleted(tmp_path: Path):
    path = _lines(tmp_path, [
        _message("a.0", "a", "assistant", rank=0),  # stands before its opening
        _message("a", None, "prompter"),
        _message("a.1", "a", "assistant", rank=1),
        _message("a.0.0", "a.0", "prompter"),
        _message("a.0.0.0", "a.0.0", "assistant", rank=0),
        _message("b", None, "prompter", lang="fi"),
        _message("b.0", "b", "assistant", rank=0),
        _message("c", None, "prompter"),
        _message("c.0", "c", "assistant", rank=0, deleted=True),
        _message("d", None, "prompter", deleted=True),
        _message("d.0", "d", "assistant", rank=0),
    ])  # fmt: skip
    made = _read(tmp_path, path, "oasst")
    ((row,), dropped) = list(made.rows(Pair)), made.record.dropped
    assert (row.instruction, row.response) == ("text of a", "text of a.0")
    assert row.id == pair_id(row.instruction, row.response)
    assert dropped == {"no_first_reply": 1, "other_language": 1}
    assert _read(tmp_path, path, "oasst", language="fi").num_rows == 1


@pytest.mark.parametrize(
    ("kind", "file", "num", "licence"),
    [
        ("lima", "lima/train.jsonl", 1030, "CC-BY-NC-SA"),
        ("dolly", "dolly_slices/dolly.jsonl", 151, "CC-BY-SA-3.0"),
        ("self_instruct", "self_instruct/data/seed_tasks.jsonl", 175, "Apache-2.0"),
    ],
)
def test_real_seed_files(
    tmp_path: Path, data_dir: Path, kind: str, file: str, num: int, licence: str
):
    made = _read(tmp_path, data_dir / file, kind)
    rows = list(made.rows(Pair))
    assert len(rows) == num == len({row.id for row in rows}) and not made.record.dropped
    assert {(row.collection, row.licence) for row in rows} == {(kind, licence)}
    assert kind != "dolly" or not any("###" in row.instruction + row.response[-9:] for row in rows)
    assert made.record.counts["end_marks"] == (num if kind == "dolly" else 0)


def test_pairs_of_ones_own(tmp_path: Path):
    turns = [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi?"},
        {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Bye?"},
    ]  # fmt: skip
    rows = [
        {"instruction": "Why?", "response": "So."},
        {"messages": turns},
        {"instruction": "Why?", "response": "So."},
        {"instruction": "What?", "response": " \n"},
    ]
    made = _read(tmp_path, _lines(tmp_path, rows), "pairs", licence="mine")
    found = [(row.instruction, row.response, row.licence) for row in made.rows(Pair)]
    assert found == [("Why?", "So.", "mine"), ("Hi?", "Hello.", "mine")]
    assert made.record.dropped == {"empty": 1, "repeated": 1}
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(rows[:1]))
    assert _read(tmp_path, listed, "pairs").num_rows == 1


def test_sharegpt_conversations_are_seeds(tmp_path: Path):
    def row(*turns: tuple[str, str]) -> dict[str, object]:
        return {"id": "x", "conversations": [{"from": who, "value": text} for who, text in turns]}

    rows = [
        row(("system", "Be kind."), ("human", "Hi?"), ("gpt", "Hello.<|im_end|>"), ("human", "?")),
        row(("user", "Why?"), ("gpt", "So.")),
        row(("gpt", "Hello."), ("human", "Hi?")),
    ]
    made = _read(tmp_path, _lines(tmp_path, rows), "pairs")
    found = [(row.instruction, row.response) for row in made.rows(Pair)]
    assert found == [("Hi?", "Hello."), ("Why?", "So.")]
    assert made.record.dropped == {"no_exchange": 1} and made.record.counts["end_marks"] == 1


def _said(*turns: tuple[str, object]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


CONVERSATIONS = [
    _said(("assistant", "Hello."), ("user", "Hi?"), ("assistant", "Yes?")),
    _said(("user", "Hi?")),
    _said(("user", [{"type": "image_url", "text": "Hi?"}]), ("assistant", "Hello.")),
    {"conversations": [{"from": "human", "value": "Hm?"}, {"from": "tool", "value": "x"}]},
    _said(("user", [{"type": "text", "text": "So?"}]), ("assistant", "Parts.")),
    _said(("user", "Hi?"), ("assistant", None)),
    {"messages": None, "instruction": "Why?", "response": "So."},
    _said(("user", "Hi?"), ("assistant", "Hello.")),
]


def test_conversations_that_begin_otherwise_are_counted(tmp_path: Path):
    path = _lines(tmp_path, CONVERSATIONS)
    given = read_pairs.run(tmp_path, GivenPairsConfig(), folder=Source(path).open(tmp_path))
    for made in (_read(tmp_path, path, "pairs"), given):
        assert [row.instruction for row in made.rows(Pair)] == ["So?", "Why?", "Hi?"]
        assert made.record.dropped == {"no_exchange": 2, "not_text": 2, "tool_calls": 1}


def test_a_tree_with_a_deleted_opening_is_passed_over(tmp_path: Path):
    def tree(text: str, **more: object) -> dict[str, object]:
        reply = {"text": f"On {text}", "role": "assistant", "rank": 0}
        return {"prompt": {"text": text, "lang": "en", "replies": [reply], **more}}

    made = _read(tmp_path, _lines(tmp_path, [tree("a", deleted=True), tree("b")]), "oasst")
    assert [row.instruction for row in made.rows(Pair)] == ["b"] and not made.record.dropped


def test_draws_are_nested_and_exact(tmp_path: Path):
    rows = [{"instruction": f"Q{n}", "response": f"A{n}"} for n in range(50)]
    path = _lines(tmp_path, rows)
    small, large = (
        [row.id for row in _read(tmp_path, path, "pairs", num_rows=num).rows(Pair)]
        for num in (10, 20)
    )
    assert (len(small), len(large)) == (10, 20) and set(small) < set(large)
    assert small == [name for name in large if name in set(small)]  # the order of the file


@pytest.mark.parametrize(
    ("kind", "row", "text"),
    [
        ("oasst", {"text": "x"}, "line 1: no 'parent_id'"),
        ("oasst", _message("a", None, "assistant"), "has the role 'assistant'"),
        ("lima", {"conversations": [{"from": "human"}]}, "is not a list of texts"),
        ("pairs", {"instruction": "x"}, "no 'response'"),
        ("pairs", {"messages": [{"content": "x"}]}, "role = None"),
        ("self_instruct", {"instruction": "x", "instances": [{"input": 3}]}, "'input' is no str"),
    ],
)
def test_a_wrong_row_is_one_clear_line(tmp_path: Path, kind: str, row: object, text: str):
    with pytest.raises(InputError, match=f"rows.jsonl.*{text}"):
        _read(tmp_path, _lines(tmp_path, [row]), kind)
