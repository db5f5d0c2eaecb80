import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spyhop.train.batches import plan_batches, split_microbatches

BATCHES = sys.modules["spyhop.train.batches"]
LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def _plan(lengths: list[int], **changes):
    options = {"budgets": [3 * sum(lengths)], "batch_tokens": 100, "seed": 0, **changes}
    inputs = options.pop("inputs", [0, len(lengths)])
    return plan_batches(np.array(lengths), inputs, **options)


def _drawn(batches) -> list[int]:
    return np.concatenate(batches).tolist() if batches else []


@given(LENGTHS, st.integers(1, 3))
def test_whole_epochs_cover_every_row_as_often(lengths: list[int], epochs: int):
    drawn = _drawn(_plan(lengths, budgets=[epochs * sum(lengths)]))
    assert sorted(drawn) == sorted(list(range(len(lengths))) * epochs)


@given(LENGTHS, st.integers(1, 5_000))
def test_the_budget_is_met_and_exceeded_by_one_row_at_most(lengths: list[int], budget: int):
    drawn = _drawn(_plan(lengths, budgets=[budget]))
    total = sum(lengths[row] for row in drawn)
    assert budget <= total < budget + max(lengths)
    counts = np.bincount(drawn, minlength=len(lengths))
    assert counts.max() - counts.min() <= 1  # no row is drawn again before all are


@given(LENGTHS, st.integers(1, 200))
def test_no_batch_is_over_its_limit_unless_a_row_is(lengths: list[int], limit: int):
    for batch in _plan(lengths, batch_tokens=limit):
        padded = max(lengths[row] for row in batch) * len(batch)
        assert padded <= limit or len(batch) == 1


@given(LENGTHS, st.integers(0, 3))
def test_the_plan_is_a_function_of_its_arguments(lengths: list[int], seed: int):
    one, other = (_plan(lengths, seed=seed) for _ in range(2))
    assert [batch.tolist() for batch in one] == [batch.tolist() for batch in other]


@given(LENGTHS, st.integers(1, 8), st.integers(1, 2_000))
def test_no_batch_holds_a_row_twice(lengths: list[int], epochs: int, limit: int):
    for batch in _plan(lengths, budgets=[epochs * sum(lengths)], batch_tokens=limit):
        assert len(set(batch.tolist())) == len(batch)


@given(LENGTHS, st.integers(2, 5))
def test_an_epoch_ends_before_the_next_begins(lengths: list[int], epochs: int):
    drawn = _drawn(_plan(lengths, budgets=[epochs * sum(lengths)]))
    for start in range(0, len(drawn), len(lengths)):
        assert sorted(drawn[start : start + len(lengths)]) == list(range(len(lengths)))


def test_epochs_are_cut_anew():
    batches = _plan(list(range(1, 31)) * 4, budgets=[2 * 4 * sum(range(1, 31))])
    half = len(batches) // 2
    first, second = ({tuple(sorted(b.tolist())) for b in some} for some in
                     (batches[:half], batches[half:]))  # fmt: skip
    assert len(first & second) < half / 2


def test_rows_are_sorted_a_window_at_a_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(BATCHES, "SORTED_ROWS", 10)
    lengths = np.random.default_rng(1).integers(1, 30, 40).tolist()
    drawn = _drawn(_plan(lengths, budgets=[sum(lengths)], batch_tokens=10_000))
    windows = [drawn[start : start + 10] for start in range(0, 40, 10)]
    assert sorted(drawn) == list(range(40))
    for window in windows:
        found = [lengths[row] for row in window]
        assert found == sorted(found)


def test_the_seed_changes_the_order():
    lengths = list(range(1, 41))
    assert _drawn(_plan(lengths, seed=0)) != _drawn(_plan(lengths, seed=1))


@given(LENGTHS, LENGTHS, st.integers(0, 1_000), st.integers(1, 1_000))
def test_each_input_has_its_own_budget(
    one: list[int], other: list[int], budget_one: int, budget_other: int
):
    lengths = one + other
    drawn = _drawn(
        _plan(lengths, inputs=[0, len(one), len(lengths)], budgets=[budget_one, budget_other])
    )
    first = sum(lengths[row] for row in drawn if row < len(one))
    second = sum(lengths[row] for row in drawn if row >= len(one))
    assert budget_one <= first < budget_one + max(one)
    assert budget_other <= second < budget_other + max(other)


def test_inputs_are_mixed_over_the_whole_run():
    lengths = [10] * 400
    drawn = _drawn(_plan(lengths, inputs=[0, 200, 400], budgets=[2_000, 2_000]))
    halves = [sum(row < 200 for row in part) for part in (drawn[:200], drawn[200:])]
    assert min(halves) > 60


@given(LENGTHS, LENGTHS, st.integers(0, 3))
def test_a_batch_holds_rows_of_one_input(one: list[int], other: list[int], seed: int):
    lengths, budgets = one + other, [3 * sum(one), 2 * sum(other)]
    batches = _plan(lengths, inputs=[0, len(one), len(lengths)], budgets=budgets, seed=seed)
    for batch in batches:
        assert len({row < len(one) for row in batch.tolist()}) == 1
        assert len(set(batch.tolist())) == len(batch)


def test_rows_of_similar_length_stand_together():
    lengths = np.random.default_rng(0).integers(1, 200, 2_000).tolist()
    batches = _plan(lengths, budgets=[sum(lengths)], batch_tokens=2_000)
    padded = sum(max(lengths[row] for row in batch) * len(batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)


@given(LENGTHS, st.integers(1, 200))
def test_micro_batches_hold_the_same_rows(lengths: list[int], limit: int):
    rows = np.arange(len(lengths))
    microbatches = split_microbatches(rows, np.array(lengths), limit)
    assert sorted(_drawn(microbatches)) == rows.tolist()
    for microbatch in microbatches:
        assert (
            max(lengths[row] for row in microbatch) * len(microbatch) <= limit
            or len(microbatch) == 1
        )
