import json
from pathlib import Path
from typing import Any

import pytest

from spyhop.evaluate import ItemsConfig, questions
from spyhop.schema import InputError, Item
from spyhop.store import Source


def _read(root: Path, *rows: Any, **changes: Any) -> list[Item]:
    folder = root / "given"
    folder.mkdir(parents=True)
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = questions.run(root, ItemsConfig(**changes), folder=Source(folder).open(root))
    return list(made.rows(Item))


def test_free_and_multiple_choice_questions(tmp_path: Path):
    free = {"question": "1 + 1?", "answer": 2}
    choice = {"question": "Which floats?", "options": ["cork", "coin"], "answer": "coin"}
    one, two = _read(tmp_path, free, choice, free)
    assert (one.question, one.target, one.chance) == ("1 + 1?", "2", 0)
    assert two.question.startswith("Q: Which floats? Answer Choices: (A) cork (B) coin\n")
    assert (two.target, two.options, two.chance) == ("B", ["A", "B"], 0.5)
    assert (two.suite, two.task) == ("questions", "mine")


def test_a_smaller_limit_is_part_of_a_larger_one(tmp_path: Path):
    rows = [{"question": f"{n}?", "answer": n} for n in range(30)]
    few, more = ({item.id for item in _read(tmp_path / str(n), *rows, limit=n)} for n in (5, 12))
    assert few < more and len(few) == 5


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Q"}, "line 1: no 'answer'; found"),
        ({"question": "Q", "answer": ""}, "line 1: an empty question or answer"),
        ({"question": "Q", "answer": "c", "options": ["a", "b"]}, "'c' is none of the options"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, row: Any, message: str):
    with pytest.raises(InputError, match=message):
        _read(tmp_path, row)
