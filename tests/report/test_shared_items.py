from pathlib import Path

from spyhop.evaluate import ItemOverlap, task_scores
from spyhop.report.evaluation import scores_sections
from spyhop.report.page import _result
from spyhop.report.sections import _in_short, contamination_section
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
BY_ID = {row.id: row for row in SEEN}


def _scores(root: Path, right: list[bool]):
    rows = [
        Score(id=str(n), suite="s", task="t", response="A", extracted="A", correct=correct,
              target="A", chance=0.5, finish_reason="stop", response_tokens=1)
        for n, correct in enumerate(right)
    ]  # fmt: skip
    return rows_artifact(root, rows)


def test_a_score_has_its_shares_in_training_and_the_score_without_them(tmp_path: Path):
    scores = _scores(tmp_path, [True, True, False, True])
    total, task = (_result(each) for each in task_scores("m", scores, BY_ID))
    assert total["in_training"] == task["in_training"] and task["accuracy"] == 0.75
    assert task["in_training"] == {
        "exact": 0.25, "long": 0.5, "num_without_long": 2, "without_long": 0.5,
        "short": 0.75, "num_clean": 1, "clean": 1.0,
    }  # fmt: skip
    (plain, _) = task_scores("m", scores)
    assert _result(plain)["in_training"] is None


def test_a_student_is_compared_with_every_other_model(tmp_path: Path):
    scores = {
        "student": _scores(tmp_path / "b", [True] * 9),
        "base": _scores(tmp_path / "a", [False] * 8 + [True]),
    }
    _, suite = scores_sections(scores, {}, student="student")
    page = "".join(suite.blocks)
    assert "student minus base" in page and "base minus student" not in page
    assert "+88.9" in page and "0.00781" in page  # McNemar: 2 / 2^8


def test_no_item_is_clean(tmp_path: Path):
    _, task = task_scores("m", _scores(tmp_path, [True]), BY_ID)
    assert _result(task)["in_training"]["clean"] is None


def test_the_page_names_items_rows_and_words():
    page = "".join(contamination_section(BY_ID).blocks)
    for text in ("row-a", "row-b", "thirteen words", "eight words", "2 (50.0 %)", "3 (75.0 %)"):
        assert text in page


def test_dropped_rows_of_any_shape_are_shown_in_short():
    shown = [
        _in_short(
            {"id": "a", "query": "How\n many?", "suite": "s", "item_id": "7", "words": "how many"}
        ),
        _in_short({"url": "u", "headings": ["One", "Two"], "text": "so " * 200}),
        _in_short({"headings": 3, "text": {"a": 1}}),
        _in_short({"url": None}),
    ]
    assert shown[0] == "a: like s 7: how many"
    assert shown[1].startswith("u: One > Two: so so") and shown[1].endswith("...")
    assert shown[2:] == ["{'a': 1}", '{"url": null}']
