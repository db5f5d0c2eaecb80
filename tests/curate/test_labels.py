import json
from pathlib import Path

import pytest

from pairing import artifact, pair
from spyhop.curate import LabelsConfig, read_labels
from spyhop.schema import InputError, Label
from spyhop.store import Source


def _read(root: Path, rows: list[object]) -> list[Label]:
    path = root / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = read_labels.run(root, LabelsConfig(), folder=Source(path).open(root))
    return list(made.rows(Label))


def test_labels_name_a_pair_by_id_or_by_its_texts(tmp_path: Path):
    texts = {"instruction": pair(1).instruction, "response": pair(1).response}
    found = _read(
        tmp_path,
        [{**texts, "good": True}, {"id": "a", "score": 4}, {"id": "b", "score": 3.5},
         {"id": "c", "good": "no", "score": "5"}],
    )  # fmt: skip
    assert [(row.id, row.is_good, row.score) for row in found] == [
        (pair(1).id, True, None), ("a", True, 4.0), ("b", False, 3.5), ("c", False, 5.0),
    ]  # fmt: skip


def test_labels_are_found_by_a_pairs_own_id_and_by_its_texts(tmp_path: Path):
    pairs = artifact(tmp_path / "pairs", [pair(1, id="7"), pair(2, id="0"), pair(3)])
    texts = {"instruction": pair(1).instruction, "response": pair(1).response}
    path = tmp_path / "labels.jsonl"
    rows = [{**texts, "good": True}, {"id": 0, "good": False}, {"id": "z", "good": True}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    folder = Source(path).open(tmp_path)
    made = read_labels.run(tmp_path, LabelsConfig(), folder=folder, pairs=pairs)
    assert [row.id for row in made.rows(Label)] == ["7", "0", "z"]
    assert made.record.counts["foreign"] == 1
    others = artifact(tmp_path / "others", [pair(4)])
    with pytest.raises(InputError, match=r"no label .of 3. belongs to a pair"):
        read_labels.run(tmp_path, LabelsConfig(), folder=folder, pairs=others)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in [rows[0], {"id": 7, "good": True}]))
    with pytest.raises(InputError, match="pair 7 is labelled twice"):
        read_labels.run(tmp_path, LabelsConfig(), folder=Source(path).open(tmp_path), pairs=pairs)


def test_labels_may_be_a_table(tmp_path: Path):
    path = tmp_path / "labels.csv"
    path.write_text("id,good,score\na,true,\nb,0,2\n")
    made = read_labels.run(tmp_path, LabelsConfig(), folder=Source(path).open(tmp_path))
    assert [(row.id, row.is_good) for row in made.rows(Label)] == [("a", True), ("b", False)]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"id": "a"}, "needs good"),
        ({"id": "a", "score": 9}, "a number from 1 to 5"),
        ({"id": "a", "good": "maybe"}, "write true or false"),
        ({"instruction": "x", "good": True}, "no 'response'"),
        ("x", "is not a row"),
    ],
)
def test_a_wrong_label_is_one_clear_line(tmp_path: Path, row: object, text: str):
    with pytest.raises(InputError, match=f"line 1.*{text}"):
        _read(tmp_path, [row])


def test_a_pair_is_labelled_once(tmp_path: Path):
    with pytest.raises(InputError, match="labelled twice"):
        _read(tmp_path, [{"id": "a", "good": True}] * 2)
