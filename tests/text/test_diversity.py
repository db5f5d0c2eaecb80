import itertools
import json
from collections import Counter
from pathlib import Path
from statistics import fmean

import pytest

from spyhop.text.diversity import Diversity, diversity, verb_noun
from spyhop.text.parser import parsed_verb_nouns


@pytest.mark.parametrize(
    ("instruction", "found"),
    [
        ("Write a short story about a whale.", ("write", "story")),
        ("Give me three tips for staying healthy", ("give", "tip")),
        ("Can you please explain the role of zinc?", ("explain", "role")),
        ("I want you to act as a travel guide.", None),
        ("Please, write me an apology letter explaining the delay.", ("write", "letter")),
        ("List all countries of Europe", ("list", "country")),
        ("Help me plan a birthday party", ("plan", "party")),
        ("Here is a text.\nSummarise the main argument in two lines:", ("summarise", "argument")),
        ("What is the capital of France?", None),
        ("The whale swims.", None),
        ("Explain how a bicycle stays upright", None),
        ("Fix it", None),
        ("1. Find the roots of the polynomial", ("find", "root")),
        ("Design class hierarchies for zoo animals", ("design", "hierarchy")),
        ("", None),
        ("...", None),
        ("Tell me your boss's address", ("tell", "address")),
    ],
)  # fmt: skip
def test_verb_and_noun(instruction: str, found: tuple[str, str] | None):
    assert verb_noun(instruction) == found


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("movies", "movie"), ("cookies", "cookie"), ("calories", "calorie"), ("bias", "bias"),
        ("countries", "country"), ("series", "series"), ("lens", "lens"), ("classes", "class"),
        ("boxes", "box"), ("quizzes", "quiz"), ("people", "person"), ("analyses", "analysis"),
        ("physics", "physics"), ("viruses", "virus"), ("leaves", "leaf"), ("tips", "tip"),
        ("news", "news"), ("causes", "cause"), ("shoes", "shoe"), ("lives", "life"),
    ],
)  # fmt: skip
def test_nouns_are_put_into_the_singular(plural: str, singular: str):
    assert verb_noun(f"List the {plural} of the story.") == ("list", singular)


@pytest.mark.parser
def test_a_parser_reads_more():
    texts = ["I would be glad if you wrote a poem.", "Could you list all the countries?", "Why?"]
    assert list(parsed_verb_nouns(texts))[1:] == [("list", "country"), None]
    assert diversity(texts).reader.startswith("spaCy 3")


def test_what_cannot_be_read_is_counted():
    found = diversity(["Write a poem", "Write a poem", "Draw a map", "Why?"])
    assert (found.num_instructions, found.num_read, len(found.pairs)) == (4, 3, 2)
    assert found.verbs == {"write": 2, "draw": 1}
    assert found.entropy_bits == pytest.approx(0.918, abs=0.001)
    assert diversity([]).entropy_bits == 0


def test_distinct_pairs_of_a_smaller_draw_are_the_mean_over_all_draws():
    pairs = [("write", "poem")] * 3 + [("draw", "map")] * 2 + [("list", "name")]
    found = Diversity(6, Counter(pairs))
    for size in range(1, 7):
        every = [len(set(some)) for some in itertools.combinations(pairs, size)]
        assert found.distinct(size) == pytest.approx(fmean(every))
    assert found.distinct(100) == 3


def test_the_seed_tasks_of_self_instruct_open_with_verbs(data_dir: Path):
    lines = (data_dir / "self_instruct" / "data" / "seed_tasks.jsonl").read_text().splitlines()
    found = diversity(json.loads(line)["instruction"] for line in lines)
    assert found.num_instructions == 175
    assert found.num_read / 175 > 0.55
    assert found.verbs.most_common(1)[0][0] in ("write", "give", "find", "generate")
