from pathlib import Path

import numpy as np
import pytest

from fake import FakeModel
from pairing import artifact, pair
from spyhop.curate import LikelihoodConfig, rate_by_likelihood
from spyhop.curate.rate import fifths
from spyhop.models import Local, ModelUse, TokenLogprobs
from spyhop.runtime import Runtime
from spyhop.schema import ModelError, Pair
from spyhop.store import Artifact, Source


class Weighing(FakeModel):
    """Weighs a response by the number in it; without an instruction by half of that."""

    def logprobs(self, batch):
        self.calls += len(batch)
        return [self._weigh(request) for request in batch]

    def _weigh(self, request):
        words = request.continuation.split()
        if "9" in words:
            return TokenLogprobs(id=request.id, values=[], error="long")
        is_asked = bool(request.messages[-1].content)
        each = -float(words[1]) * (1.0 if is_asked else 0.5)
        return TokenLogprobs(id=request.id, values=[each] * len(words))


def _rows(root: Path, pairs: Artifact, model: object, **changes: object) -> list[Pair]:
    config = LikelihoodConfig.model_validate(changes)
    made = rate_by_likelihood.run(
        root, config, runtime=Runtime(max_error_frac=0.2), pairs=pairs, model=model
    )
    return list(made.rows(Pair))


def test_likelier_responses_get_higher_fifths_in_the_order_of_the_input(tmp_path: Path):
    places = [3, 0, 7, 1, 9, 5, 2, 8, 4, 6, 10]
    pairs = artifact(tmp_path / "p", [pair(n) for n in places])
    rows = _rows(tmp_path, pairs, Weighing([]))
    found = {n: row.rating for n, row in zip(places, rows, strict=True) if row.rating}
    assert [row.id for row in rows] == [pair(n).id for n in places]
    assert {n: rating.score for n, rating in found.items()} == {
        0: 5, 1: 5, 2: 4, 3: 4, 4: 3, 5: 3, 6: 2, 7: 2, 8: 1, 10: 1, 9: None,
    }  # fmt: skip
    assert found[9].missing == "failed" and found[3].value == -3.0
    assert {rating.method for rating in found.values()} == {"likelihood"}


def test_the_likelihood_of_the_response_alone_is_taken_off(tmp_path: Path):
    pairs = artifact(tmp_path / "p", [pair(n) for n in range(6)])
    model = Weighing([])
    rows = _rows(tmp_path, pairs, model, is_relative=True)
    assert [row.rating.value for row in rows if row.rating] == [-n / 2 for n in range(6)]
    assert model.calls == 12


def test_it_is_the_models_own_likelihood(tmp_path: Path, tiny_folder: Path):
    pairs = artifact(tmp_path / "p", [pair(n) for n in range(7)])
    use = ModelUse(Local(), Source(tiny_folder).open(tmp_path))
    rows = _rows(tmp_path, pairs, use)
    alone = artifact(tmp_path / "one", [pair(3)])
    (one,) = _rows(tmp_path, alone, use)
    assert one.rating is not None and rows[3].rating is not None
    assert one.rating.value == pytest.approx(rows[3].rating.value, abs=1e-5)
    values = [row.rating.value for row in rows if row.rating]
    scores = [row.rating.score for row in rows if row.rating]
    assert sorted(scores) == [1, 1, 2, 3, 3, 4, 5]
    assert np.argmax(values) == np.argmax(scores)


def test_fifths_are_even_and_pass_over_what_is_missing():
    values = np.array([np.nan, *range(20), np.nan])
    found = fifths(values)[1:-1]
    assert found.tolist() == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4
    assert fifths(np.array([])).tolist() == []
    assert fifths(np.array([1.0])).tolist() == [1]
    assert len(fifths(np.array([np.nan, np.nan]))) == 2


def test_too_many_that_cannot_be_weighed_fail_the_stage(tmp_path: Path):
    pairs = artifact(tmp_path / "p", [pair(9), pair(1)])
    with pytest.raises(ModelError, match="1 of 2 calls failed"):
        _rows(tmp_path, pairs, Weighing([]))
