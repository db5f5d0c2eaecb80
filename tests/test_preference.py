"""Win rates, shares of grades, length and style control, Bradley-Terry, Cohen's kappa."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from spyhop.statistics import (
    Interval,
    bounded_mean,
    bradley_terry,
    grade_ratio,
    length_controlled,
    nominal_kappa,
    quadratic_kappa,
    style_difference,
    wilson,
    win_rate,
)
from spyhop.text.form import style_of

POINTS = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


def _column(values) -> np.ndarray:
    return np.asarray(values, dtype=float)[:, None]


def _holds(found: Interval) -> bool:
    return 0 <= found.low <= found.value <= found.high <= 1


@given(st.lists(st.integers(0, 1), min_size=1, max_size=40))
def test_without_ties_it_is_wilsons_interval(points):
    found, plain = bounded_mean(points), wilson(sum(points), len(points))
    assert (found.value, found.low, found.high) == pytest.approx(
        (plain.value, plain.low, plain.high), abs=1e-9
    )


@given(st.lists(POINTS, min_size=1, max_size=30))
def test_every_rate_has_an_interval_with_a_width(points):
    found = win_rate(_column(points))
    rate, ties = found["win rate"], found["ties"]
    assert _holds(rate) and rate.high > rate.low
    assert set(found) == {"win rate", "ties"}
    assert ties.value == pytest.approx(points.count(0.5) / len(points))
    mirrored = win_rate(1 - _column(points))["win rate"]
    assert mirrored.low == pytest.approx(1 - rate.high)


def test_ties_make_an_interval_narrower_but_never_a_point():
    ties, coins = bounded_mean([0.5] * 100), bounded_mean([0, 1] * 50)
    assert 0.01 < ties.high - ties.low < 0.05 < coins.high - coins.low


def test_two_orders_show_flips_and_position():
    found = win_rate([[1, 1], [0, 1], [0, 1], [0.5, 0.5]])
    values = [found[name].value for name in ("win rate", "ties", "flips", "shown first")]
    assert values == [0.625, 0.75, 0.5, 0.75]


def test_the_judges_own_variance_is_inside_the_interval():
    """Simulated: a judge with a position bias, noise and ties, on questions drawn afresh."""
    rng = np.random.default_rng(3)

    def verdicts(lean: np.ndarray, shift: float) -> np.ndarray:
        wins = rng.random(len(lean)) < np.clip(lean + shift, 0, 1)
        return np.where(rng.random(len(lean)) < 0.1, 0.5, wins.astype(float))

    lean = rng.beta(1.2, 0.8, 200_000)
    truth = float(np.stack([verdicts(lean, s) for s in (-0.1, 0.1)]).mean())
    covered, noises = 0, []
    for _ in range(300):
        lean = rng.beta(1.2, 0.8, 50)
        points = np.stack([verdicts(lean, -0.1), verdicts(lean, 0.1)], axis=1)
        repeats = np.concatenate(
            [np.stack([points[:5, k], verdicts(lean[:5], s)], 1) for k, s in ((0, -0.1), (1, 0.1))]
        )
        found = win_rate(points, repeats)
        covered += found["win rate"].low <= truth <= found["win rate"].high
        again = found["judged again"]
        noises.append(50 * ((again.high - again.low) / 2 / 1.96) ** 2)
    assert 0.92 <= covered / 300 <= 0.99
    assert np.mean(noises) == pytest.approx(0.09, abs=0.02)  # half the variance of one verdict


def test_repeats_that_always_differ_keep_an_interval_wide():
    noisy = win_rate(_column([0.5] * 100), [[0, 1]] * 20)["win rate"]
    calm = win_rate(_column([0.5] * 100), [[0.5, 0.5]] * 20)["win rate"]
    assert noisy.high - noisy.low > 5 * (calm.high - calm.low)


def test_a_share_of_the_references_grades():
    found = grade_ratio([8, 6, 4], [8, 8, 8])
    assert isinstance(found, Interval) and found.low < found.value == 0.75 < found.high
    assert grade_ratio([5], [10]) == 0.5
    with pytest.raises(ValueError, match="all 0"):
        grade_ratio([5], [0])


@pytest.mark.parametrize("points", [[1.0], [0.5], [0.0], [0.5] * 30, [1.0] * 30])
def test_controlled_rates_are_defined_for_one_question_and_for_ties(points):
    n = len(points)
    by_length = length_controlled(points, [3] * n, [9] * n)
    names = list(map(str, range(n)))
    strengths, _ = bradley_terry(["a"] * n, ["b"] * n, points, names, reference="b")
    for found in (by_length, strengths["a"]):
        assert _holds(found) and found.high > found.low
        assert found.value == pytest.approx(points[0], abs=0.01)


def test_length_control_recovers_the_rate_at_equal_length():
    rng = np.random.default_rng(1)
    gap = rng.normal(300, 400, 4000)
    chance = 1 / (1 + np.exp(-(-0.4 + 1.5 * np.tanh(gap / gap.std(ddof=1)))))
    wins = (rng.random(4000) < chance).astype(float)
    found = length_controlled(wins, gap + 500, np.full(4000, 500))
    assert found.low <= 1 / (1 + math.exp(0.4)) <= found.high < wins.mean()


def test_length_control_equals_a_direct_fit():
    """The same likelihood, maximised by another method from its formula."""
    rng = np.random.default_rng(2)
    gap = rng.normal(0, 1, 200)
    y = rng.choice([0, 0.5, 1], 200)
    x = np.tanh(gap / gap.std(ddof=1))

    def loss(s):
        z = s[0] + s[1] * x
        return np.sum(np.logaddexp(0, z) - y * z)

    best = optimize.minimize(loss, np.zeros(2), method="BFGS").x
    expected = 1 / (1 + np.exp(-best[0]))
    found = length_controlled(y, gap, np.zeros(200))
    assert found.value == pytest.approx(expected, abs=1e-4)


def test_bradley_terry_ranks_three_models_in_order():
    rng = np.random.default_rng(0)
    strength = {"weak": -1.0, "mid": 0.0, "good": 1.0}
    first, second, points, questions = [], [], [], []
    for n in range(600):
        for a, b in (("weak", "mid"), ("good", "weak"), ("mid", "good")):
            chance = 1 / (1 + math.exp(strength[b] - strength[a]))
            first.append(a), second.append(b), questions.append(str(n))
            points.append(float(rng.random() < chance))
    found, slopes = bradley_terry(first, second, points, questions, reference="mid")
    for name in ("weak", "good"):
        assert found[name].low <= stats.logistic.cdf(strength[name]) <= found[name].high
    assert found["weak"].high < 0.5 < found["good"].low and not slopes


def test_style_control_takes_out_what_lists_buy():
    """Two equal models; one writes lists, which the judge loves."""
    rng = np.random.default_rng(4)
    words, n = rng.integers(80, 200, (2, 900)), 900
    lists = np.where(rng.random((2, n)) < np.array([[0.8], [0.2]]), 6, 0)
    a, b = (np.stack([words[k], lists[k] * 0, lists[k], lists[k] * 0], 1) for k in (0, 1))
    wins = rng.random(n) < 1 / (1 + np.exp(-0.3 * (lists[0] - lists[1])))
    names = {"first": ["x"] * n, "second": ["y"] * n, "questions": list(map(str, range(n)))}
    plain, _ = bradley_terry(points=wins, reference="y", **names)
    equal, slopes = bradley_terry(points=wins, reference="y", style=style_difference(a, b), **names)
    assert plain["x"].low > 0.6
    assert equal["x"].low <= 0.5 <= equal["x"].high
    assert max(slopes) == slopes[2]


def test_style_is_counted_outside_code():
    text = "# Title\n\n1. one **bold** word\n- two\n```\n# no header\n- no item\n```\n2 * 3 * 4"
    words, headers, lists, bold = style_of(text)
    assert (headers, lists, bold) == (1, 2, 1) and words == len(text.split())
    assert style_of("```\n- open") == (3, 0, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=30))
def test_kappa_of_two_names_is_that_of_two_numbers(pairs):
    first, second = zip(*pairs, strict=True)
    if len(set(first + second)) == 1:
        with pytest.raises(ValueError, match="undefined"):
            nominal_kappa(list(map(str, first)), list(map(str, second)))
        return
    named = nominal_kappa(list(map(str, first)), list(map(str, second)))
    assert named.value == pytest.approx(quadratic_kappa(first, second).value, abs=1e-9)


def test_kappa_of_a_published_table():
    """Cohen (1960), table 1: 200 diagnoses by two judges, kappa 0.492."""
    shares = {
        "aa": 88,
        "ab": 14,
        "ac": 18,
        "ba": 10,
        "bb": 40,
        "bc": 10,
        "ca": 2,
        "cb": 6,
        "cc": 12,
    }
    first = [pair[0] for pair, num in shares.items() for _ in range(num)]
    second = [pair[1] for pair, num in shares.items() for _ in range(num)]
    found = nominal_kappa(first, second)
    assert found.value == pytest.approx(0.492, abs=0.0005) and found.low < 0.492 < found.high


PUBLISHED = {
    "alpaca-7b": (805, 26.4596, 26.29),
    "vicuna-13b": (805, 70.4348, 50.00),
    "gpt-3.5-turbo-0301": (804, 89.3657, 79.18),
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_win_rates_of_alpaca_eval(data_dir: Path, model: str):
    """The plain rate is equal. The length-controlled one lacks the published file of gamed models
    and difficulties, and covers the published figure with its interval."""
    path = data_dir / "alpaca_eval" / model / "alpaca_eval_gpt4" / "annotations.json"
    rows = [row for row in json.loads(path.read_text()) if row["preference"] is not None]
    points = [{0: 0.5, 1.5: 0.5, 1: 0.0, 2: 1.0}[row["preference"]] for row in rows]
    n, plain, controlled = PUBLISHED[model]
    found = win_rate(_column(points))
    assert len(rows) == n
    assert 100 * found["win rate"].value == pytest.approx(plain, abs=1e-4)
    lengths = ([len(row[key]) for row in rows] for key in ("output_2", "output_1"))
    equal = length_controlled(points, *lengths)
    assert equal.low <= controlled / 100 <= equal.high
    assert 100 * equal.value == pytest.approx(controlled, abs=2.0)
