"""Seconds of fuzzing; `answer_fuzz.py` runs for as long as one likes."""

import pytest

pytest.importorskip("math_verify")

from answer_fuzz import fuzz


@pytest.mark.slow
def test_no_wrong_answer_is_accepted_and_right_ones_are_read():
    found = fuzz(25, seed=1)
    assert not found.accepted, found.accepted[:5]
    assert found.counts["right"] > 300 and found.read_frac() >= 0.95, found.missed[:20]
    assert len(found.differing) < 0.15 * found.counts["mutated"]
