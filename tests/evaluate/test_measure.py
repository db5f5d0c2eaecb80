"""What `measure` makes of a model's replies, row by row."""

from pathlib import Path

import toys
from spyhop.evaluate import MeasureConfig, measure
from spyhop.models import FakeModel
from spyhop.schema import Item, Score


def _items(folder: Path, num: int) -> dict[str, toys.Artifact]:
    rows = [
        Item(id=name, suite="s", task="t", question=name, options=["A", "B"], target="B")
        for name in map(str, range(num))
    ]
    return {"s": toys.rows_artifact(folder, rows)}


def test_a_model_that_names_no_option_has_chosen_none(tmp_path: Path):
    """Served models tell the likeliest pieces only: no option may be among them."""
    model = FakeModel([], choices=[[], [0.2, 0.8], [0.9, 0.1]])
    made = measure.run(
        tmp_path, MeasureConfig(method="choose"), items=_items(tmp_path / "items", 3), model=model
    )
    scores = list(made.rows(Score))
    assert [score.extracted for score in scores] == [None, "B", "A"]
    assert [score.correct for score in scores] == [False, True, False]
    assert not any(score.error for score in scores)
