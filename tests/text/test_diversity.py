import itertools
from collections import Counter
from statistics import fmean

import pytest

from spyhop.text.diversity import Diversity, diversity


@pytest.mark.parser
def test_a_parser_reads_verbs_and_objects():
    texts = ["I would be glad if you wrote a poem.", "Could you list all the countries?", "Why?"]
    found = diversity(texts)
    assert found.pairs["list", "country"] == 1 and found.num_instructions == 3
    assert found.reader.startswith("spaCy 3")


def test_entropy_and_verbs_of_pairs():
    found = Diversity(4, Counter({("write", "poem"): 2, ("draw", "map"): 1}))
    verbs = [verb for verb, _ in found.pairs.elements()]
    assert found.num_read == 3 and sorted(verbs) == ["draw", "write", "write"]
    assert found.entropy_bits == pytest.approx(0.918, abs=0.001)
    assert Diversity(0, Counter()).entropy_bits == 0


def test_distinct_pairs_of_a_smaller_draw_are_the_mean_over_all_draws():
    pairs = [("write", "poem")] * 3 + [("draw", "map")] * 2 + [("list", "name")]
    found = Diversity(6, Counter(pairs))
    for size in range(1, 7):
        every = [len(set(some)) for some in itertools.combinations(pairs, size)]
        assert found.distinct(size) == pytest.approx(fmean(every))
    assert found.distinct(100) == 3
