from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from scipy.stats import chisquare

from spyhop.collect import Columns, Difficulty, DrawConfig, SourceTable, Stratum, draw
from spyhop.collect.draw import _thresholds
from spyhop.schema import InputError, Query, RecipeError
from spyhop.stage import Runtime
from spyhop.store import Artifact, Source, row_id
from spyhop.text.choices import has_options
from toys import rows_artifact

TABLE = SourceTable(collection="flan2021", columns=Columns(template="kind"), licence="MIT")


def _rows(sizes: dict[str, int]) -> list[dict[str, str]]:
    return [
        {"inputs": f"{task}, question {n}?", "targets": f"{n}", "task": task, "kind": "zs_opt"}
        for task, num in sizes.items()
        for n in range(num)
    ]


def _write(folder: Path, rows: list[dict[str, str]], *, files: int = 1, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    order = np.random.default_rng(seed).permutation(len(rows))
    for number, places in enumerate(np.array_split(order, files)):
        table = pa.Table.from_pylist([rows[place] for place in places])
        pq.write_table(table, folder / f"{chr(ord('z') - number)}.parquet", row_group_size=97)


def _draw(root: Path, folder: Path, threads: int = 1, **changes) -> Artifact:
    config = DrawConfig(**{"table": TABLE, **changes})
    source = Source(folder).open(root)
    return draw.run(root, config, runtime=Runtime(threads=threads), queries={"one": source})


def _drawn(made: Artifact) -> list[tuple[str, str, str]]:
    return [(row.id, row.task, row.query) for row in made.rows(Query)]


SIZES = {"large": 3000, "middle": 500, "small": 40}


def test_the_same_rows_whatever_the_files_and_threads(tmp_path: Path):
    rows = _rows(SIZES)
    _write(tmp_path / "a", rows)
    _write(tmp_path / "b", rows, files=7, seed=5)
    one = _draw(tmp_path / "1", tmp_path / "a", num_rows=400)
    two = _draw(tmp_path / "2", tmp_path / "b", threads=3, num_rows=400)
    assert _drawn(one) == _drawn(two)
    assert one.num_rows == 400
    assert Counter(row.task for row in one.rows(Query)) == {
        task: one.record.counts[f"drawn/{task}"] for task in SIZES
    }
    assert one.record.counts["found/large"] == 3000 and one.record.counts["drawn/small"] == 40


def test_rows_are_queries_with_all_they_need(tmp_path: Path):
    rows = [{"inputs": " Which?\nOptions:\n- a\n- b ", "targets": "a", "task": "t",
             "kind": "zs_opt"},
            {"inputs": "Why?", "targets": None, "task": "t", "kind": "zs_noopt"}]  # fmt: skip
    (tmp_path / "a").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a" / "x.parquet")
    found = {row.query: row for row in _draw(tmp_path, tmp_path / "a").rows(Query)}
    which, why = found["Which?\nOptions:\n- a\n- b"], found["Why?"]
    assert which.id == row_id("flan2021", "t", which.query, "a")
    assert which.multiple_choice and not why.multiple_choice
    assert (which.origin, why.origin) == ("x.parquet:1", "x.parquet:2")
    assert (which.licence, which.template, why.target) == ("MIT", "zs_opt", "")


def test_a_draw_from_queries_is_that_from_the_table(tmp_path: Path):
    _write(tmp_path / "a", _rows(SIZES))
    everything = _draw(tmp_path, tmp_path / "a")
    again = draw.run(tmp_path, DrawConfig(num_rows=300), queries={"one": everything})
    assert _drawn(again) == _drawn(_draw(tmp_path, tmp_path / "a", num_rows=300))


def test_a_smaller_draw_is_part_of_a_larger_one(tmp_path: Path):
    _write(tmp_path / "a", _rows(SIZES))
    nested = [
        set(_drawn(_draw(tmp_path, tmp_path / "a", num_rows=n))) for n in (10, 200, 201, 3000)
    ]
    assert all(one < two for one, two in pairwise(nested))
    other = set(_drawn(_draw(tmp_path, tmp_path / "a", num_rows=200, seed=1)))
    assert 20 < len(other & nested[1]) < 100  # the 40 of the small task, and some by chance


def test_the_rows_of_a_task_are_drawn_evenly(tmp_path: Path):
    _write(tmp_path / "a", _rows({"t": 50}))
    times: Counter[str] = Counter()
    for seed in range(40):
        times.update(
            q for _, _, q in _drawn(_draw(tmp_path, tmp_path / "a", num_rows=10, seed=seed))
        )
    assert chisquare([times[row["inputs"]] for row in _rows({"t": 50})]).pvalue > 1e-4


def test_caps_exclusions_and_values_asked_for(tmp_path: Path):
    rows = _rows({"bigbench_x": 30, "large": 900, "small": 12})
    rows += [{**row, "kind": "fs_opt"} for row in _rows({"large": 50})]
    _write(tmp_path / "a", rows)
    table = TABLE.model_copy(update={"only": {"kind": ("zs_*",)}})
    made = _draw(tmp_path, tmp_path / "a", max_per_task=300, exclude=("bigbench*",), table=table)
    assert Counter(row.task for row in made.rows(Query)) == {"large": 300, "small": 12}
    assert made.record.counts["passed_over/excluded_task"] == 30
    assert made.record.counts["passed_over/other_value"] == 50
    with pytest.raises(RecipeError, match="nothing to draw from; passed over"):
        _draw(tmp_path, tmp_path / "a", exclude=("*",))


def test_rows_of_one_text_are_drawn_too_and_have_ids_of_their_own(tmp_path: Path):
    rows = _rows({"t": 1}) * 2000 + _rows({"u": 200})
    _write(tmp_path / "a", rows, files=3)
    made = _draw(tmp_path, tmp_path / "a", max_per_task=50)
    found = list(made.rows(Query))
    assert Counter(row.task for row in found) == {"t": 50, "u": 50}
    assert len({row.id for row in found}) == 100


def test_strata_are_drawn_from_evenly(tmp_path: Path):
    rows = [{"inputs": "word " * (3 if n % 10 else 30) + str(n), "targets": "", "task": "t",
             "kind": ""} for n in range(2000)]  # fmt: skip
    _write(tmp_path / "a", rows)
    made = _draw(
        tmp_path, tmp_path / "a", num_rows=300, strata=(Stratum(by="length", edges=(10,)),)
    )
    lengths = Counter(len(row.query.split()) > 10 for row in made.rows(Query))
    assert 110 < lengths[True] <= 200 and lengths[True] + lengths[False] == 300
    assert made.record.counts["stratum/length from 10"] == lengths[True]


def test_strata_of_difficulty(tmp_path: Path):
    _write(tmp_path / "a", _rows({"t": 400}))
    queries = _draw(tmp_path, tmp_path / "a")
    known = [row for row in queries.rows(Query)][:300]
    rated = [Difficulty(id=row.id, value=float(row.query.endswith("7?"))) for row in known]
    difficulty = rows_artifact(tmp_path / "rated", rated)
    config = DrawConfig(num_rows=60, strata=(Stratum(by="difficulty", edges=(0.5,)),))
    made = draw.run(tmp_path, config, queries={"one": queries}, difficulty=difficulty)
    hard = {row.id for row in rated if row.value}
    unknown = {row.id for row in queries.rows(Query)} - {row.id for row in rated}
    ids = {row.id for row in made.rows(Query)}
    assert len(ids & hard) >= 10 and len(ids & unknown) >= 10 and len(ids) == 60
    with pytest.raises(RecipeError, match="need queries with ids, and the input `difficulty`"):
        draw.run(tmp_path, config, queries={"one": queries})


@pytest.mark.parametrize(
    ("break_", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), r"z\.parquet: not a whole Parquet"),
        (lambda path: path.write_bytes(b""), r"z\.parquet: not a whole Parquet"),
        (
            lambda path: pq.write_table(pa.table({"inputs": ["a"]}), path),
            r"z\.parquet: no column '\w+'; found: inputs$",
        ),
    ],
    ids=["cut", "empty", "column"],
)
def test_a_broken_file_is_one_clear_line(tmp_path: Path, break_, message: str):
    _write(tmp_path / "a", _rows(SIZES))
    break_(tmp_path / "a" / "z.parquet")
    with pytest.raises(InputError, match=message) as caught:
        _draw(tmp_path, tmp_path / "a", num_rows=10)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("collect.*"))


def test_a_table_may_hold_lists_of_which_the_first_counts(tmp_path: Path):
    targets = [["a", "b"], [], None, ["c"]]
    rows = [{"inputs": f"Q{n}", "targets": each, "task": n} for n, each in enumerate(targets)]
    _write(tmp_path / "a", rows)
    made = _draw(tmp_path / "1", tmp_path / "a", table=SourceTable(collection="c"))
    found = {row.query: (row.target, row.task) for row in made.rows(Query)}
    assert found == {"Q0": ("a", "0"), "Q1": ("", "1"), "Q2": ("", "2"), "Q3": ("c", "3")}


@pytest.mark.parametrize("value", [{"a": 1}, [[1]]])
def test_a_column_that_is_no_text_is_one_clear_line(tmp_path: Path, value: object):
    _write(tmp_path / "a", [{"inputs": "Q", "targets": value, "task": "t"}])
    with pytest.raises(InputError, match=r"z\.parquet: column 'targets' \(.*\) is not text \("):
        _draw(tmp_path / "1", tmp_path / "a", table=SourceTable(collection="c"))


def test_a_topic_that_the_engine_cannot_find_is_refused():
    with pytest.raises(ValidationError, match=r"'\(\?=x\)' is not a pattern of RE2"):
        Stratum(by="topic", topics=("(?=x)",))


def test_thresholds_hold_back_rows_but_none_that_is_wanted():
    found, wanted = np.array([10, 10**6, 10**6, 0]), np.array([10, 100, 0, 0])
    shares = _thresholds(found, wanted) / 2.0**64
    assert shares[0] == 1 and 100e-6 < shares[1] < 200e-6 and shares[2] == shares[3] == 0


def test_tables_and_readers_tell_multiple_choice_alike(tmp_path: Path):
    texts = ["Pick.\nOPTIONS:\n- a", "x (A) one (B) two", "a) yes\nb) no", "My options: none",
             "Answer choices: x", "The options are:\n1", "(a) only", "optional: no",
             "\u00e4options:", "Here are the options:\n", "A. one\nB. two",
             "x\n\n  (a) 1\n  (b) 2"]  # fmt: skip
    rows = [{"inputs": text, "targets": "", "task": "t", "kind": ""} for text in texts]
    _write(tmp_path / "a", rows)
    made = _draw(tmp_path, tmp_path / "a")
    told = {row.query: row.multiple_choice for row in made.rows(Query)}
    assert told == {text.strip(): has_options(text.strip()) for text in texts}
    assert sum(told.values()) == 8
