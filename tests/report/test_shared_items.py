from pathlib import Path

from spyhop.evaluate import ItemOverlap
from spyhop.report.contamination import contamination_section, seen_items, shared_cells
from spyhop.report.sections import scores_section, student_differences
from spyhop.report.task_figures import task_results
from spyhop.schema import Score
from toys import rows_artifact

SEEN = [
    ItemOverlap(id="0", suite="s", task="t", is_exact=True, row_id="row-a", is_checked=True),
    ItemOverlap(
        id="1", suite="s", task="t", long_run="thirteen words", row_id="row-b", is_checked=True
    ),
    ItemOverlap(
        id="2", suite="s", task="t", short_run="eight words", row_id="row-c", is_checked=True
    ),
    ItemOverlap(id="3", suite="s", task="t", is_checked=True),
]


def _scores(root: Path, right: list[bool]):
    rows = [
        Score(id=str(n), suite="s", task="t", response="A", extracted="A", correct=correct,
              target="A", chance=0.5, finish_reason="stop", response_tokens=1)
        for n, correct in enumerate(right)
    ]  # fmt: skip
    return rows_artifact(root, rows)


def test_a_score_stands_beside_its_rates_and_the_score_without_them(tmp_path: Path):
    scores = _scores(tmp_path, [True, True, False, True])
    total, task = task_results("m", scores, seen_items(SEEN))
    assert total.shared == task.shared and task.interval.value == 0.75
    assert shared_cells(task) == ["25.0 / 50.0 / 75.0", "50.0 (2)", "100.0 (1)"]
    (plain, _) = task_results("m", scores)
    assert plain.shared is None and shared_cells(plain) == []
    page = "".join(scores_section({"m": scores}, seen_items(SEEN)).blocks)
    assert "25.0 / 50.0 / 75.0" in page and "without any" in page


def test_models_are_compared_pair_by_pair(tmp_path: Path):
    scores = {
        "base": _scores(tmp_path / "a", [False] * 8 + [True]),
        "student": _scores(tmp_path / "b", [True] * 9),
    }
    (row,) = student_differences(scores, "student").rows
    assert row[:4] == ["s all", "student minus base", "9", "+88.9"]
    assert row[5] == "0.00781" and row[7:9] == ["8", "0"]  # McNemar: 2 / 2^8


def test_no_item_is_clean(tmp_path: Path):
    _, task = task_results("m", _scores(tmp_path, [True]), seen_items(SEEN))
    assert shared_cells(task)[1:] == ["n/a", "n/a"]


def test_the_page_names_items_rows_and_words():
    page = "".join(contamination_section(seen_items(SEEN)).blocks)
    for text in ("row-a", "row-b", "thirteen words", "eight words", "2 (50.0 %)", "3 (75.0 %)"):
        assert text in page
