"""The built-in linear classifier and its AUC."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spyhop.statistics.linear import auc, fit_linear

GOOD = ["the sun is warm", "a calm sea", "birds sing in the morning", "soft rain falls"]
SHARP = ["the knife is sharp", "a sharp edge", "that blade cuts", "needles are sharp!"]


def test_it_learns_words_and_orders_unseen_texts():
    found = fit_linear([*GOOD, *SHARP], [False] * 4 + [True] * 4)
    seen = found(["a sharp blade", "calm rain"])
    assert seen[0] > 0.5 > seen[1]
    assert np.isfinite(found(["", "unknown"])).all()


@pytest.mark.parametrize("labels", [[], [True, True]])
def test_one_class_is_refused(labels: list[bool]):
    with pytest.raises(ValueError, match="both classes"):
        fit_linear(["a"] * len(labels), labels)
    with pytest.raises(ValueError, match="both classes"):
        auc([0.5] * len(labels), labels)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_the_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]):
    positive = [score for score, is_so in rows if is_so]
    negative = [score for score, is_so in rows if not is_so]
    if not positive or not negative:
        return
    pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    found = auc([score for score, _ in rows], [is_so for _, is_so in rows])
    assert found == pytest.approx(sum(pairs) / len(pairs))


def test_hateful_prompts_of_unseen_groups_are_told_from_neutral_ones(data_dir: Path):
    """The figure that the documentation states; one family of groups is left out."""
    texts: dict[tuple[bool, str], bool] = {}
    for path in (data_dir / "toxigen/prompts").glob("*.txt"):
        is_own = path.stem.endswith(("asian_1k", "chinese_1k"))
        for line in path.read_text().replace("\\n", "\n").splitlines():
            if text := line.strip().removeprefix("-").strip():
                texts[is_own, text] = path.stem.startswith("hate")
    train = {text: label for (is_own, text), label in texts.items() if not is_own}
    rest = {text: label for (is_own, text), label in texts.items() if is_own}
    found = fit_linear(list(train), list(train.values()))
    assert not set(train) & set(rest)
    assert auc(found(list(rest)), list(rest.values())) > 0.85
