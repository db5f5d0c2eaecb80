"""What may be said of scores: by task, by suite, and against guessing."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

import toys
from spyhop.evaluate import TaskScores, chance_sentence, task_scores
from spyhop.evaluate.rates import ALL
from spyhop.schema import Score
from spyhop.statistics import wilson

VERDICT = "Not above chance"


def _scores(
    task: str, right: int, num: int, *, suite: str = "s", chance: float = 0.25, unread: int = 0
) -> Iterator[Score]:
    for place in range(num):
        yield Score(
            id=f"{suite}-{task}-{place}", suite=suite, task=task, response="r", target="A",
            extracted="A" if place < num - unread else None, correct=place < right,
            chance=chance, finish_reason="stop", response_tokens=1,
        )  # fmt: skip


def _results(folder: Path, *groups: Iterator[Score]) -> list[TaskScores]:
    rows = [row for group in groups for row in group]
    return task_scores("m", toys.rows_artifact(folder, rows))


def test_one_task_far_above_guessing_is_no_chance(tmp_path: Path):
    said = chance_sentence(_results(tmp_path, _scores("t", 240, 250)))
    assert said.startswith("m: above guessing on 1 of 1 tasks, below it on 0;")
    assert VERDICT not in said


def test_many_tasks_near_guessing_are_chance(tmp_path: Path):
    random = Random(4)
    groups = [
        _scores(f"t{n}", sum(random.random() < 0.25 for _ in range(40)), 40) for n in range(31)
    ]
    said = chance_sentence(_results(tmp_path, *groups))
    assert "of 31 tasks" in said and "luck alone would give about 0.8 each" in said
    assert said.endswith(f"{VERDICT}: its scores say nothing about reasoning.")


@pytest.mark.parametrize(("num_above", "is_chance"), [(0, True), (1, True), (6, False)])
def test_a_lucky_task_among_many_is_still_chance(tmp_path: Path, num_above: int, is_chance: bool):
    groups = [_scores(f"t{n}", 11 if n < num_above else 4, 20) for n in range(num_above)]
    groups += [_scores(f"n{n}", 5, 20) for n in range(31 - num_above)]
    assert (VERDICT in chance_sentence(_results(tmp_path, *groups))) == is_chance


def test_a_suites_total_tells_what_no_single_task_can(tmp_path: Path):
    groups = [_scores(f"t{n}", 7, 20) for n in range(31)]  # 35 % where a guess has 25 %
    results = _results(tmp_path, *groups)
    assert {result.against_guessing for result in results if result.task != ALL} == {"near"}
    assert VERDICT not in chance_sentence(results)


def test_below_guessing_is_no_reason_to_believe_a_model(tmp_path: Path):
    said = chance_sentence(_results(tmp_path, _scores("t", 5, 100), _scores("u", 4, 100)))
    assert "below it on 2" in said and VERDICT in said


def test_every_suite_has_its_total_before_its_tasks(tmp_path: Path):
    results = _results(
        tmp_path,
        _scores("b", 3, 10, suite="two"),
        _scores("a", 4, 10, suite="two", chance=0.5, unread=2),
        _scores("a", 1, 5, suite="one", unread=5),
    )
    assert [(each.suite, each.task) for each in results] == [
        ("one", ALL), ("one", "a"), ("two", ALL), ("two", "a"), ("two", "b"),
    ]  # fmt: skip
    total = results[2]
    assert (total.n, total.rate("no answer"), total.chance) == (20, 0.1, 0.375)
    assert total.interval == wilson(7, 20) and results[1].rate("no answer") == 1
