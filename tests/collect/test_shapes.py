import json
from pathlib import Path
from typing import Any

import pytest

from spyhop.collect import Columns
from spyhop.collect.columns import compose
from spyhop.collect.shapes import conversation
from spyhop.schema import InputError

USER = {"role": "user", "content": "Q"}
SAID = {"role": "assistant", "content": "A"}
TWO = [("user", "Q"), ("assistant", "A")]
THREE = [("system", "S"), *TWO]


@pytest.mark.parametrize(
    ("row", "shape", "turns"),
    [
        ({"messages": [{"role": "developer", "content": "S"}, USER, SAID]}, "messages", THREE),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, SAID]},
            "messages",
            TWO,
        ),
        (
            {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
             "system": "S"},
            "sharegpt",
            THREE,
        ),
        ({"conversation": [USER, SAID]}, "sharegpt", TWO),
        ({"conversations": ["Q", "A"], "source": "lima"}, "sharegpt", TWO),
        ({"custom_id": "1", "body": {"model": "m", "messages": [USER]}}, "batch", TWO[:1]),
        ({"chosen": [USER, SAID], "rejected": [USER, USER]}, "preference", TWO),
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, "preference", TWO),
        ({"prompt": [USER], "chosen": [SAID], "rejected": [SAID]}, "preference", TWO),
        ({"prompt": [USER], "chosen": [USER, SAID], "rejected": [SAID]}, "preference", TWO),
        ({"input": {"messages": [USER]}, "preferred_output": [SAID]}, "preference", TWO),
        ({"instruction": "Q", "input": "", "output": "A"}, "alpaca", TWO),
        (
            {"instruction": "Q", "input": "X", "output": "A", "system": "S"},
            "alpaca",
            [("system", "S"), ("user", "Q\n\nX"), ("assistant", "A")],
        ),
        (
            {"instruction": "Q", "context": "X", "response": "A", "category": "qa"},
            "dolly",
            [("user", "Q\n\nX"), ("assistant", "A")],
        ),
        ({"id": "1", "system_prompt": "S", "question": "Q", "response": "A"}, "openorca", THREE),
        ({"question": "Q", "answer": "A"}, "question_answer", TWO),
        (
            {"question": "Q", "context": "X", "answer": ["A", "B"]},
            "question_answer",
            [("user", "X\n\nQ"), ("assistant", "A")],
        ),
        ({"query": "Q", "answer": 4}, "question_answer", [("user", "Q"), ("assistant", "4")]),
        ({"prompt": "Q", "completion": "A"}, "prompt_completion", TWO),
        ({"prompt": [USER], "completion": [SAID]}, "prompt_completion", TWO),
        ({"prompt": "Q"}, "prompt_completion", TWO[:1]),
        ({"instruction": "Q"}, "alpaca", TWO[:1]),
        ({"question": "Q", "messages": None}, "openorca", TWO[:1]),
    ],
)  # fmt: skip
def test_rows_of_every_shape(row: dict[str, Any], shape: str, turns: list[tuple[str, str]]):
    found = conversation(row, "here")
    assert found.shape == shape
    assert [(turn.role, turn.content) for turn in found.turns] == turns


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"text": "x"}, "here: no messages; it has text; write"),
        ({"prompt": {"a": 1}}, r"prompt = \{'a': 1\} is not text"),
        ({"question": "Q", "answer": {"text": ["a"]}}, r"answer = \{'text': \['a'\]\} is not text"),
        ({"conversations": [{"from": "narrator", "value": "x"}]}, "from = 'narrator': write"),
        ({"conversations": [USER, 3]}, r"conversations\[1\] = 3 is not a turn"),
        ({"body": {"messages": "x"}}, r"body\.messages = 'x' is not a list of turns"),
        ({"instruction": "Q", "input": ["x"], "output": "A"}, r"input = \['x'\] is not text"),
    ],
)
def test_a_list_or_object_is_no_text(row: dict[str, Any], text: str):
    with pytest.raises(InputError, match=text):
        conversation(row, "here")


GSM = {"question": "1 + 1?", "answer": "It is two.\n#### 2"}
CHOICE = {"q": "Which?", "gold": "B"}


@pytest.mark.parametrize(
    ("row", "columns", "query", "target"),
    [
        (
            {"Body": "Ann has 2.", "Question": "How many?", "n": 2},
            {"query": "{Body} {Question}", "target": "n"},
            "Ann has 2. How many?",
            "2",
        ),
        (GSM, {"query": "question", "target": "answer", "target_after": "####"}, "1 + 1?", "2"),
        (
            {"passage": "P", "q": "Q", "a": {"text": ["x", "y"]}},
            {"query": "q", "context": "passage", "target": "a.text"},
            "P\n\nQ",
            "x",
        ),
        (
            {**CHOICE, "o": ["yes", "no"]},
            {"query": "q", "options": "o", "target": "gold"},
            "Which?\nOptions:\n(A) yes\n(B) no",
            "B",
        ),
        (
            {"q": "Which?", "o": {"text": ["yes", "no"], "label": ["1", "2"]}, "gold": "2"},
            {"query": "q", "options": "o", "target": "gold"},
            "Which?\nOptions:\n(A) yes\n(B) no",
            "B",
        ),
        (
            {"q": "Which?", "o": {"A": "yes", "B": "no"}, "gold": "no"},
            {"query": "q", "options": "o", "target": "gold"},
            "Which?\nOptions:\n(A) yes\n(B) no",
            "B",
        ),
        (
            {"q": "Which?", "o": "a: yes", "gold": 1} | {"o": "(A) yes (B) no"},
            {"query": "q", "options": "o", "target": "gold"},
            "Which?\nOptions:\n(A) yes\n(B) no",
            "B",
        ),
        (
            {"q": "Which?", "o": json.dumps(["A) 21", "B) 22.5"]), "gold": "B"},
            {"query": "q", "options": "o", "target": "gold"},
            "Which?\nOptions:\n(A) 21\n(B) 22.5",
            "B",
        ),
        (
            {"q": "W?", "o": [f"o{n}" for n in range(30)], "gold": "o29"},
            {"query": "{q}", "options": "o", "target": "gold"},
            "W?\nOptions:\n"
            + "\n".join(f"({'A' if n > 25 else ''}{chr(65 + n % 26)}) o{n}" for n in range(30)),
            "AD",
        ),
    ],
)
def test_columns_compose(row: dict[str, Any], columns: dict[str, str], query: str, target: str):
    found = compose(row, Columns(task="", **columns), "here")
    assert (found["query"], found["target"]) == (query, target)


@pytest.mark.parametrize(
    ("row", "columns", "text"),
    [
        ({"q": ["a", "b"]}, {"query": "q"}, r"column 'q' = \['a', 'b'\] is not text; .* 'q.0'"),
        ({"q": {"t": "x"}}, {"query": "{q}!"}, r"column 'q' = \{'t': 'x'\} is not text; .* 'q.t'"),
        ({"q": "x", "t": {"y": 1}}, {"query": "q", "target": "t"}, r"column 't' = \{'y': 1\} is"),
        ({"q": "x", "o": 3}, {"query": "q", "options": "o"}, r"column 'o' = 3 lists no options"),
        (
            {**CHOICE, "gold": "E", "o": ["yes", "no"]},
            {"query": "q", "options": "o", "target": "gold"},
            r"the gold answer 'E' is not among \['yes', 'no'\]",
        ),
        ({"q": "x"}, {"query": "{p}"}, "no 'p'; found"),
    ],
)
def test_a_column_that_is_no_text_shows_its_value(row: Any, columns: dict[str, str], text: str):
    with pytest.raises(InputError, match=text):
        compose(row, Columns(**{"task": "", "target": "", **columns}), "here")


def test_the_shared_gold_answers(data_dir: Path):
    lines = (data_dir / "gsm8k" / "train.jsonl").read_text().splitlines()
    columns = Columns(query="question", target="answer", target_after="####", task="")
    golds = [compose(json.loads(line), columns, "here")["target"] for line in lines]
    assert len(golds) > 7000 and all(gold.replace(",", "").lstrip("-").isdigit() for gold in golds)
