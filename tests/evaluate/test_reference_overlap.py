"""Text overlap: against references written otherwise, and on the published Vicuna answers."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spyhop.evaluate.overlap import METRICS, overlap_metrics, text_overlap
from spyhop.schema import InputError

WORDS = st.lists(
    st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "big"]), min_size=1, max_size=12
)


@settings(max_examples=40)
@given(WORDS, WORDS)
def test_rouge_is_the_f_measure_of_shared_n_grams(first: list[str], second: list[str]):
    found = overlap_metrics(" ".join(first), [" ".join(second)])
    for n in (1, 2):
        a, b = (
            Counter(tuple(w[i : i + n]) for i in range(len(w) - n + 1)) for w in (first, second)
        )
        shared = 2 * (a & b).total() / max(1, a.total() + b.total())
        assert found[f"rouge{n}"] == pytest.approx(shared)
    assert all(0 <= found[name] <= 1 for name in METRICS)


def test_meteor_matches_stems_and_no_synonyms():
    """1 - 0.5 / 3^3 for three words in one chunk; a synonym is no match."""
    one_chunk = 1 - 0.5 / 27
    assert overlap_metrics("dogs run fast", ["dog runs fast"])["meteor"] == pytest.approx(one_chunk)
    assert overlap_metrics("automobile", ["car"])["meteor"] == 0
    assert overlap_metrics("", ["car"])["meteor"] == 0


def test_the_best_reference_counts():
    response = "a calm sea"
    for name, value in overlap_metrics(response, ["nothing shared here", response]).items():
        assert value == pytest.approx(overlap_metrics(response, [response])[name]), name


@pytest.mark.parametrize("references", [[], [[]], [["a"], ["b"]]])
def test_a_response_without_a_reference_is_refused(references: list[list[str]]):
    with pytest.raises(InputError, match="needs one reference"):
        text_overlap(["a"], references)


def test_references_may_differ_in_number():
    scores, signatures = text_overlap(["a b c d", "e f g h"], [["a b c d"], ["x", "e f g h"]])
    assert scores["bleu"] == pytest.approx(1)
    assert "nrefs:var" in signatures["bleu"] and "version:" in signatures["chrf"]


@pytest.mark.slow
def test_published_answers_of_three_models_against_a_fourth(data_dir: Path):
    """The 80 Vicuna questions; Vicuna's answers are nearest to GPT-3.5's by every metric."""
    folder = data_dir / "vicuna80_answers_reviews/answer"

    def answers(name: str) -> dict[int, str]:
        rows = map(json.loads, (folder / f"answer_{name}.jsonl").read_text().splitlines())
        return {row["question_id"]: row["text"] for row in rows}

    reference = answers("gpt35")
    found = {}
    for name in ("vicuna-13b", "alpaca-13b", "llama-13b"):
        mine = answers(name)
        found[name], _ = text_overlap(
            [mine[row] for row in reference], [[text] for text in reference.values()]
        )
    assert len(reference) == 80
    for metric in METRICS:
        order = sorted(found, key=lambda name: -found[name][metric])
        assert order[0] == "vicuna-13b", metric
    bleu = {name: round(100 * each["bleu"], 2) for name, each in found.items()}
    assert bleu == {"vicuna-13b": 16.42, "alpaca-13b": 4.76, "llama-13b": 4.94}
