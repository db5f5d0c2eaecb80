from pathlib import Path

import pytest

import toys
from spyhop.augment import (
    FilterAnswersConfig,
    MeasureLossesConfig,
    filter_answers,
    measure_errors,
    measure_losses,
)
from spyhop.collect import Difficulty, keep_recorded
from spyhop.models import Local, ModelUse
from spyhop.models.replay import Recorded
from spyhop.schema import Answer, NoConfig, Prompt
from spyhop.store import Source


def test_the_share_of_wrong_answers(tmp_path: Path):
    rows = [
        toys.answer_row(1, "Q", "The answer is 4.", target="4", query_id="q1"),
        toys.answer_row(2, "Q", "The answer is 5.", target="4", query_id="q1"),
        toys.answer_row(3, "Q", "The answer is 5.", target="4", query_id="q2"),
        toys.answer_row(4, "Q", None, target="4", query_id="q3", error="no"),
        toys.answer_row(5, "Q", "Well.", query_id="q4"),
    ]
    made = measure_errors.run(tmp_path, NoConfig(), answers=toys.artifact_of(tmp_path, rows))
    assert {row.id: row.value for row in made.rows(Difficulty)} == {"q1": 0.5, "q2": 1.0}


def test_losses_of_a_model(tmp_path: Path, tiny_folder: Path):
    queries = toys.rows_artifact(tmp_path / "q", [toys.query(n) for n in range(5)])
    model = ModelUse(Local(name="tiny"), Source(tiny_folder).open(tmp_path))
    made = measure_losses.run(tmp_path, MeasureLossesConfig(), queries=queries, model=model)
    found = list(made.rows(Difficulty))
    assert [row.id for row in found] == [f"q{n}" for n in range(5)]
    assert all(0 < row.value < 20 for row in found)
    assert len({row.value for row in found}) > 1


def test_parts_of_the_answers(tmp_path: Path):
    rows = [
        toys.answer_row(n, "Q", "A", system_id=str(n % 2), query_id=f"q{n}") for n in range(400)
    ]
    answers = toys.artifact_of(tmp_path, rows)

    def ids(**changes: object) -> set[str]:
        config = FilterAnswersConfig.model_validate(changes)
        return {
            row.id for row in filter_answers.run(tmp_path, config, answers=answers).rows(Answer)
        }

    assert ids(system_ids=["1"]) == {row.id for row in rows if row.system_id == "1"}
    quarter, half = ids(every_nth=4), ids(every_nth=2)
    assert quarter < half and 60 < len(quarter) < 140 and 150 < len(half) < 250
    assert len(ids(every_nth=2, seed=1) & half) == pytest.approx(len(half) / 2, rel=0.4)


def test_parts_by_task_and_by_the_queries_of_prompts(tmp_path: Path):
    rows = [toys.answer_row(n, "Q", "A", task=f"t{n % 40}") for n in range(200)]
    answers = toys.artifact_of(tmp_path, rows)
    kept = filter_answers.run(tmp_path, FilterAnswersConfig(tasks_nth=4), answers=answers)
    tasks = {row.task for row in kept.rows(Answer)}
    assert 3 < len(tasks) < 20 and kept.num_rows == 5 * len(tasks)  # whole tasks
    prompts = [
        Prompt(**{**rows[n].model_dump(include=set(Prompt.model_fields)), "id": f"other{n}"})
        for n in (3, 50)
    ]
    like = toys.rows_artifact(tmp_path / "p", prompts)
    same = filter_answers.run(tmp_path, FilterAnswersConfig(), answers=answers, like=like)
    assert [row.id for row in same.rows(Answer)] == ["a3", "a50"]
    asked = prompts[1].messages[-1].content
    recorded = toys.rows_artifact(
        tmp_path / "r", [Recorded(id="r", query=f"{asked}!", response="Because.")]
    )
    assert keep_recorded.run(tmp_path, NoConfig(), prompts=like, recorded=recorded).num_rows == 0
