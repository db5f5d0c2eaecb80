import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import toys
from spyhop.schema import (
    Answer,
    Finding,
    Item,
    Label,
    Message,
    Pair,
    Preference,
    Prompt,
    Query,
    Question,
    Rating,
    Response,
    Row,
    Score,
    Segment,
    Verdict,
)
from spyhop.store import PartWriter, arrow_schema

PARTS = sys.modules["spyhop.store.parts"]
TURNS = [
    Message(role="system", content=""),
    Message(role="user", content="caf\u00e9\n\x00\U0001f433"),
]


class Odd(Row):
    counts: dict[str, int]
    nested: list[list[float]]
    maybe: list[str] | None = None


ROWS = [
    [Query(id="1", collection="c", task="t", query="q", target=""), toys.query(1)],
    [
        Prompt(id="1", query_id="q", collection="c", task="t", system_id="1", messages=TURNS),
        Prompt(id="2", query_id="q", collection="c", task="t", system_id="1", messages=[]),
    ],
    [toys.answer_row(1, "a", "b"), toys.answer_row(2, "a", None, error="no", target="x")],
    [
        Item(id="1", task="t", suite="s", question="?", options=["A", "B"], target="A", chance=0.5),
        Item(id="2", task="t", suite="s", question="?", target=""),
    ],
    [
        Score(id="1", suite="s", task="t", response="r", extracted=None, correct=False, target="A",
              chance=0.25, finish_reason="stop", response_tokens=3),
        Score(id="2", suite="s", task="t", response="r", extracted="", correct=True, target="A",
              chance=0.25, finish_reason="stop", response_tokens=3, error="e"),
    ],
    [
        Segment(id="1", url="u", headings=["a", ""], text="t\n", start=0, end=2, language="en",
                page_digest="d", origin="f:0", is_toxic=True, num_redacted=1),
    ],
    [
        Pair(id="1", instruction="?", response="!", tag="seed", collection="c"),
        Pair(id="2", instruction="", response="!", tag="web", collection="web", segment_id="s",
             rating=Rating(score=4.5, method="expected", judge="j", probabilities=[0.5, 0.5])),
        Pair(id="3", instruction="?", response="", tag="web", collection="web",
             rating=Rating(score=None, method="verdict", judge="j", missing="cut", error="e")),
    ],
    [Label(id="1", is_good=True), Label(id="2", is_good=False, score=2.0)],
    [
        Finding(id="1", value=None, num_rows=0, is_passed=True, text=""),
        Finding(id="2", value=0.4, low=0.3, high=0.5, limit=0.4, num_rows=9, is_passed=False,
                text="t"),
    ],
    [
        Verdict(id="1", item_id="i", judge="j", order="ab", winner="tie", reason="r"),
        Verdict(id="2", item_id="i", judge="j", score=4.5),
        Verdict(id="3", item_id="i", judge="j", order="ba", missing="failed", error="e"),
    ],
    [
        Question(id="1", suite="s", turns=["?", "why?"], references=["a", "b"], topic="math"),
        Question(id="2", suite="s", turns=["?"]),
    ],
    [
        Response(id="1", model="m", turns=["a", ""], ending="empty", origin="o"),
        Response(id="2", turns=["a"]),
    ],
    [
        Preference(id="1", messages=TURNS, chosen="a", rejected="b", chosen_origin="gold",
                   rejected_origin="m/1"),
    ],
    [
        Odd(id="1", counts={"a": 1, "": 2}, nested=[[1.5], []]),
        Odd(id="2", counts={}, nested=[], maybe=[]),
    ],
]  # fmt: skip


@pytest.mark.parametrize("rows", ROWS, ids=lambda rows: type(rows[0]).__name__)
def test_rows_come_back_as_they_went(tmp_path: Path, rows: list[Row]):
    assert list(toys.rows_artifact(tmp_path, rows).rows(type(rows[0]))) == rows


def test_every_row_type_of_the_schema_is_covered():
    covered = {type(rows[0]) for rows in ROWS}
    assert {Query, Prompt, Answer, Item, Score} <= covered
    assert {kind for kind in Row.__subclasses__() if kind.__module__ == "spyhop.schema"} <= covered


def test_columns_say_whether_they_can_be_empty():
    schema = arrow_schema(Score)
    assert schema.field("extracted").nullable and not schema.field("correct").nullable
    with pytest.raises(TypeError, match="cannot have the type"):
        arrow_schema(type("Bad", (Row,), {"__annotations__": {"x": complex}, "x": 0j}))


@pytest.mark.parametrize("num_rows", [0, 1, 5, 10, 11, 25])
def test_parts_have_a_fixed_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_rows: int):
    monkeypatch.setattr(PARTS, "PART_ROWS", 10)
    monkeypatch.setattr(PARTS, "GROUP_ROWS", 4)
    writer = PartWriter(tmp_path, arrow_schema(toys.Number))
    for value in range(num_rows):
        writer.add({"id": str(value), "value": value})
    writer.close()
    parts = sorted(tmp_path.glob("part-*.parquet"))
    sizes = [pq.ParquetFile(part).metadata.num_rows for part in parts]
    full, rest = divmod(num_rows, 10)
    assert sizes == [10] * full + ([rest] if rest or not full else [])
    values = [row["value"] for part in parts for row in pq.read_table(part).to_pylist()]
    assert values == list(range(num_rows)) and writer.num_rows == num_rows


def test_the_same_rows_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(PARTS, "PART_ROWS", 1000)
    contents = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        writer = PartWriter(folder, arrow_schema(Answer))
        for place in range(2500):
            writer.add(toys.answer_row(place, "what?", "that" * place).model_dump())
        writer.close()
        contents.append([part.read_bytes() for part in sorted(folder.iterdir())])
    assert len(contents[0]) == 3 and contents[0] == contents[1]


def test_batches_and_rows_may_be_mixed(tmp_path: Path):
    writer = PartWriter(tmp_path, arrow_schema(toys.Number))
    writer.add({"id": "a", "value": 1})
    writer.add_batch(pa.RecordBatch.from_pylist([{"id": "b", "value": 2}]))
    writer.add({"id": "c", "value": 3})
    writer.close()
    assert [row["id"] for row in pq.read_table(tmp_path).to_pylist()] == ["a", "b", "c"]


PEAK = """
import resource, sys
from pathlib import Path
from spyhop.schema import Query
from spyhop.store import PartWriter, Record, Artifact, arrow_schema
import random
num_rows, folder = int(sys.argv[1]), Path(sys.argv[2])
folder.mkdir()
writer = PartWriter(folder, arrow_schema(Query))
source = random.Random(0)
for place in range(num_rows):
    text = source.randbytes(1000).hex()
    writer.add(Query(id=str(place), collection="c", task="t", query=text, target="").model_dump())
writer.close()
record = Record(key="k", stage="s", version=1, config={}, inputs={}, digest="d", rows=num_rows)
assert sum(1 for _ in Artifact(folder, record).rows(Query)) == num_rows
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path):
    peaks = []
    for num_rows in (3_000, 15_000):
        command = [sys.executable, "-c", PEAK, str(num_rows), str(tmp_path / str(num_rows))]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks.append(int(out) / 1024)
    assert peaks[1] - peaks[0] < 12  # MB, where the rows themselves are 30 MB against 6
