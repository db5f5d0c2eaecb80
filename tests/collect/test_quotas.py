from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from spyhop.collect.draw import quotas


def algorithm_1(available: list[int], num_rows: int, random: np.random.Generator) -> list[int]:
    """The paper's algorithm, word by word."""
    left = dict(enumerate(available))
    taken = [0] * len(available)
    while sum(taken) < num_rows:
        task = random.choice(list(left))
        taken[task] += 1
        left[task] -= 1
        if left[task] == 0:
            del left[task]
    return taken


def exact(available: tuple[int, ...], num_rows: int) -> dict[tuple[int, ...], float]:
    """Probabilities of all outcomes, by following every sequence of draws."""
    states = {tuple(0 for _ in available): 1.0}
    for _ in range(num_rows):
        after: dict[tuple[int, ...], float] = {}
        for taken, chance in states.items():
            live = [i for i, n in enumerate(taken) if n < available[i]]
            for i in live:
                state = tuple(n + (place == i) for place, n in enumerate(taken))
                after[state] = after.get(state, 0.0) + chance / len(live)
        states = after
    return states


@pytest.mark.parametrize(
    ("available", "num_rows"), [((1, 2, 3), 3), ((1, 4, 4), 6), ((2, 2, 9), 7), ((5, 5), 1)]
)
def test_small_cases_have_the_exact_probabilities(available: tuple[int, ...], num_rows: int):
    draws = 1_000
    found = Counter(tuple(quotas(available, num_rows, seed).tolist()) for seed in range(draws))
    expected = exact(available, num_rows)
    assert set(found) <= set(expected)
    error = sum(
        (found[state] - draws * chance) ** 2 / (draws * chance)
        for state, chance in expected.items()
    )
    assert error < 6 * len(expected) + 20  # chi-square, far out in its tail


def test_the_distribution_is_that_of_the_literal_algorithm():
    available, num_rows, draws = [3, 8, 20, 90, 90], 60, 600
    random = np.random.default_rng(0)
    ours = np.array([quotas(available, num_rows, seed) for seed in range(draws)])
    theirs = np.array([algorithm_1(available, num_rows, random) for _ in range(draws)])
    assert (ours.sum(axis=1) == num_rows).all()
    for task in range(len(available)):
        levels = np.unique(np.concatenate([ours[:, task], theirs[:, task]]))
        cuts = np.unique(np.quantile(levels, [0.25, 0.5, 0.75]))
        table = np.array(
            [np.bincount(np.searchsorted(cuts, some[:, task]), minlength=len(cuts) + 1)
             for some in (ours, theirs)]
        )  # fmt: skip
        table = table[:, table.sum(axis=0) > 10]
        if table.shape[1] > 1:
            assert chi2_contingency(table).pvalue > 1e-4, f"task {task}"
    covariances = [np.cov(some[:, 3], some[:, 4])[0, 1] for some in (ours, theirs)]
    assert covariances[0] == pytest.approx(covariances[1], rel=0.3)


def test_a_larger_draw_takes_no_fewer_rows_of_any_task():
    available = [5, 50, 500, 5000, 5000]
    for smaller, larger in pairwise(quotas(available, n, 7) for n in range(1, 10_500, 301)):
        assert (smaller <= larger).all()


def test_everything_is_taken_where_there_is_too_little():
    assert quotas([3, 0, 4], 7, 0).tolist() == quotas([3, 0, 4], 99, 0).tolist() == [3, 0, 4]
    assert quotas([3, 0, 4], 6, 0).sum() == 6


def test_quotas_are_the_same_for_ever():
    assert quotas([10, 100, 1000, 1000], 900, 3).tolist() == [10, 100, 399, 391]


def test_the_papers_scale_takes_a_moment():
    available = np.random.default_rng(1).integers(100, 1_000_000, 1913).tolist()
    assert quotas(available, 2_500_000, 0).sum() == 2_500_000
