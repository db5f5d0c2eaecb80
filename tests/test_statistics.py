from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spyhop.statistics import (
    cluster_interval,
    detectable_difference,
    holm,
    mcnemar,
    near_chance,
    paired_difference,
    paired_seed_difference,
    quadratic_kappa,
    scaling,
    seed_interval,
    seed_item_difference,
    wilson,
)

SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]  # Student (1908): hours gained
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def _outcomes(both: int, lost: int, gained: int, neither: int) -> tuple[list[int], list[int]]:
    first = [1] * (both + lost) + [0] * (gained + neither)
    second = [1] * both + [0] * lost + [1] * gained + [0] * neither
    return first, second


@pytest.mark.parametrize(  # Newcombe (1998), Statistics in Medicine 17:857, table I, method 3
    ("correct", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_limits(correct: int, n: int, low: float, high: float):
    interval = wilson(correct, n)
    assert interval.value == correct / n
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_wilson_covers_as_it_says_on_average():
    n, accuracies = 50, np.linspace(0.02, 0.98, 49)
    limits = [wilson(k, n) for k in range(n + 1)]
    coverage = [
        sum(stats.binom.pmf(k, n, p) for k, x in enumerate(limits) if x.low <= p <= x.high)
        for p in accuracies
    ]
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.01)
    assert min(coverage) > 0.9


@pytest.mark.parametrize(("correct", "n"), [(3, 2), (-1, 2), (0, 0)])
def test_impossible_counts_are_refused(correct: int, n: int):
    with pytest.raises(ValueError, match="is no count"):
        wilson(correct, n)
    with pytest.raises(ValueError, match="is no count"):
        near_chance(correct, n, 0.5)


def test_paired_t_gives_students_own_figures():
    comparison = paired_seed_difference(SLEEP_1, SLEEP_2)
    assert comparison.p_value == pytest.approx(0.002833, abs=5e-7)
    difference = comparison.difference
    assert (difference.value, difference.low, difference.high) == pytest.approx(
        (1.58, 0.7001, 2.4599), abs=5e-5
    )
    assert seed_interval([b - a for a, b in zip(SLEEP_1, SLEEP_2, strict=True)]) == difference


def test_seeds_without_spread_and_single_seeds():
    assert paired_seed_difference([0.5, 0.25], [0.5, 0.25]).p_value == 1
    shifted = paired_seed_difference([0.5, 0.25], [0.75, 0.5])
    assert shifted.p_value == 0 and shifted.difference.low == shifted.difference.high == 0.25
    with pytest.raises(ValueError, match="needs two of them, got 1"):
        seed_interval([0.5])


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"), [(7, 1, 0.0703125), (15, 5, 0.0413895), (0, 0, 1), (4, 4, 1)]
)
def test_mcnemar_is_the_exact_binomial_test(lost: int, gained: int, p_value: float):
    assert mcnemar(lost, gained) == pytest.approx(p_value, abs=1e-7)
    assert mcnemar(gained, lost) == mcnemar(lost, gained)


@pytest.mark.parametrize(
    ("table", "level", "low", "high"),
    [
        ((1, 7, 1, 12), 0.95, -0.517, -0.026),  # Fagerland et al.: airway hyper-responsiveness
        ((300, 25, 28, 265), 0.90, -0.0148, 0.0247),  # R, PropCIs::scoreci.mp(25, 28, 618)
    ],
)
def test_tango_gives_the_published_limits(
    table: tuple[int, int, int, int], level: float, low: float, high: float
):
    difference = paired_difference(*_outcomes(*table), level=level).difference
    digits = len(str(high).split(".")[1])
    assert (round(difference.low, digits), round(difference.high, digits)) == (low, high)


@given(st.tuples(*[st.integers(0, 30)] * 4).filter(sum))
def test_paired_difference_is_antisymmetric_and_holds_its_value(table: tuple[int, int, int, int]):
    first, second = _outcomes(*table)
    there, back = paired_difference(first, second), paired_difference(second, first)
    x, y = there.difference, back.difference
    assert there.p_value == back.p_value
    assert (x.low, x.value, x.high) == pytest.approx((-y.high, -y.value, -y.low), abs=1e-9)
    assert -1 <= x.low <= x.value <= x.high <= 1 and x.low < x.high
    assert x.value == pytest.approx((table[2] - table[1]) / sum(table))


@given(st.integers(1, 200), st.integers(0, 200))
def test_tango_excludes_zero_exactly_where_mcnemars_score_test_does(lost: int, gained: int):
    x = paired_difference(*_outcomes(100, lost, gained, 100)).difference
    z = abs(gained - lost) / (gained + lost) ** 0.5
    assert (x.low > 0 or x.high < 0) == (z > stats.norm.ppf(0.975))


def test_paired_difference_at_the_limits():
    worse = paired_difference(*_outcomes(0, 10, 0, 0))
    assert worse.difference.low == -1
    assert worse.difference.high == pytest.approx(-0.44493, abs=1e-5)
    assert worse.p_value == pytest.approx(2 / 2**10)


def test_without_disagreement_tango_is_as_wide_as_wilson():
    x = paired_difference(*_outcomes(10, 0, 0, 10)).difference
    assert x.high == -x.low == pytest.approx(wilson(0, 20).high)


def test_tango_covers_as_it_says():
    rng = np.random.default_rng(5)
    cells = np.array([0.4, 0.05, 0.15, 0.4])  # both, lost, gained, neither
    tables = rng.multinomial(40, cells, size=400)
    intervals = [paired_difference(*_outcomes(*row)).difference for row in tables.tolist()]
    covered = np.mean([x.low <= 0.1 <= x.high for x in intervals])
    assert 0.92 <= covered <= 0.98  # 95 % within three standard errors


def test_only_paired_correctness_is_accepted():
    with pytest.raises(ValueError, match="cannot pair shapes"):
        paired_difference([1, 0], [1, 0, 1])
    with pytest.raises(ValueError, match="0 or 1"):
        paired_difference([1, 0.5], [1, 0])
    with pytest.raises(ValueError, match="two seeds and two items"):
        seed_item_difference([[1, 0]], [[0, 1]])


def _arms(
    rng: np.random.Generator, seeds: int, items: int, seed_spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Two arms whose accuracy differs by 0.1 on average; seeds shift it, items differ in it."""
    base = rng.uniform(0.2, 0.6, (1, items))
    first = base + rng.normal(0, seed_spread, (seeds, 1))
    second = (
        base + 0.1 + rng.normal(0, seed_spread, (seeds, 1)) + rng.uniform(-0.1, 0.1, (1, items))
    )
    draw = rng.random((2, seeds, items))
    return (draw[0] < first).astype(float), (draw[1] < second).astype(float)


@pytest.mark.parametrize(("seed_spread", "least", "most"), [(0.0, 0.95, 1.0), (0.05, 0.91, 0.99)])
def test_seed_item_interval_covers_with_three_seeds(seed_spread: float, least: float, most: float):
    rng = np.random.default_rng(11)
    intervals = [
        seed_item_difference(*_arms(rng, 3, 200, seed_spread), resamples=300) for _ in range(250)
    ]
    assert least <= np.mean([x.low <= 0.1 <= x.high for x in intervals]) <= most


def test_seed_item_interval_is_deterministic_and_counts_both_sources():
    first, second = _arms(np.random.default_rng(2), 4, 400, 0.05)
    whole = seed_item_difference(first, second)
    assert whole == seed_item_difference(first, second)
    assert whole != seed_item_difference(first, second, seed=1)
    assert whole.value == pytest.approx(second.mean() - first.mean())
    assert whole.low < whole.value < whole.high
    same_seeds = seed_item_difference(first[[0, 0, 0, 0]], second[[0, 0, 0, 0]])
    over_items = paired_difference(first[0], second[0]).difference
    width = same_seeds.high - same_seeds.low
    assert width == pytest.approx(over_items.high - over_items.low, rel=0.1)
    by_seed = np.random.default_rng(4).normal(0.1, 0.05, 8)
    same_items = np.repeat(by_seed[:, None], 50, axis=1)
    x, over_seeds = (
        seed_item_difference(np.zeros((8, 50)), same_items),
        seed_interval(list(by_seed)),
    )
    assert x.high - x.low == pytest.approx(over_seeds.high - over_seeds.low, rel=0.1)


def test_seed_item_interval_does_not_depend_on_how_draws_are_cut(monkeypatch: pytest.MonkeyPatch):
    first, second = _arms(np.random.default_rng(2), 3, 50, 0.05)
    every = seed_item_difference(first, second, resamples=100)
    monkeypatch.setattr("spyhop.statistics.paired.BOOTSTRAP_CELLS", 50)
    cut = seed_item_difference(first, second, resamples=100)
    assert (cut.low, cut.high) == pytest.approx((every.low, every.high))


def test_near_chance_on_a_fair_coin():
    assert near_chance(15, 20, 0.5).p_value == pytest.approx(0.0413895, abs=1e-7)
    assert near_chance(15, 20, 0.5).verdict == "above"
    assert near_chance(5, 20, 0.5).verdict == "below"
    assert near_chance(14, 20, 0.5).verdict == "near"
    assert near_chance(15, 20, 0.5, level=0.99).verdict == "near"
    assert near_chance(10, 20, 0.5).p_value == 1


def test_near_chance_with_differing_items_is_exact():
    each = [0.5, 0.5, 0.25, 0.2, 0.1, 0.0]
    at_least = sum(
        prod(p if hit else 1 - p for p, hit in zip(each, hits, strict=True))
        for hits in product([0, 1], repeat=len(each))
        if sum(hits) >= 4
    )
    assert near_chance(4, 6, each).p_value == pytest.approx(2 * at_least)
    assert near_chance(4, 20, [0.25] * 20) == near_chance(4, 20, 0.25)


def test_near_chance_raises_few_false_alarms():
    rng = np.random.default_rng(3)
    each = [0.5] * 100 + [0.2] * 100
    lucky = (rng.random((300, 200)) < each).sum(axis=1).tolist()
    alarms = np.mean([near_chance(correct, 200, each).verdict != "near" for correct in lucky])
    assert 0.01 <= alarms <= 0.08


def test_near_chance_refuses_impossible_chances():
    with pytest.raises(ValueError, match="between 0 and 1"):
        near_chance(1, 2, 1.5)


# Humpback (arXiv:2308.06259), Table 5 (v3): win rates with their standard errors.
SYSTEM_MESSAGES = {"both": (66.47, 3.04), "none": (59.96, 3.09), "one": (62.69, 3.06)}


@pytest.mark.parametrize(("rate", "error"), SYSTEM_MESSAGES.values())
def test_the_papers_standard_errors_are_those_of_250_prompts(rate: float, error: float):
    interval = wilson(round(rate * 2.5), 250)
    assert 100 * (interval.high - interval.low) / 2 / 1.96 == pytest.approx(error, abs=0.08)


def test_the_papers_system_messages_are_not_told_apart_without_pairing():
    """Even the extremes, 6.5 points apart, are 1.5 standard errors from each other."""
    (best, its_error), (worst, other_error) = SYSTEM_MESSAGES["both"], SYSTEM_MESSAGES["none"]
    z = (best - worst) / (its_error**2 + other_error**2) ** 0.5
    assert z == pytest.approx(1.50, abs=0.01)


def test_a_line_over_the_logarithm_of_the_size():
    sizes = [100, 800, 3200, 25_600]
    found = scaling(sizes, [6.95 * np.log(n) + 3 for n in sizes])
    assert found.alpha.value == pytest.approx(6.95) and found.constant == pytest.approx(3)


@pytest.mark.parametrize("level", [0.0, 50.0])
def test_a_measure_that_never_moves_has_no_coefficient(level: float):
    with pytest.raises(ValueError, match="all scores are the same"):
        scaling([10, 20, 40], [level] * 3)


def test_a_scaling_coefficient_is_the_slope_of_least_squares():
    sizes, values = [100, 800, 1600, 3200], [50.0, 57.0, 61.0, 60.0]
    found, line = scaling(sizes, values), stats.linregress(np.log(sizes), values)
    half = stats.t.ppf(0.975, 2) * line.stderr
    assert found.alpha.value == pytest.approx(line.slope)
    assert found.alpha.high - found.alpha.value == pytest.approx(half)


def test_the_interval_of_a_scaling_coefficient_covers_the_truth():
    """Seven sizes as in the paper, noise of 3 points as in its win rates, 400 repetitions."""
    sizes = [100, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200]
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        noisy = 2.0 * np.log(sizes) + 40 + rng.normal(0, 3, len(sizes))
        interval = scaling(sizes, noisy.tolist()).alpha
        covered += interval.low <= 2.0 <= interval.high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize("sizes", [[10, 20], [10, 10, 10]])
def test_a_line_needs_three_points_of_two_sizes(sizes: list[int]):
    with pytest.raises(ValueError, match="needs three points of two sizes"):
        scaling(sizes, [1.0] * len(sizes))


def test_quadratic_kappa_is_cohens_and_needs_no_whole_scores():
    first = [1, 1, 0, 0, 1, 0, 1, 1, 0, 0]
    second = [1, 1, 0, 1, 1, 0, 0, 1, 0, 0]  # 8 of 10 agree, 5 of 10 by chance
    assert quadratic_kappa(first, second).value == pytest.approx((0.8 - 0.5) / 0.5)
    rng = np.random.default_rng(5)
    a = rng.integers(1, 6, 300)
    b = np.clip(a + rng.integers(-1, 2, 300), 1, 5)
    table = np.zeros((5, 5))
    np.add.at(table, (a - 1, b - 1), 1 / 300)
    weights = (np.arange(5)[:, None] - np.arange(5)) ** 2
    by_chance = np.outer(table.sum(1), table.sum(0))
    wanted = 1 - (weights * table).sum() / (weights * by_chance).sum()
    found = quadratic_kappa(a, b)
    assert found.value == pytest.approx(wanted)
    assert found.low < found.value < found.high and found.high - found.low < 0.1
    assert quadratic_kappa(a + 0.5, b + 0.5).value == pytest.approx(wanted)
    assert abs(quadratic_kappa(a, rng.permutation(b)).value) < 0.15
    with pytest.raises(ValueError, match="undefined"):
        quadratic_kappa([4, 4, 4], [4, 4, 4])


@pytest.mark.slow
def test_the_interval_of_kappa_covers():
    rng = np.random.default_rng(6)
    truth, hits = None, 0
    a = rng.integers(1, 6, 200_000)
    b = np.clip(a + rng.integers(-2, 3, len(a)), 1, 5)
    truth = quadratic_kappa(a, b, resamples=1).value
    for start in range(0, 200 * 200, 200):
        found = quadratic_kappa(a[start : start + 200], b[start : start + 200], resamples=400)
        hits += found.low <= truth <= found.high
    assert 0.90 <= hits / 200 <= 0.99


def test_holm_gives_the_adjusted_values_of_r():
    found = holm([0.01, 0.04, 0.03, 0.005])  # R: p.adjust(..., "holm")
    assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_rejects_between_bonferroni_and_no_correction(p_values: list[float]):
    for plain, adjusted in zip(p_values, holm(p_values), strict=True):
        assert plain <= adjusted <= min(1.0, plain * len(p_values)) + 1e-12


@pytest.mark.parametrize(("n", "discordant"), [(200, 0.3), (1000, 0.1), (500, 0.5)])
def test_the_detectable_difference_is_found_as_often_as_promised(n: int, discordant: float):
    delta = detectable_difference(n, discordant)
    assert delta is not None
    rng = np.random.default_rng(0)
    cells = [(discordant + delta) / 2, (discordant - delta) / 2, 1 - discordant]
    tables = rng.multinomial(n, cells, size=4000)
    z = np.abs(tables[:, 0] - tables[:, 1]) / np.sqrt(np.maximum(1, tables[:, 0] + tables[:, 1]))
    assert (z > stats.norm.ppf(0.975)).mean() == pytest.approx(0.8, abs=0.03)


def test_too_few_items_detect_nothing():
    assert detectable_difference(5, 0.1) is None
    with pytest.raises(ValueError, match="needs items"):
        detectable_difference(0, 0.1)


def test_clusters_widen_the_interval_as_they_should():
    rng = np.random.default_rng(1)
    clusters, covered = np.repeat(np.arange(25), 8).astype(str), 0
    for run in range(200):
        values = np.repeat(rng.normal(0, 1, 25), 8) + rng.normal(0, 1, 200)
        found = cluster_interval(values, clusters, seed=run, resamples=400)
        covered += found.low <= 0 <= found.high
    assert 0.9 < covered / 200 < 0.99  # 94 % in 1,200 runs
    alone = cluster_interval(values, [str(n) for n in range(200)])
    assert found.high - found.low > 1.5 * (alone.high - alone.low)


def test_an_interval_of_scores_ends_at_0_and_1():
    wide = cluster_interval([0.0, 1.0, 0.0], ["a", "b", "c"])
    assert wide.low < 0 and wide.high > 1
    found = wide.of_scores()
    assert (found.low, found.value, found.high) == (0.0, wide.value, 1.0)
    inside = cluster_interval([0.4, 0.5, 0.6] * 9, [str(n) for n in range(27)])
    assert inside.of_scores() == inside


def test_values_that_are_no_numbers_and_single_clusters_are_refused():
    with pytest.raises(ValueError, match="not a finite number"):
        cluster_interval([0.0, float("nan")], ["a", "b"])
    with pytest.raises(ValueError, match="not a finite number"):
        paired_seed_difference([0.0, float("inf")], [1.0, 2.0])
    with pytest.raises(ValueError, match="two clusters are needed"):
        cluster_interval([0.0, 1.0], ["a", "a"])
