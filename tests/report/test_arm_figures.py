"""Accuracies and differences of arms, from rows written by hand."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spyhop.report.arm_figures import (
    ALL,
    ArmPair,
    ArmRun,
    Experiment,
    Measured,
    points,
    verdict,
)
from spyhop.schema import Score
from spyhop.statistics import Interval, mcnemar, wilson

FAMILIES = ("coin", "lift")
CHANCE = {"coin": 0.5, "lift": 0.1}
PAIR = ArmPair(first="one", second="two")


def _measured(
    arm: str, seed: int, right: Sequence[int], share: float = 1.0, tokens: int = 1_000
) -> Measured:
    """Scores of as many items as `right` is long, one family after the other in turn."""
    scores = tuple(
        Score(
            id=f"i{place}", suite="world", task=FAMILIES[place % 2], response="", target="A",
            extracted="A", correct=bool(is_right), chance=CHANCE[FAMILIES[place % 2]],
            finish_reason="stop", response_tokens=1,
        )
        for place, is_right in enumerate(right)
    )  # fmt: skip
    run = ArmRun(setting="core", arm=arm, seed=seed, phases=(), share=share)
    return Measured(run=run, scores=scores, tokens=round(tokens * share), seconds=2.0 + seed)


def _experiment(**arms: Sequence[Sequence[int]]) -> Experiment:
    """Each arm as a list of its seeds' items."""
    measured = [
        _measured(arm, seed, right)
        for arm, seeds in arms.items()
        for seed, right in enumerate(seeds)
    ]
    return Experiment("core", measured, {"one": "the first"}, [PAIR])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=5))
def test_intervals_hold_their_value_and_lie_between_0_and_1(grid: list[list[bool]]):
    experiment = _experiment(one=grid)
    for family in (ALL, *FAMILIES):
        found = experiment.cell("one", family).interval
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.high - found.low > 0.05  # twelve items never tell more


@pytest.mark.parametrize("right", [0, 1])
def test_seeds_that_agree_are_not_certainty(right: int):
    cell = _experiment(one=[[right] * 40] * 5).cell("one", ALL)
    assert cell.interval.value == right and cell.n == 200
    assert cell.interval == wilson(40 * right, 40)  # five seeds, yet 40 items
    assert cell.interval.high - cell.interval.low > 0.05


def test_one_seed_has_wilsons_interval():
    experiment = _experiment(one=[[1] * 30 + [0] * 10])
    assert experiment.cell("one", ALL).interval == wilson(30, 40)
    assert experiment.cell("one", "coin").interval == wilson(15, 20)


def test_seeds_that_differ_widen_the_interval():
    rows = [[1] * 40, [1] * 30 + [0] * 10, [0] * 40]
    found = _experiment(one=rows).cell("one", ALL).interval
    alone = wilson(round(40 * 7 / 12), 40)
    assert found.value == pytest.approx(7 / 12)
    assert found.low < alone.low and found.high > alone.high
    assert (found.low, found.high) == (0, 1)


def test_a_cell_tells_tokens_and_seconds_of_its_seeds():
    cell = _experiment(one=[[1] * 4] * 3).cell("one", ALL)
    assert (cell.tokens, cell.seconds) == (1_000, 3.0)


def test_every_arm_family_and_seed_has_a_result():
    experiment = _experiment(one=[[1, 0] * 4] * 2, two=[[0, 0] * 4] * 2)
    found = [(row["arm"], row["family"], row["seed"]) for row in experiment.results()]
    assert sorted(found, key=str) == sorted(
        product(("one", "two"), (ALL, *FAMILIES), (ALL, 0, 1)), key=str
    )


def test_guessing_is_told_by_family():
    experiment = _experiment(one=[[1, 1] * 10])
    assert experiment.chance() == pytest.approx(0.3)
    assert [experiment.chance(family) for family in FAMILIES] == pytest.approx([0.5, 0.1])


def test_families_that_reach_down_to_guessing_are_named():
    half = [1, 1, 0, 1] * 25  # coin: half right, as a guess has it; lift: all right
    assert _experiment(one=[half]).not_above_guessing("one") == ["coin"]
    assert _experiment(one=[[1] * 100]).not_above_guessing("one") == []
    assert _experiment(one=[[0] * 100]).not_above_guessing("one") == list(FAMILIES)


def test_a_difference_is_second_minus_first():
    one, two = [0] * 20 + [1] * 20, [1] * 36 + [0] * 4
    experiment = _experiment(one=[one], two=[two])
    found = experiment.difference(PAIR)
    assert found.difference.value == pytest.approx(16 / 40)
    assert found.p_value == mcnemar(4, 20) < 0.01
    assert verdict(found.difference) == "better"
    turned = _experiment(one=[two], two=[one]).difference(PAIR)
    assert turned.difference.value == pytest.approx(-16 / 40)
    assert turned.difference.low == pytest.approx(-found.difference.high, abs=1e-9)
    assert turned.p_value == found.p_value and verdict(turned.difference) == "worse"


def test_a_difference_of_one_family_looks_at_its_items_alone():
    one, two = [0, 1] * 20, [1, 1] * 20
    experiment = _experiment(one=[one], two=[two])
    assert experiment.difference(PAIR, "coin").difference.value == 1.0
    lift = experiment.difference(PAIR, "lift")
    assert lift.difference.value == 0 and lift.p_value == 1
    assert lift.difference.low < 0 < lift.difference.high


def test_several_seeds_have_an_interval_over_seeds_and_items():
    random = np.random.default_rng(0)
    one = (random.random((4, 100)) < 0.4).astype(int).tolist()
    two = (random.random((4, 100)) < 0.8).astype(int).tolist()
    found = _experiment(one=one, two=two).difference(PAIR)
    assert found.difference.value == pytest.approx(np.mean(two) - np.mean(one))
    assert 0.2 < found.difference.low < found.difference.value < found.difference.high < 0.6
    assert 0 < found.p_value < 0.01
    same = _experiment(one=one, two=one).difference(PAIR)
    assert same.difference.value == 0 and same.p_value == 1


def test_arms_that_were_not_run_are_not_compared():
    assert _experiment(one=[[1] * 4]).pairs == []
    experiment = _experiment(one=[[1] * 4], two=[[1] * 4])
    assert experiment.pairs == [PAIR]
    assert [experiment.title(arm) for arm in experiment.arms] == ["the first", "two"]


def test_snapshots_are_of_the_curve_and_never_of_the_result():
    measured = [
        _measured("one", 0, [1] * 8), _measured("one", 0, [0] * 8, share=0.5),
        _measured("two", 0, [1] * 8),
    ]  # fmt: skip
    experiment = Experiment("core", measured, {}, [PAIR])
    assert experiment.cell("one", ALL).interval.value == 1
    assert sorted(each.run.share for each in experiment.curve) == [0.5, 1.0]
    assert {each.run.arm for each in experiment.curve} == {"one"}


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 0.3, "better"), (-0.3, -0.1, "worse"), (-0.1, 0.1, "no difference shown"),
     (0.0, 0.2, "no difference shown"), (0.0, 0.0, "no difference shown")],
)  # fmt: skip
def test_what_may_be_said_of_a_difference(low: float, high: float, said: str):
    interval = Interval(value=(low + high) / 2, low=low, high=high)
    assert verdict(interval) == said


def test_points_have_their_sign():
    interval = Interval(value=0.125, low=-0.05, high=0.3)
    assert points(interval) == "+12.5 [-5.0, +30.0]"
