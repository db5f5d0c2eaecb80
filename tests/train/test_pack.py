import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spyhop.schema import TrainingError
from spyhop.train.batches import best_fit, grouped, plan_packs, shard_microbatches

CAPACITY = 50
LENGTHS = st.lists(st.integers(1, CAPACITY), max_size=80).map(lambda some: np.array(some, np.int64))
SOME = st.lists(st.integers(1, CAPACITY), min_size=1, max_size=80).map(
    lambda some: np.array(some, np.int64)
)
HOW = st.sampled_from(["best_fit", "grouped", "in_order"])


def _fills(packs, lengths) -> list[int]:
    return [int(lengths[packs[place]].sum()) for place in range(len(packs))]


def _one_at_a_time(lengths, capacity: int) -> list[int]:
    """Best fit decreasing, as it is defined."""
    fills: list[int] = []
    for length in sorted(lengths.tolist(), reverse=True):
        fitting = [place for place, fill in enumerate(fills) if fill + length <= capacity]
        if fitting:
            fills[max(fitting, key=lambda place: fills[place])] += length
        else:
            fills.append(length)
    return fills


def _fewest(lengths, capacity: int) -> int:
    """The optimum, by trying everything."""
    best = len(lengths)

    def place(rest: tuple[int, ...], fills: tuple[int, ...]) -> None:
        nonlocal best
        if len(fills) >= best:
            return
        if not rest:
            best = len(fills)
            return
        for number, fill in enumerate(fills):
            if fill + rest[0] <= capacity:
                place(rest[1:], (*fills[:number], fill + rest[0], *fills[number + 1 :]))
        place(rest[1:], (*fills, rest[0]))

    place(tuple(sorted(lengths.tolist(), reverse=True)), ())
    return best


@given(LENGTHS)
def test_every_row_stands_in_one_pack_and_no_pack_is_too_full(lengths):
    for packs in (
        best_fit(lengths, CAPACITY),
        grouped(np.arange(len(lengths)), lengths, CAPACITY),
    ):
        assert sorted(packs.rows.tolist()) == list(range(len(lengths)))
        fills = _fills(packs, lengths)
        assert sum(fills) == lengths.sum()
        assert all(0 < fill <= CAPACITY for fill in fills)


@given(LENGTHS)
def test_best_fit_is_best_fit_decreasing(lengths):
    packs = best_fit(lengths, CAPACITY)
    assert sorted(_fills(packs, lengths)) == sorted(_one_at_a_time(lengths, CAPACITY))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8).map(lambda some: np.array(some)))
def test_the_bounds_hold(lengths):
    packs = best_fit(lengths, 20)
    fewest = _fewest(lengths, 20)
    assert fewest <= len(packs) <= 11 / 9 * fewest + 4
    assert sum(2 * fill <= 20 for fill in _fills(packs, lengths)) <= 1


@given(LENGTHS, st.randoms())
def test_grouped_keeps_the_order_and_closes_a_pack_only_when_it_must(lengths, random):
    order = np.array(random.sample(range(len(lengths)), len(lengths)), dtype=np.int64)
    packs = grouped(order, lengths, CAPACITY)
    assert packs.rows.tolist() == order.tolist()
    fills = _fills(packs, lengths)
    for place, fill in enumerate(fills[:-1]):
        assert fill + lengths[packs[place + 1][0]] > CAPACITY


def test_a_row_that_no_pack_holds_is_refused():
    lengths = np.array([3, 51])
    with pytest.raises(TrainingError, match="row 1 has 51 tokens, a pack holds 1 to 50"):
        best_fit(lengths, CAPACITY)
    with pytest.raises(TrainingError, match="row 0 has 51 tokens"):
        grouped(np.array([1]), lengths, CAPACITY)
    with pytest.raises(TrainingError, match="row 0 has 0 tokens"):
        best_fit(np.array([0]), CAPACITY)


def test_rows_of_one_length_are_not_packed_beside_their_neighbours():
    packs = best_fit(np.full(1000, 10), 50)
    nearest = min(int(np.diff(np.sort(packs[place])).min()) for place in range(len(packs)))
    assert nearest == 200


def test_many_rows_are_packed_quickly_and_tightly():
    lengths = np.random.default_rng(0).lognormal(5.5, 0.8, 300_000).clip(1, 2048).astype(np.int64)
    began = time.process_time()
    packs = best_fit(lengths, 2048)
    assert time.process_time() - began < 2
    assert lengths.sum() > 0.995 * 2048 * len(packs)


def _plan(lengths, **changes):
    options = {
        "inputs": [0, len(lengths)], "budgets": [2 * int(lengths.sum())], "batch_tokens": 150,
        "capacity": CAPACITY, "packing": "best_fit", "seed": 0,
    }  # fmt: skip
    return plan_packs(lengths, **{**options, **changes})


def _rows(steps) -> list[int]:
    return [row for step in steps for pack in step for row in pack.tolist()]


@given(SOME, HOW, st.integers(1, 3))
def test_whole_epochs_in_packs_cover_every_row_as_often(lengths, packing: str, epochs: int):
    steps = _plan(lengths, packing=packing, budgets=[epochs * int(lengths.sum())])
    assert sorted(_rows(steps)) == sorted(list(range(len(lengths))) * epochs)
    for step in steps:
        assert 1 <= len(step) <= 150 // CAPACITY
        assert all(lengths[pack].sum() <= CAPACITY for pack in step)
        assert len(set(_rows([step]))) == len(_rows([step]))


@given(SOME, SOME, HOW, st.integers(0, 400), st.integers(1, 400))
def test_each_input_has_its_own_budget_in_packs(one, other, packing: str, first: int, second: int):
    lengths = np.concatenate([one, other])
    inputs = [0, len(one), len(lengths)]
    drawn = _rows(_plan(lengths, inputs=inputs, budgets=[first, second], packing=packing))
    of_one = int(sum(lengths[row] for row in drawn if row < len(one)))
    of_other = int(sum(lengths[row] for row in drawn if row >= len(one)))
    assert first <= of_one < first + one.max()
    assert second <= of_other < second + other.max()


def test_a_curriculum_keeps_its_order():
    lengths = np.random.default_rng(3).integers(1, CAPACITY, 200)
    steps = _plan(
        lengths, inputs=[0, 120, 200], budgets=[int(lengths[:120].sum()), int(lengths[120:].sum())],
        packing="in_order",
    )  # fmt: skip
    assert _rows(steps) == list(range(200))
    assert _rows(_plan(lengths, packing="grouped"))[:200] != list(range(200))


def test_the_seed_decides_the_packs():
    lengths = np.random.default_rng(3).integers(1, CAPACITY, 200)
    plans = [_rows(_plan(lengths, seed=seed)) for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]
    assert plans[0][:200] != plans[0][200:]


@given(SOME, st.integers(1, 9), st.integers(1, 6))
def test_every_rank_has_as_many_passes(lengths, num_micros: int, num_ranks: int):
    microbatches = np.array_split(np.arange(len(lengths)), min(num_micros, len(lengths)))
    dealt = shard_microbatches(microbatches, lengths, num_ranks)
    assert len(dealt) == num_ranks
    assert {len(passes) for passes in dealt} == {-(-len(microbatches) // num_ranks)}
    rows = [row for passes in dealt for some in passes for row in some.tolist()]
    assert sorted(rows) == list(range(len(lengths)))


def test_passes_of_one_turn_are_of_like_size():
    lengths = np.arange(1, 41)
    dealt = shard_microbatches([np.array([row]) for row in range(40)], lengths, 4)
    sums = [sum(int(lengths[some].sum()) for some in passes) for passes in dealt]
    assert max(sums) - min(sums) <= 4
    for turn in range(10):
        sizes = [int(lengths[passes[turn]].sum()) for passes in dealt]
        assert max(sizes) - min(sizes) <= 3


def test_fewer_rows_than_ranks_leave_passes_empty():
    dealt = shard_microbatches([np.array([0, 1])], np.array([5, 7]), 4)
    assert sorted(len(passes[0]) for passes in dealt) == [0, 0, 1, 1]
