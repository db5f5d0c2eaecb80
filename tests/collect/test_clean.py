"""Copies and test items among the queries."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from spyhop.collect import (
    Columns,
    DistinctConfig,
    FlanCotConfig,
    RecordsConfig,
    decontaminate,
    distinct,
    read_flan_cot,
    read_records,
)
from spyhop.evaluate import ItemsConfig, read_items, read_suite
from spyhop.schema import Item, Query
from spyhop.store import Artifact, Source
from spyhop.text.contamination import ContaminationConfig
from spyhop.text.overlap import NearConfig
from toys import rows_artifact

LONG = "the quick brown fox jumps over the lazy dog while seven small birds sing in a tall tree"


def _query(n: int, text: str, task: str = "t", target: str = "") -> Query:
    return Query(id=f"{n:016x}", collection="c", task=task, query=text, target=target)


def _distinct(root: Path, *rows: Query, **changes: Any) -> Artifact:
    given = rows_artifact(root / "given", rows)
    return distinct.run(root, DistinctConfig(**changes), queries={"one": given})


def _drops(artifact: Artifact) -> list[tuple[str, dict[str, Any]]]:
    rows = [row for part in sorted((artifact.path / "dropped").glob("*.parquet"))
            for row in pq.read_table(part).to_pylist()]  # fmt: skip
    return [(row["reason"], json.loads(row["row"])) for row in rows]


def _texts(artifact: Artifact) -> list[str]:
    return [row.query for row in artifact.rows(Query)]


def test_exact_copies_go_wherever_they_stand(tmp_path: Path):
    rows = [_query(1, "What is it?"), _query(2, " What  is\nit? ", task="u"),
            _query(3, "And this?"), _query(4, " "), _query(5, "what is it")]  # fmt: skip
    made = _distinct(tmp_path, *rows)
    assert _texts(made) == ["What is it?", "And this?", "what is it"]
    assert made.record.dropped == {"empty": 1, "exact": 1}
    assert made.record.counts["exact/c"] == 1
    (reason, row), _ = _drops(made)
    assert (reason, row["kept_id"], row["similarity"]) == ("exact", f"{1:016x}", 1.0)
    every = _distinct(tmp_path / "x", *rows, exact_copies="ignore", near_copies="ignore")
    assert every.record.dropped == {"empty": 1} and every.num_rows == 4


@pytest.mark.parametrize(
    ("one", "two", "num_rows"),
    [
        ("What is 7 + 3?", "What is 7 - 3?", 2),
        ("Is 5 < 3?", "Is 5 > 3?", 2),
        ("[ { ( ) }", "( [ ] {", 2),
        ("in C", "in C#", 2),
        ("US or us?", "us or US?", 2),
        ("a\u0301", "\u00e1", 1),
        ("one\u00a0two", "one two", 1),
    ],
)
def test_copies_are_equal_texts_not_equal_words(one: str, two: str, num_rows: int, tmp_path: Path):
    made = _distinct(tmp_path, _query(1, one), _query(2, two), near_copies="ignore")
    assert made.num_rows == num_rows


def test_another_gold_answer_makes_another_row(tmp_path: Path):
    golds = ["4", "4.0", "It is 2 + 2.\n#### 4", "5", "[1, 2)", "(1, 2]"]
    rows = [_query(n, "How many?", target=gold) for n, gold in enumerate(golds)]
    made = _distinct(tmp_path, *rows, near_copies="ignore")
    assert [row.target for row in made.rows(Query)] == ["4", "5", "[1, 2)", "(1, 2]"]


def test_no_dyck_word_is_a_copy_of_another(data_dir: Path, tmp_path: Path):
    path = data_dir / "bbh/bbh/dyck_languages.json"
    rows = [
        _query(n, row["input"], target=row["target"])
        for n, row in enumerate(json.loads(path.read_text())["examples"])
    ]
    assert len(rows) == _distinct(tmp_path, *rows).num_rows == 250


def test_near_copies_go_within_a_task_and_for_one_answer(tmp_path: Path):
    near = f"{LONG} nearby"
    rows = [_query(1, LONG, target="a"), _query(2, near, target="a"),
            _query(3, near + " now", target="b"), _query(4, near + " too", task="u")]  # fmt: skip
    made = _distinct(tmp_path, *rows, near_copies="drop")
    assert [row.id for row in made.rows(Query)] == [f"{n:016x}" for n in (1, 3, 4)]
    ((reason, row),) = _drops(made)
    assert reason == "near" and row["kept_id"] == f"{1:016x}" and 0.7 < row["similarity"] < 1
    counted = _distinct(tmp_path / "x", *rows)
    assert counted.num_rows == 4 and counted.record.counts == {"near/c": 1}
    assert not _distinct(tmp_path / "x", *rows, near_copies="ignore").record.counts


def test_what_a_task_gives_all_its_queries_is_left_out(tmp_path: Path):
    rows = [_query(n, f"{LONG} {LONG}. Word {n}: {n * 7919}{n}") for n in range(20)]
    assert _distinct(tmp_path / "a", *rows, near_copies="drop").num_rows == 20
    few = _distinct(tmp_path / "b", *rows[:5], near_copies="drop", near=NearConfig(threshold=0.5))
    assert few.num_rows == 1, "few rows have no frame"


def _item(name: str, question: str) -> Item:
    return Item(id=name, task="toy", suite="bbh", question=question, target="A")


def test_test_items_go_and_are_told(tmp_path: Path):
    items = rows_artifact(tmp_path / "items", [_item("i1", f"Q: {LONG}?"), _item("i2", "short")])
    rows = [_query(1, f"Tell me: {LONG}."), _query(2, "something else"),
            _query(3, LONG[:40])]  # fmt: skip
    given = rows_artifact(tmp_path / "given", rows)
    made = decontaminate.run(tmp_path, ContaminationConfig(), queries=given, items={"one": items})
    assert [row.id for row in made.rows(Query)] == [f"{n:016x}" for n in (2, 3)]
    assert made.record.dropped == {"contaminated/bbh": 1}
    assert made.record.counts == {
        "contaminated/c": 1, "items": 2, "items_found": 1, "items_unchecked": 1
    }  # fmt: skip
    ((_, row),) = _drops(made)
    assert (row["item_id"], row["suite"], row["item_task"]) == ("i1", "bbh", "toy")
    assert row["words"] in LONG and len(row["words"].split()) == 13


def test_all_copies_of_gsm8k_in_flan_cot_are_found(data_dir: Path, tmp_path: Path):
    cot = read_flan_cot.run(
        tmp_path, FlanCotConfig(), folder=Source(data_dir / "flan_cot" / "cot_data").open(tmp_path)
    )
    named = Columns(query="question", target="answer", task="")
    config = RecordsConfig(collection="gsm8k", pattern="train.jsonl", columns=named)
    gsm8k = read_records.run(tmp_path, config, folder=Source(data_dir / "gsm8k").open(tmp_path))
    made = distinct.run(
        tmp_path, DistinctConfig(near_copies="ignore"), queries={"one": cot, "two": gsm8k}
    )
    assert made.record.counts == {"exact/cot": 1, "exact/gsm8k": 7473}
    assert made.num_rows == 33_443 - 1


@pytest.mark.slow
def test_items_of_agieval_in_flan_cot(data_dir: Path, tmp_path: Path):
    cot = read_flan_cot.run(
        tmp_path, FlanCotConfig(), folder=Source(data_dir / "flan_cot" / "cot_data").open(tmp_path)
    )
    agieval = read_items.run(
        tmp_path,
        ItemsConfig(task=read_suite("agieval")[0]),
        folder=Source(data_dir / "agieval" / "v1").open(tmp_path),
    )
    made = decontaminate.run(tmp_path, ContaminationConfig(), queries=cot, items={"one": agieval})
    found = [row for _, row in _drops(made)]
    assert {(row["task"], row["item_task"]) for row in found} == {("aqua", "aqua-rat")}
    assert all(row["words"] for row in found)
