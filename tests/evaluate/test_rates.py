"""Scores with their rates: which of them could reverse a difference, samples, sealed tests."""

import dataclasses
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import toys
from fake import FakeModel
from spyhop.evaluate import (
    ItemOverlap,
    MeasureConfig,
    SealConfig,
    TaskScores,
    differences,
    macro_average,
    measure,
    red_rates,
    seal,
    seal_state,
    sweep,
    task_scores,
)
from spyhop.evaluate.rates import could_reverse
from spyhop.schema import InputError, Item, Score
from spyhop.store import Artifact

CELLS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 1), st.booleans(), st.booleans()),
    min_size=1,
    max_size=5,
)


@given(CELLS)
def test_a_difference_is_reversed_if_any_touched_score_could_do_it(
    cells: list[tuple[int, int, bool, bool]],
):
    """Against every value that the touched scores can take."""
    a, b, in_a, in_b = (np.array(column) for column in zip(*cells, strict=True))
    shown = (b - a).mean()
    found = []
    for values in product((0.0, 1.0), repeat=2 * len(cells)):
        first = np.where(in_a, values[: len(cells)], a)
        second = np.where(in_b, values[len(cells) :], b)
        found.append((second - first).mean())
    wanted = min(found) < 0 if shown >= 0 else max(found) > 0
    assert could_reverse(a.astype(float), b.astype(float), in_a, in_b) == wanted


def _items(folder: Path, num: int, passages: int = 0) -> dict[str, Artifact]:
    rows = [
        Item(
            id=f"{n}", suite="s", task=f"t{n % 2}", question=f"{n}", options=["A", "B"],
            target="A", chance=0.5, passage=f"p{n % passages}" if passages else "",
        )
        for n in range(num)
    ]  # fmt: skip
    return {"s": toys.rows_artifact(folder, rows)}


def _scored(
    folder: Path, replies: list[str], name: str = "fake", passages: int = 0, **settings: Any
) -> Artifact:
    config = MeasureConfig.model_validate(settings)
    items = _items(folder / "items", len(replies) // config.num_samples, passages)
    return measure.run(folder, config, items=items, model=FakeModel(replies, name=name))


def test_each_rate_counts_its_own_replies(tmp_path: Path):
    scores = _scored(tmp_path, ["A", "hm", "", "B"])
    whole = task_scores("m", scores)[0]
    assert (whole.task, whole.n, whole.interval.value, whole.chance) == ("all", 4, 0.25, 0.5)
    rates = {rate: whole.rate(rate) for rate in ("no answer", "cut", "refused", "contaminated")}
    assert rates == {"no answer": 0.5, "cut": 0, "refused": 0.25, "contaminated": None}
    assert whole.strict == 0.25 and [t.task for t in task_scores("m", scores)][1:] == ["t0", "t1"]


def test_rates_are_red_only_where_they_could_change_the_sign(tmp_path: Path):
    good = task_scores("good", _scored(tmp_path / "1", ["A", "A", "A", "hm"]))[0]
    bad = task_scores("bad", _scored(tmp_path / "2", ["A", "B", "B", "B"]))[0]
    worse = task_scores("worse", _scored(tmp_path / "3", ["A", "hm", "hm", "B"]))[0]
    half = task_scores("half", _scored(tmp_path / "5", ["A", "B", "A", "B"]))[0]
    assert red_rates(good, bad) == []  # one unread answer cannot undo a lead of two
    assert red_rates(worse, half) == red_rates(half, worse) == ["no answer"]
    assert red_rates(good) == [] and red_rates(bad) == []  # against guessing, 0.5
    assert red_rates(task_scores("m", _scored(tmp_path / "4", ["A", "hm", "hm", "B"]))[0]) == [
        "no answer"
    ]


def test_contamination_is_a_rate_like_the_others(tmp_path: Path):
    overlaps = {
        "0": ItemOverlap(id="0", suite="s", task="t0", is_exact=True, is_checked=True),
        "1": ItemOverlap(id="1", suite="s", task="t1", short_run="a b", is_checked=True),
    }
    scores = task_scores("m", _scored(tmp_path, ["A", "A", "B", "A"]), overlaps)[0]
    assert scores.rate("contaminated") == 0.25  # eight words are often boilerplate
    assert red_rates(scores) == []
    worse = {name: overlaps["0"].model_copy(update={"id": name}) for name in "0123"}
    assert red_rates(task_scores("m", _scored(tmp_path, ["A", "A", "B", "A"]), worse)[0]) == [
        "contaminated"
    ]


def test_items_of_one_passage_are_resampled_together(tmp_path: Path):
    replies = ["A" if n % 4 in (0, 1) else "B" for n in range(40)]
    alone = task_scores("m", _scored(tmp_path / "1", replies))[0].interval
    together = task_scores("m", _scored(tmp_path / "2", replies, passages=4))[0].interval
    assert alone.value == together.value == 0.5
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_samples_have_an_error_pass_at_k_and_a_majority(tmp_path: Path):
    replies = ["A", "A", "B", "B", "A", "hm", "B", "B", "B", "A", "A", "A"]
    scores = _scored(tmp_path, replies, num_samples=4, sampling={"temperature": 0.7})
    whole = task_scores("m", scores)[0]
    figures = whole.samples
    assert figures is not None and (whole.n, whole.num_samples) == (3, 4)
    by_sample = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 1]]).mean(axis=0)
    assert figures.first == pytest.approx(by_sample[0])
    assert figures.error == pytest.approx(by_sample.std(ddof=1) / 2)
    assert figures.pass_at == {1: pytest.approx(0.5), 4: 1.0}
    assert figures.majority == pytest.approx((0.5 + 0 + 1) / 3)  # tie, B, A
    assert figures.variance is not None and figures.variance.samples == pytest.approx(
        np.mean([4 / 12, 0.25, 0.25])
    )


def test_a_macro_average_weighs_tasks_alike(tmp_path: Path):
    scores = task_scores("m", _scored(tmp_path, ["A", "B", "A", "A", "A"]))
    assert macro_average(scores).value == pytest.approx((1 + 0.5) / 2) != scores[0].interval.value


def _drawn(rng: np.random.Generator, num: int) -> list[TaskScores]:
    rows = [
        Score(
            id=f"{n}", suite="s", task="t", response="", extracted="A", correct=bool(right),
            target="A", chance=0.5, finish_reason="stop", response_tokens=1,
        )
        for n, right in enumerate(rng.integers(0, 2, num))
    ]  # fmt: skip
    return [TaskScores("m", "s", "t", MeasureConfig(), tuple(rows), 1)]


def test_a_message_is_chosen_on_other_items_than_it_is_scored_on():
    """Six messages of equal worth: the best one on the test items seems better than it is."""
    rng = np.random.default_rng(0)
    found = [sweep({f"m{n}": _drawn(rng, 50) for n in range(6)})[0] for _ in range(60)]
    assert np.mean([each.best_on_test for each in found]) > 0.56
    assert np.mean([each.chosen for each in found]) == pytest.approx(0.5, abs=0.03)


def test_messages_that_tie_share_the_choice(tmp_path: Path):
    scores = task_scores("m", _scored(tmp_path, ["A", "B"] * 10))
    for order in (("x", "y"), ("y", "x")):
        found = sweep({name: scores for name in order})[0]
        assert (found.num_best, found.chosen) == (2, 0.5)


def test_messages_with_other_items_are_refused(tmp_path: Path):
    one = task_scores("m", _scored(tmp_path / "1", ["A", "A"]))
    other = task_scores("m", _scored(tmp_path / "2", ["A", "A", "A"]))
    with pytest.raises(InputError, match="asked other items"):
        sweep({"a": one, "b": other})


SEALED = SealConfig(arms=("one", "two"), smallest_difference=0.02)


def _compared(
    root: Path, *, sealed: Artifact | None, names: tuple[str, ...]
) -> dict[str, Artifact]:
    items = _items(root / "items", 4)
    more = {} if sealed is None else {"sealed": sealed}
    return {
        name: measure.run(
            root, MeasureConfig(), items=items, model=FakeModel(["A"] * 4, name=name), **more
        )
        for name in names
    }


def test_what_is_declared_before_the_first_scoring_is_confirmatory(tmp_path: Path):
    sealed = seal.run(tmp_path, SEALED, items=_items(tmp_path / "items", 4))
    state = seal_state(_compared(tmp_path, sealed=sealed, names=("one", "two")), sealed)
    assert state.startswith("confirmatory") and "smallest difference of interest 2 points" in state


def test_what_is_declared_after_a_scoring_is_exploratory(tmp_path: Path):
    plain = _compared(tmp_path, sealed=None, names=("one",))
    assert seal_state(plain) == "exploratory, scored once"
    sealed = seal.run(tmp_path, SEALED, items=_items(tmp_path / "items", 4))
    state = seal_state(_compared(tmp_path, sealed=sealed, names=("one", "two")), sealed)
    assert state.startswith("exploratory, scored 3 times")
    assert "exploratory, scored 3 times" in state and "declared after" in state


def test_a_second_scoring_of_an_arm_is_exploratory(tmp_path: Path):
    sealed = seal.run(tmp_path, SEALED, items=_items(tmp_path / "items", 4))
    scores = _compared(tmp_path, sealed=sealed, names=("one", "two"))
    again = measure.run(
        tmp_path, MeasureConfig(system_message="Be right."), items=_items(tmp_path / "items", 4),
        model=FakeModel(["A"] * 4, name="two"), sealed=sealed,
    )  # fmt: skip
    state = seal_state({**scores, "two": again}, sealed)
    assert state.startswith("exploratory") and "scored again: two" in state
    assert seal_state({"one": scores["one"]}, sealed).endswith("not scored: two")


def test_a_part_of_the_items_was_scored_too(tmp_path: Path):
    few = measure.run(
        tmp_path, MeasureConfig(), items=_items(tmp_path / "few", 2), model=FakeModel(["A"] * 2)
    )
    assert seal_state({"m": few}) == "exploratory, scored once"
    sealed = seal.run(tmp_path, SEALED, items=_items(tmp_path / "items", 4))
    state = seal_state(_compared(tmp_path, sealed=sealed, names=("one", "two")), sealed)
    assert state.startswith("exploratory")


def test_the_same_scoring_counts_once_however_often_it_runs(tmp_path: Path):
    for _ in range(3):
        made = measure.run(
            tmp_path, MeasureConfig(), items=_items(tmp_path / "items", 4),
            model=FakeModel(["A"] * 4), force=True,
        )  # fmt: skip
    assert seal_state({"m": made}) == "exploratory, scored once"


def test_scores_by_different_metrics_are_not_compared(tmp_path: Path):
    """An endpoint without log-probabilities has only `acc`, whatever metric was asked for."""
    first = task_scores("m", _scored(tmp_path, ["A", "B"] * 4))
    renamed = tuple(score.model_copy(update={"metric": "acc"}) for score in first[0].scores)
    other = [dataclasses.replace(first[0], model="n", scores=renamed)]
    assert differences(first, other) == [] and differences(first, first)
