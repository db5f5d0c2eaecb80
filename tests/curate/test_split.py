from pathlib import Path

import pytest

import pairing
import toys
from spyhop.collect import pair_id
from spyhop.curate import (
    QueriesConfig,
    SplitConfig,
    pairs_to_queries,
    queries_to_pairs,
    split,
)
from spyhop.schema import InputError, Item, NoConfig, Pair, Query
from spyhop.store import Artifact


def _pairs(folder: Path, num: int, *, said: str = "yes") -> Artifact:
    rows = [
        Pair(
            id=pair_id(f"Is {n} even?", f"{said} {n}"),
            instruction=f"Is {n} even?",
            response=f"{said} {n}",
            tag="seed",
            collection="toy",
        )
        for n in range(num)
    ]
    return toys.rows_artifact(folder, rows)


def _ids(made: Artifact) -> list[str]:
    return [row.id for row in made.rows(Pair)]


def test_two_parts_are_the_whole_and_share_no_instruction(tmp_path: Path):
    both = {"a": _pairs(tmp_path / "a", 300), "b": _pairs(tmp_path / "b", 300, said="no")}
    rest = split.run(tmp_path, SplitConfig(held_out_every_nth=5), pairs=both)
    held = split.run(tmp_path, SplitConfig(held_out_every_nth=5, split="held_out"), pairs=both)
    assert sorted(_ids(rest) + _ids(held)) == sorted(_ids(both["a"]) + _ids(both["b"]))
    asked = [{row.instruction for row in made.rows(Pair)} for made in (rest, held)]
    assert not asked[0] & asked[1] and 30 <= len(asked[1]) <= 90


def test_draws_are_nested_and_never_hold_what_is_held_out(tmp_path: Path):
    pairs = {"a": _pairs(tmp_path / "a", 200)}
    held = split.run(tmp_path, SplitConfig(held_out_every_nth=4, split="held_out"), pairs=pairs)
    draws = [
        set(
            _ids(
                split.run(
                    tmp_path, SplitConfig(held_out_every_nth=4, num_rows=n, seed=7), pairs=pairs
                )
            )
        )
        for n in (10, 40)
    ]
    assert [len(each) for each in draws] == [10, 40] and draws[0] < draws[1]
    assert not draws[1] & set(_ids(held))
    other = split.run(tmp_path, SplitConfig(held_out_every_nth=4, num_rows=40, seed=8), pairs=pairs)
    assert set(_ids(other)) != draws[1]


def test_more_than_there_are_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="30 pairs, fewer than num_rows = 31"):
        split.run(tmp_path, SplitConfig(num_rows=31), pairs={"one": _pairs(tmp_path / "a", 30)})


def test_pairs_become_queries_without_gold_answers(tmp_path: Path):
    pairs = _pairs(tmp_path / "a", 2)
    rows = list(pairs_to_queries.run(tmp_path, QueriesConfig(), pairs={"one": pairs}).rows(Query))
    assert [row.id for row in rows] == _ids(pairs)
    assert {row.target for row in rows} == {""} and rows[1].query == "Is 1 even?"


def test_queries_become_pairs_with_their_gold_answers(tmp_path: Path):
    rows = [toys.query(1), toys.query(2), toys.query(1).model_copy(update={"id": "again"})]
    rows.append(toys.query(3).model_copy(update={"target": " "}))
    made = queries_to_pairs.run(
        tmp_path, NoConfig(), queries={"one": toys.rows_artifact(tmp_path / "q", rows)}
    )
    assert [(row.instruction, row.response) for row in made.rows(Pair)] == [
        ("Question 1?", "1"),
        ("Question 2?", "2"),
    ]
    assert made.record.dropped == {"repeated": 1, "no_target": 1}


def test_pairs_that_hold_an_item_are_in_neither_part(tmp_path: Path):
    question = "Which of the two loaves that stand on the table was baked before the other one?"
    item = Item(id="i", task="t", suite="s", question=question, target="A")
    rows = [pairing.pair(n) for n in range(20)]
    rows.append(pairing.pair(20, response=f"Well. {question} The left one."))
    made = [
        split.run(
            tmp_path,
            SplitConfig(held_out_every_nth=3, split=name),
            pairs={"one": pairing.artifact(tmp_path / "p", rows)},
            items={"one": toys.rows_artifact(tmp_path / "i", [item])},
        )
        for name in ("train", "held_out")
    ]
    assert sorted(_ids(made[0]) + _ids(made[1])) == sorted(row.id for row in rows[:-1])
    assert sorted(len(each.record.dropped) for each in made) == [0, 1]
