import json
from pathlib import Path

import pytest

from spyhop.schema import Item, Query
from spyhop.text.contamination import (
    Contaminated,
    ContaminationConfig,
    ItemIndex,
    Match,
    without_items,
)
from spyhop.text.overlap import words

SENTENCE = "the quick brown fox jumps over the lazy dog and then it runs back into the dark wood"


def _item(name: str, question: str, **values: str) -> Item:
    return Item(id=name, suite="s", task="t", question=question, target="x", **values)


def _index(*items: tuple[str, str], **changes: int) -> ItemIndex:
    return ItemIndex([_item(*item) for item in items], ContaminationConfig(**changes))


def _query(text: str) -> Query:
    return Query(id=text[:9], collection="c", task="t", query=text, target="")


def _find(index: ItemIndex, *texts: str) -> list[Match | None]:
    rows = [_query(text) for text in texts]
    return [match for _, match in index.check(rows, lambda row: row.query)]


def _unchecked(index: ItemIndex) -> list[str]:
    return [item.id for item, known in zip(index.items, index.is_checked, strict=True) if not known]


@pytest.mark.parametrize("mark", ["", "!", " Indeed?"])
def test_a_text_that_contains_an_item_is_found(mark: str):
    index = _index(("item", SENTENCE))
    inside, outside, empty = _find(index, f"Once {SENTENCE.upper()}{mark}", "Once upon a time", "")
    assert inside is not None and index.items[inside.item].id == "item"
    assert inside.words == " ".join(words(SENTENCE)[:13])
    assert outside is empty is None and not _unchecked(index)


def test_twelve_words_in_common_are_not_enough_for_a_long_item():
    shared = " ".join(words(SENTENCE)[:12])
    assert _find(_index(("item", SENTENCE)), f"{shared} sleeps", shared) == [None, None]


def test_short_items_are_found_by_eight_words_and_shorter_ones_are_unchecked():
    short = " ".join(words(SENTENCE)[:9])
    index = _index(("nine", short), ("seven", " ".join(words(SENTENCE)[:7])), ("none", "?"))
    assert _unchecked(index) == ["seven", "none"]
    (found,) = _find(index, f"we saw how {SENTENCE}")
    assert found is not None and (found.item, len(found.words.split())) == (0, 8)


@pytest.mark.parametrize("item", ["Why not?", "7 + 3", "What burns?", "\u4e3a\u4ec0\u4e48"])
def test_a_text_that_equals_an_item_is_found_whatever_its_length(item: str):
    index = _index(("other", "What freezes?"), ("item", item))
    found, longer, changed = _find(
        index, f" **{item.upper()}** ", f"Tell me: {item} I ask.", item.replace("+", "-") + " x"
    )
    assert found is not None and (found.item, found.kind) == (1, "whole")
    assert longer is None and changed is None
    assert _find(index, "7 - 3") == [None]


def test_texts_without_words_equal_no_item():
    index = _index(("item", "?"), ("other", "..."))
    assert _find(index, "?", "!", "", "\u2026") == [None] * 4 and len(_unchecked(index)) == 2


def test_items_are_searched_for_without_options_and_cue():
    """The options of one item, and the cue of all, are in texts that do not ask it."""
    options = "Answer Choices: (A) the jay by the old mill (B) the quail of the far north coast"
    item = _item("item", f"Q: Which sang? {options}\nA: Among A through B", text="Which sang?")
    index = ItemIndex([item], ContaminationConfig())
    other, bare, full = _find(index, f"Q: Who flew? {options}", "which sang", item.question)
    assert other is None and bare is not None and full is not None


def test_boilerplate_is_no_contamination():
    form = "which of the following statements is true of the thing that is named here"
    tails = [" ".join(f"{n}x{k}" for k in range(9)) for n in range(11)]
    items = [(f"i{n}", f"{form} number {n} {tail}") for n, tail in enumerate(tails)]
    own, common = _find(_index(*items), items[3][1], f"{form}!!")
    assert own is not None and own.item == 3 and common is None
    assert _find(_index(*items, max_items=11), form)[0] is not None
    assert len(_unchecked(_index(*((f"i{n}", form) for n in range(11))))) == 11


def test_one_loop_drops_and_counts(tmp_path: Path):
    counts: dict[str, int] = {}
    dropped: list[tuple[Contaminated, str]] = []

    class Sink:
        def count(self, name: str, num: int = 1) -> None:
            counts[name] = counts.get(name, 0) + num

        def drop(self, row: Contaminated, reason: str) -> None:
            dropped.append((row, reason))

    rows = [_query(text) for text in ("first", f"now {SENTENCE}", SENTENCE, "last")]
    index = _index(("item", SENTENCE), ("tiny", "why"))
    kept = list(without_items(Sink(), index, rows, lambda row: row.query))
    assert [row.query for row in kept] == ["first", "last"]
    assert counts == {"items": 2, "items_unchecked": 1, "items_found": 1, "contaminated/c": 2}
    assert [(row.item_id, row.collection, why) for row, why in dropped] == [
        ("item", "c", "contaminated/s")
    ] * 2


def _questions(path: Path) -> list[str]:
    return [json.loads(line)["question"] for line in path.read_text().splitlines()]


def test_the_items_that_recur_across_public_sets_are_found(data_dir: Path):
    train, test = (_questions(data_dir / f"gsm8k/{name}.jsonl") for name in ("train", "test"))
    lines = (data_dir / "flan_cot/cot_data/gsm8k_train.tsv").read_text().splitlines()
    again = [line.split("\t")[0].replace("\\n", "\n") for line in lines]
    index = _index(*((str(n), text) for n, text in enumerate(train)))
    assert sum(match is not None for match in _find(index, *again[:1500])) >= 1480
    assert sum(match is not None for match in _find(index, *test)) < 100


def test_every_openbookqa_question_is_found_in_its_bare_prompt(data_dir: Path):
    path = data_dir / "llm_adapters_commonsense/dataset/openbookqa/test.json"
    asked = [row["instruction"].split("\n\n")[0] for row in json.loads(path.read_text())]
    stems = [text.split(": ", 1)[1] for text in asked]
    items = [
        _item(str(n), f"Q: {stem} Answer Choices: (A) x (B) y", text=stem)
        for n, stem in enumerate(stems)
    ]
    index = ItemIndex(items, ContaminationConfig())
    assert len(items) == 500 and all(_find(index, *stems))
    assert 0 < len(_unchecked(index)) < 250  # within longer texts, the short ones are not
