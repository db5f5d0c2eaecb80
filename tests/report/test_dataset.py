import json
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from spyhop.report import DatasetConfig, dataset
from spyhop.report.dataset import is_open
from spyhop.schema import Query
from spyhop.store import Artifact
from toys import answer_row, artifact_of, rows_artifact


def _dataset(root: Path, *licences: str) -> Artifact:
    queries = [
        Query(id=f"q{n}", collection="cot", task="toy", query="Q", target="A", licence=licence,
              origin=f"f:{n}")
        for n, licence in enumerate(licences)
    ]  # fmt: skip
    rows = [answer_row(n, f"Question {n}", f"Answer {n}") for n in range(len(licences))]
    rows.append(answer_row(99, "failed", None, error="no"))
    answers = artifact_of(root, rows)
    given = rows_artifact(root / "q", queries)
    return dataset.run(root, DatasetConfig(title="Mine"), answers={"one": answers}, queries=given)


def test_both_files_hold_the_same_conversations(tmp_path: Path):
    made = _dataset(tmp_path, "MIT", "MIT")
    lines = [json.loads(line) for line in (made.path / "train.jsonl").read_text().splitlines()]
    assert pq.read_table(made.path / "data" / "train.parquet").to_pylist() == lines
    assert lines[1]["messages"] == [{"role": "user", "content": "Question 1"},
                                    {"role": "assistant", "content": "Answer 1"}]  # fmt: skip
    assert (lines[1]["origin"], lines[1]["license"]) == ("f:1", "MIT")
    assert made.record.counts == {"failed": 1, "rows": 2, "licence/MIT": 2}


def test_one_closed_licence_marks_the_whole(tmp_path: Path):
    card = (_dataset(tmp_path / "a", "MIT", "CC BY-NC 4.0", "").path / "README.md").read_text()
    assert "license: other" in card and "CC BY-NC 4.0, unknown" in card
    card = (_dataset(tmp_path / "b", "MIT").path / "README.md").read_text()
    assert "license: mit" in card and "Not free" not in card


@pytest.mark.parametrize(
    ("licence", "expected"),
    [("MIT", True), ("CC BY-SA 4.0", True), ("CC BY-NC 4.0", False), ("cc-by-nc-nd-4.0", False),
     ("unknown", False), ("Non-Commercial", False), ("non-commercial use only", False),
     ("cc_by_nc", False), ("(CC BY-NC)", False), ("BY-NC/4.0", False), ("CC BY-NC/4.0", False),
     ("Unknown", False), ("none", False), ("n/a", False), ("", False), ("research only", False),
     ("Academic research", False), ("MIT, for research", False), ("cc by 4.0; Unknown", False),
     ("CC BY-SA 4.0; MSR-LA; RACE license; Apache", False), ("CC BY-SA; GFDL", True),
     ("Dedicated License (https://x.example/MIT/LICENSE)", False), ("cc0-1.0", True),
     ("LibriVox: Public Domain (https://librivox.org/pages/public-domain/)", True),
     ("CDLA Permissive 2.0", True), ("Apache 2.0", True), ("bsd-3-clause", True),
     ("odc-by", True), ("permitted", False), ("cc_by_4.0", True)],
)  # fmt: skip
def test_open_licences(licence: str, expected: bool):
    assert is_open(licence) is expected


def test_a_ready_answer_has_a_licence_and_an_origin_of_its_own(tmp_path: Path):
    ready = answer_row(0, "Question", "Answer").model_copy(
        update={"licence": "MIT", "origin": "orca.jsonl:1"}
    )
    answers = artifact_of(tmp_path, [ready])
    none = rows_artifact(
        tmp_path / "q", [Query(id="other", collection="c", task="t", query="Q", target="")]
    )
    given = DatasetConfig(title="Mine")
    made = dataset.run(tmp_path, given, answers={"one": answers}, queries=none)
    row = json.loads((made.path / "train.jsonl").read_text())
    assert (row["license"], row["origin"]) == ("MIT", "orca.jsonl:1")
    assert "Not free" not in (made.path / "README.md").read_text()


def test_datasets_loads_it_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = _dataset(tmp_path, "MIT", "MIT")
    loaded = datasets.load_dataset(str(made.path), split="train", cache_dir=str(tmp_path / "c"))
    assert loaded[0]["messages"][-1] == {"role": "assistant", "content": "Answer 0"}
    assert len(loaded) == 2
    for form, name in (("json", "train.jsonl"), ("parquet", "data/train.parquet")):
        file = datasets.load_dataset(
            form, data_files=str(made.path / name), split="train", cache_dir=str(tmp_path / form)
        )
        assert file.to_list() == loaded.to_list()
