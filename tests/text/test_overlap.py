import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spyhop.text.overlap import (
    Duplicate,
    Duplicates,
    NearConfig,
    batches,
    fingerprint,
    hash_runs,
    signatures,
    words,
)

NEAR = NearConfig()


def _text(draw: random.Random, num_words: int, vocabulary: int = 3000) -> list[str]:
    return [f"w{draw.randrange(vocabulary)}" for _ in range(num_words)]


def _edited(draw: random.Random, text: list[str], num_edits: int) -> list[str]:
    changed = list(text)
    for place in draw.sample(range(len(text)), num_edits):
        changed[place] = f"edit{draw.randrange(10**9)}"
    return changed


def _runs(texts: list[str], ngram_words: int) -> Any:
    return hash_runs([words(text) for text in texts], ngram_words)


def _jaccard(first: str, second: str, ngram_words: int) -> float:
    """The share of common runs of words among all of the two texts."""
    one, two = (set(_runs([text], ngram_words)[0].tolist()) for text in (first, second))
    return len(one & two) / len(one | two)


def _found(folder: Path, texts: list[str], config: NearConfig = NEAR) -> list[Duplicate]:
    folder.mkdir(exist_ok=True)
    duplicates = Duplicates(folder, config)
    try:
        duplicates.add(texts)
        return list(duplicates.find())
    finally:
        duplicates.close()


def test_words_have_no_case_and_no_marks():
    found = words("The  CAT's_hat: 3.5 kg, caf\u00e9!")
    assert found == ["the", "cat", "s", "hat", "3", "5", "kg", "caf\u00e9"]
    assert words("\u6211\u4eec go \u304b\u306a") == ["\u6211", "\u4eec", "go", "\u304b", "\u306a"]
    assert words(" .,-_\n") == []


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("\uff28ello\uff0c \uff17\uff0b\uff13", "hello, 7+3"),
        ("zero\u200bwidth soft\u00adhyphen", "zerowidth softhyphen"),
        ("Un cafe\u0301, s'il vous plai\u0302t", "un caf\u00e9 s il vous pla\u00eet"),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e",
            "\u0939\u093f\u0928\u094d\u0926\u0940\u3000\u092d\u093e\u0937\u093e!",
        ),
        ("WEISS", "wei\u00df"),
    ],
)
def test_one_text_in_two_encodings_has_the_same_words(one: str, two: str):
    assert words(one) == words(two) and len(words(one)) > 0


def test_vowel_signs_are_part_of_their_words():
    assert words("\u0939\u093f\u0928\u094d\u0926\u0940") == [
        "\u0939\u093f\u0928\u094d\u0926\u0940"
    ]  # Hindi
    assert words("\u0b95\u0bbe \u0b95\u0bbf") == ["\u0b95\u0bbe", "\u0b95\u0bbf"]  # Tamil kaa, ki
    assert words("\u0b95\u0bbe") != words("\u0b95\u0bbf")


@given(st.text())
def test_the_ascii_way_and_the_other_find_the_same_words(text: str):
    plain = "".join(char for char in text if char.isascii())
    assert words(f"{plain} \u00e9")[:-1] == words(plain)


@pytest.mark.parametrize(
    ("one", "two"),
    [("7 + 3", "7 - 3"), ("5 < 3?", "5 > 3?"), ("[ {", "( ["), ("in C.", "in C#."), ("1/3", "1 3")],
)
def test_signs_count_for_a_fingerprint(one: str, two: str):
    assert fingerprint(one) != fingerprint(two)


def test_a_fingerprint_is_of_the_words_and_the_same_for_ever():
    assert fingerprint("Hello, world") == fingerprint("hello WORLD!") != fingerprint("world hello")
    assert fingerprint("hello world") == 0xB94D27B9934D3E08  # SHA-256, on any machine
    assert fingerprint("lone \ud800 surrogate") == fingerprint("LONE \ud800 surrogate")


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "ab", "\u00e4\u00df", "\u4e2d"]), max_size=8)),
    st.integers(1, 4),
)
def test_equal_runs_have_equal_hashes_and_others_do_not(texts: list[list[str]], length: int):
    hashes, begins = _runs([" ".join(text) for text in texts], length)
    runs = [
        tuple(text[at : at + length])
        for text in ([word for word in words(" ".join(text))] for text in texts)
        for at in range(max(len(text) - length + 1, 1 if text else 0))
    ]
    assert len(hashes) == len(runs) == begins[-1]
    pairs = set(zip(hashes.tolist(), runs, strict=True))
    assert len(pairs) == len(set(runs)) == len(set(hashes.tolist()))


def test_a_hash_does_not_depend_on_what_stands_around():
    alone, _ = _runs(["c d e"], 3)
    among, begins = _runs(["x", "a b c d e f", ""], 3)
    assert alone[0] == among[begins[1] + 2]
    assert _runs([], 3)[0].size == _runs(["", " "], 3)[0].size == 0


def test_signatures_estimate_the_jaccard_similarity():
    draw = random.Random(1)
    errors = []
    for _ in range(300):
        first = _text(draw, 250)
        second = _edited(draw, first, draw.randrange(25))
        one, two = " ".join(first), " ".join(second)
        numbers = signatures([first, second], NEAR)
        errors.append(float((numbers[0] == numbers[1]).mean()) - _jaccard(one, two, 5))
    assert abs(np.mean(errors)) < 4 * 0.046 / np.sqrt(300)  # sqrt(0.25 / 120) at the worst
    assert np.std(errors) < 0.05


def test_signatures_do_not_depend_on_batches_or_blocks():
    draw = random.Random(2)
    texts = [" ".join(_text(draw, num)) for num in (0, 1, 3, 5, 40_000, 2, 0, 700)] * 2
    split = [words(text) for text in texts]
    together = signatures(split, NEAR)
    alone = np.concatenate([signatures([each], NEAR) for each in split])
    assert (together == alone).all()
    assert (together[0] == 2**32 - 1).all() and not (together[1] == 2**32 - 1).any()


def test_exact_and_near_duplicates_name_the_first(tmp_path: Path):
    draw = random.Random(3)
    first, other = _text(draw, 200), _text(draw, 200)
    near = _edited(draw, first, 2)
    texts = [" ".join(text) for text in (first, other, near, first, near, other)]
    found = _found(tmp_path, [*texts, texts[0].upper() + "!"])
    assert [(each.row, each.kept, each.kind) for each in found] == [
        (2, 0, "near"), (3, 0, "exact"), (4, 0, "exact"), (5, 1, "exact"), (6, 0, "exact"),
    ]  # fmt: skip
    assert found[0].similarity == pytest.approx(_jaccard(texts[0], texts[2], 5), abs=0.12)


def test_a_chain_is_not_dropped_as_one(tmp_path: Path):
    draw = random.Random(4)
    links = [_text(draw, 300)]
    for _ in range(6):
        links.append(_edited(draw, links[-1], 5))
    texts = [" ".join(link) for link in links]
    assert all(_jaccard(one, two, 5) > 0.8 for one, two in pairwise(texts))
    assert _jaccard(texts[0], texts[-1], 5) < 0.4
    found = _found(tmp_path, texts)
    dropped = {each.row for each in found}
    assert 0 < len(dropped) < len(texts) - 1
    for each in found:
        assert each.kept not in dropped and _jaccard(texts[each.row], texts[each.kept], 5) > 0.7


def test_empty_texts_are_copies_of_each_other_and_of_nothing_else(tmp_path: Path):
    found = _found(tmp_path, ["", "one two", "...", "three"])
    assert [(each.row, each.kept, each.kind) for each in found] == [(2, 0, "exact")]
    assert _found(tmp_path / "none", []) == []


def test_short_texts_are_compared_whole(tmp_path: Path):
    found = _found(tmp_path, ["yes", "no", "Yes.", "yes no", "one two three", "one two four"])
    assert [(each.row, each.kept) for each in found] == [(2, 0)]


def test_the_split_into_batches_and_threads_changes_nothing(tmp_path: Path):
    draw = random.Random(5)
    texts = [" ".join(_text(draw, 60)) for _ in range(150)]
    texts += [" ".join(_edited(draw, text.split(), 1)) for text in texts]
    draw.shuffle(texts)
    whole = _found(tmp_path / "whole", texts)
    (tmp_path / "one").mkdir()
    one_by_one = Duplicates(tmp_path / "one", NEAR, threads=3, memory_mb=200)
    for text in texts:
        one_by_one.add([text])
    assert list(one_by_one.find()) == whole
    assert len(whole) > 100


def test_planted_near_duplicates_are_found_and_nothing_else(tmp_path: Path):
    draw = random.Random(6)
    texts, planted = [], {}
    for _ in range(1500):
        text = _text(draw, draw.randrange(60, 300))
        texts.append(" ".join(text))
        if draw.random() < 0.3:
            planted[len(texts)] = len(texts) - 1
            texts.append(" ".join(_edited(draw, text, 1 + len(text) // 150)))
    near = {
        late: early
        for late, early in planted.items()
        if _jaccard(texts[late], texts[early], 5) > 0.9
    }
    found = {each.row: each.kept for each in _found(tmp_path, texts)}
    assert set(found.items()) <= set(planted.items())
    assert len(near) > 200 and len(set(near) & set(found)) > 0.98 * len(near)


def test_a_page_that_stands_everywhere_costs_no_square(tmp_path: Path):
    draw = random.Random(7)
    page = _text(draw, 400)
    texts = [" ".join(_edited(draw, page, 1)) for _ in range(3000)]
    found = _found(tmp_path, texts)
    assert len(found) == 2999 and {each.kept for each in found} == {0}


def test_batches_are_bounded_by_number_and_length():
    assert [len(each) for each in batches(["x"] * 2500)] == [1024, 1024, 452]
    assert [len(each) for each in batches(["x" * (1 << 20)] * 5)] == [2, 2, 1]


def test_copies_across_public_sets_are_found(data_dir: Path, tmp_path: Path):
    lines = (data_dir / "gsm8k/train.jsonl").read_text().splitlines()
    train = [json.loads(line)["question"] for line in lines]
    lines = (data_dir / "flan_cot/cot_data/gsm8k_train.tsv").read_text().splitlines()
    again = [line.split("\t")[0].replace("\\n", "\n") for line in lines]
    found = _found(tmp_path, train + again)
    assert sum(each.row >= len(train) for each in found) >= 7400
