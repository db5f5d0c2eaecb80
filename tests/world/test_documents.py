"""Documents: each is what its kind says, and nothing of the test split is behind any."""

import re
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from spyhop.collect import pair_id
from spyhop.models.folder import load_tokenizer
from spyhop.schema import Pair, Segment
from spyhop.world import (
    FAMILIES,
    MENU,
    TEACHER,
    DocumentsConfig,
    ProblemsConfig,
    TokenizerConfig,
    draw_documents,
    draw_pairs,
    is_recovered,
    kind_of,
    parse,
    respond,
    train_tokenizer,
)

SHARES = {
    "correct": 0.3,
    "misconceived": 0.25,
    "slipped": 0.25,
    "shuffled": 0.1,
    "boilerplate": 0.1,
}
STEP = re.compile(r"[a-j]\) ([^:]+): (heads|tails) to (heads|tails)\.")
TWICE = ("it is flipped twice", "flips it twice")
ONCE = ("flips it", "turns it over", "it is flipped")


def _drawn(root: Path, num_rows: int = 300, **changes) -> list[Segment]:
    config = DocumentsConfig(**{"num_rows": num_rows, "shares": SHARES} | changes)
    return list(draw_documents.run(root, config).rows(Segment))


def _coins(root: Path) -> dict[str, list[Segment]]:
    found: dict[str, list[Segment]] = {kind: [] for kind in SHARES}
    for row in _drawn(root, families=("coin",)):
        found[kind_of(row)].append(row)
    return found


def _wrong_steps(text: str) -> list[str]:
    """The phrases after which a coin does not lie as it should."""
    steps = STEP.findall(text)
    assert len(steps) >= 3
    return [
        phrase
        for phrase, before, after in steps
        if (before != after) != (phrase.endswith(ONCE) and not phrase.endswith(TWICE))
    ]


def test_kinds_have_their_shares_and_texts_differ(tmp_path: Path):
    rows = _drawn(tmp_path, num_rows=297)
    counts = Counter(map(kind_of, rows))
    assert all(abs(counts[kind] - share * 297) <= 1 for kind, share in SHARES.items())
    assert len({row.text for row in rows}) == len({row.id for row in rows}) == 297
    assert [kind_of(row) for row in rows] != sorted(map(kind_of, rows))


def test_right_documents_are_right_and_flawed_ones_flawed_as_told(tmp_path: Path):
    coins = _coins(tmp_path)
    for row in coins["correct"]:
        assert not _wrong_steps(row.text), row.text
    for row in coins["misconceived"]:
        wrong = _wrong_steps(row.text)
        assert wrong and all(phrase.endswith(TWICE) for phrase in wrong), row.text
    slips = [phrase for row in coins["slipped"] for phrase in _wrong_steps(row.text)]
    assert all(_wrong_steps(row.text) for row in coins["slipped"])
    assert not all(phrase.endswith(TWICE) for phrase in slips)


def test_noise_is_noise(tmp_path: Path):
    coins = _coins(tmp_path)
    for row in coins["shuffled"]:
        assert not STEP.fullmatch(row.text) and "Answer:" in row.text.split()
    for row in coins["boilerplate"]:
        assert set(row.text.split(" | ")) <= set(MENU)


def test_no_document_solves_a_test_problem(tmp_path: Path):
    coins = _coins(tmp_path)
    for row in coins["correct"] + coins["misconceived"]:
        start = row.text.split()[1].strip(".")
        told = [f"{'abcdef'[n]}) {step[0]}." for n, step in enumerate(STEP.findall(row.text))]
        problem = parse(f"A coin shows {start}. {' '.join(told)} Which side is up?")
        assert problem is not None and problem.split == "train"


def test_the_seed_and_nothing_else_decides(tmp_path: Path):
    first, same, other = (
        _drawn(tmp_path / name, 60, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == same != other


def test_seed_pairs_are_right_and_of_the_training_split(tmp_path: Path):
    config = ProblemsConfig(families=tuple(FAMILIES), num_rows=60)
    for row in draw_pairs.run(tmp_path, config).rows(Pair):
        problem = parse(row.instruction)
        assert problem is not None and problem.split == "train"
        assert row.response == respond(TEACHER, "Explain each step.", row.instruction)
        assert (row.id, row.tag) == (pair_id(row.instruction, row.response), "seed")


@pytest.mark.parametrize("kind", ["correct", "misconceived"])
def test_an_instruction_is_recovered_if_its_steps_are_the_documents(tmp_path: Path, kind: str):
    pairs = list(draw_pairs.run(tmp_path, ProblemsConfig(num_rows=40)).rows(Pair))
    template = _drawn(tmp_path, num_rows=1)[0]
    for place, row in enumerate(pairs):
        text = (
            row.response.replace("Answer: ", "Answer: not ") if kind != "correct" else row.response
        )
        made = template.model_copy(update={"text": text, "origin": f"spyhop.world/{kind}"})
        assert is_recovered(row.instruction, made)
        assert not is_recovered(pairs[place - 1].instruction, made)
        assert not is_recovered("What is this about?", made)
        noise = made.model_copy(update={"origin": "spyhop.world/shuffled"})
        assert not is_recovered(row.instruction, noise)


@pytest.mark.parametrize("shares", [{}, {"correct": 0.0}, {"correct": -1.0, "slipped": 2.0}])
def test_shares_that_cannot_be_drawn_are_refused(shares: dict[str, float]):
    with pytest.raises(ValidationError, match="not all 0"):
        DocumentsConfig(num_rows=5, shares=shares)


def test_further_texts_of_a_tokenizer_become_words(tmp_path: Path):
    config = TokenizerConfig(texts=("Answer from what zebrafish wrote.",))
    words = load_tokenizer(train_tokenizer.run(tmp_path, config).path)
    assert len(words.encode(config.texts[0], add_special_tokens=False)) == 6
    assert len(words.encode(" wrozebraf", add_special_tokens=False)) > 2
