"""Several samples per item: against other derivations, and simulations with known answers."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spyhop.statistics import (
    holm,
    macro_interval,
    majority_correct,
    near_chance,
    pass_at_k,
    seed_interval,
    variance_split,
)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(right: list[bool], k: int):
    k = min(k, len(right))
    subsets = list(combinations(right, k))
    wanted = sum(any(subset) for subset in subsets) / len(subsets)
    assert pass_at_k([sum(right)], len(right), k) == pytest.approx(wanted)


def test_pass_at_k_refuses_what_has_no_answer():
    for counts, n, k in (([], 4, 1), ([5], 4, 1), ([1], 4, 5), ([1], 4, 0)):
        with pytest.raises(ValueError, match="pass@"):
            pass_at_k(counts, n, k)


@given(st.permutations([("A", True), ("A", True), ("B", False), ("B", False), (None, False)]))
def test_order_never_breaks_a_tie(votes: list[tuple[str | None, bool]]):
    assert majority_correct([a for a, _ in votes], [right for _, right in votes]) == 0.5


def test_a_majority_of_answers_decides_and_no_answer_is_no_vote():
    assert majority_correct(["4", "4", "5"], [True, True, False]) == 1.0
    assert majority_correct([None, None, "4"], [False, False, True]) == 1.0
    assert majority_correct([None], [False]) == 0.0
    with pytest.raises(ValueError, match="samples"):
        majority_correct([], [])


def test_variance_is_split_as_it_was_drawn():
    rng = np.random.default_rng(3)
    seeds, items, samples = 40, 60, 6
    y = (
        0.5
        + 0.2 * rng.standard_normal((seeds, 1, 1))
        + 0.4 * rng.standard_normal((1, items, 1))
        + 0.3 * rng.standard_normal((seeds, items, 1))
        + 0.5 * rng.standard_normal((seeds, items, samples))
    )
    found = variance_split(y)
    assert found.samples == pytest.approx(0.25, rel=0.1)
    assert found.interaction == pytest.approx(0.09, rel=0.1)
    assert found.items == pytest.approx(0.16, rel=0.5)
    assert found.seeds == pytest.approx(0.04, rel=0.5)


def test_the_error_of_one_seed_is_that_of_the_item_means():
    rng = np.random.default_rng(0)
    y = (rng.random((1, 50, 4)) < 0.6).astype(float)
    found = variance_split(y)
    means = y.mean(axis=2)[0]
    assert found.error == pytest.approx(means.std(ddof=1) / 50**0.5)
    assert found.seeds is None and found.interaction is None
    assert variance_split(y[:, :, :1]).samples is None


def test_the_error_covers_new_items_samples_and_seeds():
    """Redrawn with all effects, the mean spreads as much as `error` says."""
    rng = np.random.default_rng(1)

    def drawn() -> np.ndarray:
        return (
            0.3 * rng.standard_normal((4, 1, 1))
            + 0.5 * rng.standard_normal((1, 25, 1))
            + 0.4 * rng.standard_normal((4, 25, 3))
        )

    splits = [variance_split(drawn()) for _ in range(400)]
    spread = np.std([split.mean for split in splits])
    assert np.mean([split.error**2 for split in splits]) ** 0.5 == pytest.approx(spread, rel=0.1)


def test_groups_weigh_the_same_in_a_macro_average():
    found = macro_interval([[1.0] * 10, [0.0, 1.0, 0.0, 1.0]])
    assert found.value == 0.75
    error = (np.var([0, 1, 0, 1], ddof=1) / 4) ** 0.5 / 2
    assert found.high - found.value == pytest.approx(1.959964 * error)


@pytest.mark.parametrize(
    "broken",
    [
        lambda: macro_interval([]),
        lambda: macro_interval([[1.0], []]),
        lambda: macro_interval([[float("nan")]]),
        lambda: variance_split(np.zeros((1, 1, 4))),
        lambda: variance_split(np.full((1, 2, 2), np.nan)),
        lambda: holm([0.1, float("nan")]),
        lambda: near_chance(1, 2, [0.5, float("nan")]),
        lambda: seed_interval([0.1, float("nan")]),
    ],
)
def test_nan_and_empty_groups_are_errors(broken):
    with pytest.raises(ValueError):
        broken()
