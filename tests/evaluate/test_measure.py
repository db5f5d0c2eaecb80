"""What `measure` makes of a model's replies, row by row."""

from pathlib import Path

import toys
from spyhop.evaluate import MeasureConfig, Task, measure
from spyhop.models import FakeModel, Sampling
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


def test_each_suite_is_asked_and_read_as_its_protocol_says(tmp_path: Path):
    items = {
        name: toys.rows_artifact(
            tmp_path / name,
            [
                Item(
                    id=f"{name}1",
                    suite=name,
                    task="t",
                    question="Q",
                    options=["A", "B"],
                    target="B",
                )
            ],
        )
        for name in ("plain", "capital")
    }
    capital = Task(name="capital", extract="first_capital", sampling=Sampling(max_new_tokens=9))
    config = MeasureConfig(sampling=Sampling(temperature=0.5)).for_tasks(
        [Task(name="plain"), capital]
    )
    assert config.suites["capital"].sampling == Sampling(max_new_tokens=9, temperature=0.5)
    model = FakeModel(["Based on this, I say so."] * 2)
    scores = measure.run(tmp_path, config, items=items, model=model).rows(Score)
    assert [(score.suite, score.extracted) for score in scores] == [
        ("plain", None), ("capital", "B"),
    ]  # fmt: skip


def test_settings_that_are_set_hold_for_every_benchmark():
    task = Task(name="s", system_message="Be brief.", extract="first_capital")
    assert MeasureConfig().for_tasks([task]).suites["s"].system_message == "Be brief."
    assert MeasureConfig(system_message="").for_tasks([task]).suites["s"].system_message == ""
    assert MeasureConfig().for_tasks([Task(name="s")]) == MeasureConfig()  # nothing to say
