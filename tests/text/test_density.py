"""Nearness of training questions, against sums written out."""

import math
import random
from collections import Counter

import pytest

from spyhop.text.density import NEIGHBOURS, Density

WORDS = [f"w{n}" for n in range(40)]


def _weights(text: str, frequency: Counter, num: int) -> dict[str, float]:
    counts = Counter(text.split())
    return {
        word: (1 + math.log(n)) * (1 + math.log((1 + num) / (1 + frequency[word])))
        for word, n in counts.items()
    }


def _cosine(first: dict[str, float], second: dict[str, float]) -> float:
    shared = sum(value * second.get(word, 0.0) for word, value in first.items())
    norms = [math.sqrt(sum(value**2 for value in each.values())) for each in (first, second)]
    return shared / math.prod(norms)


@pytest.mark.parametrize("num_batches", [1, 4])
def test_density_is_the_mean_cosine_to_the_nearest_questions(num_batches: int):
    draw = random.Random(num_batches)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) for _ in range(60)]
    items, rows = texts[:8], [*dict.fromkeys(texts[8:])]
    rows += ["unseen words alone", "w1 w2 unseen"]
    density = Density(items)
    for start in range(0, len(rows), step := -(-len(rows) // num_batches)):
        density.add(rows[start : start + step])
    density.add(rows[:5])  # no new question
    frequency = Counter(word for text in items for word in {*text.split()})
    weigh = [_weights(text, frequency, len(items)) for text in rows]
    for item, found in zip(items, density.means(), strict=True):
        own = _weights(item, frequency, len(items))
        nearest = sorted((_cosine(own, each) for each in weigh), reverse=True)[:NEIGHBOURS]
        assert found == pytest.approx(sum(nearest) / NEIGHBOURS)


def test_few_or_wordless_questions_are_far():
    density = Density(["a b", "", "?!"])
    assert density.means().tolist() == [0, 0, 0]
    density.add(["a b", "", "..."])
    assert density.means() == pytest.approx([1 / NEIGHBOURS, 0, 0])
