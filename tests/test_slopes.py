"""Equal slopes: against statsmodels-like algebra written differently, and its false alarms."""

import numpy as np
import pytest
from scipy import stats

from spyhop.statistics import equal_slopes, scaling


def drawn(seed: int, slopes: dict[str, float], noise: float = 0.5, repeats: int = 3):
    rng = np.random.default_rng(seed)
    sizes = np.repeat([100, 200, 400, 800], repeats)
    return {
        name: (sizes.tolist(), (slope * np.log(sizes) + rng.normal(0, noise, len(sizes))).tolist())
        for name, slope in slopes.items()
    }


def test_the_test_is_the_f_test_of_two_nested_regressions():
    lines = drawn(1, {"a": 1.0, "b": 1.5, "c": 1.1})
    y = np.concatenate([values for _, values in lines.values()])
    logs = [np.log(sizes) for sizes, _ in lines.values()]
    one = np.zeros((len(y), 3))
    own = np.zeros((len(y), 3))
    for n, x in enumerate(logs):
        rows = slice(n * len(x), (n + 1) * len(x))
        one[rows, n], own[rows, n] = 1, x
    full = np.hstack([one, own])
    reduced = np.hstack([one, np.concatenate(logs)[:, None]])

    def residual(design: np.ndarray) -> float:
        fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
        return float(((y - fitted) ** 2).sum())

    freedom = len(y) - 6
    f = (residual(reduced) - residual(full)) / 2 / (residual(full) / freedom)
    found = equal_slopes(lines)
    assert found.f == pytest.approx(f)
    assert found.p_value == pytest.approx(stats.f.sf(f, 2, freedom))


def test_two_lines_agree_with_their_own_fits_and_t_is_the_root_of_f():
    lines = drawn(2, {"a": 1.0, "b": 1.3})
    found = equal_slopes(lines)
    (pair,) = found.differences.values()
    fits = {name: scaling(*line).alpha.value for name, line in lines.items()}
    assert pair.difference.value == pytest.approx(fits["b"] - fits["a"])
    assert pair.p_value == pytest.approx(found.p_value)


def test_equal_slopes_alarm_as_often_as_they_say():
    alarms = sum(equal_slopes(drawn(seed, {"a": 1, "b": 1})).p_value < 0.05 for seed in range(400))
    assert 8 <= alarms <= 34  # 20 +- 3.2 standard deviations


def test_unequal_slopes_are_found():
    assert equal_slopes(drawn(3, {"a": 0.2, "b": 2.0})).p_value < 0.01


@pytest.mark.parametrize(
    "lines",
    [
        {"a": ([1, 2, 3], [1, 2, 3])},
        {"a": ([1, 2, 4], [1, 2, 3]), "b": ([2, 2], [1, 2])},
        {"a": ([1, 2], [1, 2]), "b": ([1, 2], [1, 3])},
    ],
)
def test_too_little_is_refused(lines):
    with pytest.raises(ValueError, match=r"need"):
        equal_slopes(lines)


def test_lines_without_noise_are_decided():
    sizes = [1, 2, 4]
    exact = np.log(sizes)
    assert equal_slopes({"a": (sizes, exact), "b": (sizes, 2 * exact)}).p_value < 1e-6
