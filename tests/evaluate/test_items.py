import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spyhop.evaluate.items import AGIEVAL_TASKS, BBH_TASKS, read_agieval, read_bbh
from spyhop.schema import InputError, Item

LISTED = "Which is red?\nOptions:\n(A) the jay\n(B) the quail\n(C) the owl"


def _bbh(folder: Path, task: str, examples: list[Any]) -> Path:
    (folder / f"{task}.json").write_text(json.dumps({"canary": "", "examples": examples}))
    return folder


def _bbh_one(folder: Path, task: str, text: str, gold: str) -> Item:
    (item,) = read_bbh(_bbh(folder, task, [{"input": text, "target": gold}]), tasks=[task])
    return item


def _agieval(folder: Path, *rows: Any, task: str = "sat-math") -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / f"{task}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _row(question: str = "1 + 1?", **changes: Any) -> dict[str, Any]:
    row = {"passage": "", "question": question, "options": ["(A)1", "(B)2", "(C)3"], "label": "B"}
    return {**row, **changes}


def test_bbh_lettered_options_in_the_papers_form(tmp_path: Path):
    item = _bbh_one(tmp_path, "snarks", LISTED, "(B)")
    assert item.question == (
        "Q: Which is red? Answer Choices: (A) the jay (B) the quail (C) the owl\n"
        "A: Among A through C, the answer is"
    )
    assert (item.options, item.target, item.suite) == (["A", "B", "C"], "B", "bbh")
    assert item.chance == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("task", "text", "gold", "shown"),
    [
        ("navigate", "Back?\nOptions:\n- Yes\n- No", "No", "(A) Yes (B) No"),
        (
            "formal_fallacies",
            "So?\nOptions:\n- valid \n- invalid",
            "invalid",
            "(A) valid (B) invalid",
        ),
        ("boolean_expressions", "not True is", "False", "(A) True (B) False"),
        ("sports_understanding", "Plausible?", "no", "(A) yes (B) no"),
        ("web_of_lies", "Does she lie?", "No", "(A) Yes (B) No"),
    ],
)
def test_bbh_options_without_letters_get_them(
    task: str, text: str, gold: str, shown: str, tmp_path: Path
):
    item = _bbh_one(tmp_path, task, text, gold)
    assert f" Answer Choices: {shown}\nA: Among A through B" in item.question
    assert (item.options, item.target) == (["A", "B"], "B")


def test_a_gold_answer_that_no_option_holds_is_kept_without_chance(tmp_path: Path):
    item = _bbh_one(tmp_path, "ruin_names", LISTED, "sue, and bob")
    assert item.target == "sue, and bob" and item.chance == 0


def test_agieval_prompt_has_passage_question_options_and_cue(tmp_path: Path):
    folder = _agieval(tmp_path, _row(passage="Sums."), _row(passage=None))
    first, second = read_agieval(folder, tasks=["sat-math"])
    assert first.question == (
        "Sums.Q: 1 + 1? Answer Choices: (A)1 (B)2 (C)3\nA: Among A through C, the answer is"
    )
    assert second.question == first.question.removeprefix("Sums.")
    assert (first.options, first.target, first.suite) == (["A", "B", "C"], "B", "agieval")


def test_repeated_items_are_kept_with_ids_of_their_own(tmp_path: Path):
    folder = _agieval(tmp_path, _row(), _row("2 + 2?"), _row(), _row())
    ids = [item.id for item in read_agieval(folder, tasks=["sat-math"])]
    assert len(set(ids)) == 4
    _agieval(tmp_path, _row("2 + 2?"), _row())
    assert [item.id for item in read_agieval(folder, tasks=["sat-math"])] == [ids[1], ids[0]]


def test_ids_depend_on_suite_task_and_text(tmp_path: Path):
    for task in ("sat-math", "aqua-rat"):
        _agieval(tmp_path, _row(), task=task)
    first, second = read_agieval(tmp_path, tasks=["sat-math", "aqua-rat"])
    assert first.question == second.question and first.id != second.id
    assert re.fullmatch(r"[0-9a-f]{16}", first.id)


def test_limit_is_a_fixed_random_sample_in_file_order(tmp_path: Path):
    folder = _agieval(tmp_path, *(_row(f"{n} + 1?") for n in range(200)))

    def questions(limit: int | None) -> list[str]:
        return [item.question for item in read_agieval(folder, tasks=["sat-math"], limit=limit)]

    every, some, more = questions(None), questions(20), questions(60)
    assert len(some) == 20 and some == questions(20) and set(some) < set(more)
    assert some == [question for question in every if question in some] != every[:20]
    smallest = sorted(read_agieval(folder, tasks=["sat-math"]), key=lambda item: item.id)[:20]
    assert set(some) == {item.question for item in smallest}
    positions = [every.index(question) for question in more]
    assert 70 < sum(positions) / 60 < 130  # the first 60 would give 29.5


def test_unknown_task_is_refused_before_anything_is_read(tmp_path: Path):
    with pytest.raises(InputError, match=r"bbh: no task word_sorting; known: boolean_expressions"):
        read_bbh(tmp_path, tasks=["word_sorting", "snarks"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([_row(), '{"passage": '], r"sat-math\.jsonl:2: broken JSON at line 1, column 1\d \("),
        (["[1]"], r"sat-math\.jsonl:1: expected an object with key 'question', got \[1\]"),
        (
            [_row(), _row(options=None)],
            r"sat-math\.jsonl:2, key 'options': expected list, got None",
        ),
        ([_row(options=[1, 2])], r"sat-math\.jsonl:1, key 'options': expected texts"),
        ([_row(options=["(A)1"])], r"sat-math\.jsonl:1, key 'options': expected texts"),
        ([_row(label="2")], r"sat-math\.jsonl:1, key 'label': expected a letter, got '2'"),
        ([{"question": "1 + 1?"}], r"sat-math\.jsonl:1: key 'label' is missing, found \['quest"),
        (["", "  "], r"sat-math\.jsonl: empty; fetch it anew"),
    ],
)
def test_agieval_errors_say_where_what_and_the_remedy(
    rows: list[Any], message: str, tmp_path: Path
):
    with pytest.raises(InputError, match=message) as caught:
        list(read_agieval(_agieval(tmp_path, *rows), tasks=["sat-math"]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"snarks\.json: broken JSON at line 1, column 2"),
        ("{}", r"snarks\.json: key 'examples' is missing"),
        ('{"examples": []}', r"snarks\.json, key 'examples': empty"),
        ('{"examples": [{"input": "?"}]}', r"snarks\.json: example 1: key 'target' is missing"),
        (
            json.dumps(
                {"examples": [{"input": LISTED, "target": "(A)"}, {"input": "?", "target": ""}]}
            ),
            r"snarks\.json: example 2, key 'input': no list of options",
        ),
        (
            json.dumps({"examples": [{"input": LISTED.replace("(B)", "(D)"), "target": "(A)"}]}),
            r"snarks\.json: example 1, key 'input': no list of options",
        ),
    ],
)
def test_bbh_errors_say_where_what_and_the_remedy(content: str, message: str, tmp_path: Path):
    (tmp_path / "snarks.json").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        list(read_bbh(tmp_path, tasks=["snarks"]))
    assert "\n" not in str(caught.value)


def test_missing_and_undecodable_files_are_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"snarks\.json: no such file"):
        list(read_bbh(tmp_path, tasks=["snarks"]))
    (tmp_path / "snarks.json").write_bytes(b'{"examples": "\xff"}')
    with pytest.raises(InputError, match=r"snarks\.json: cannot be read as UTF-8"):
        list(read_bbh(tmp_path, tasks=["snarks"]))


def test_real_bbh_has_the_papers_5511_items(data_dir: Path):
    items = list(read_bbh(data_dir / "bbh" / "bbh"))
    counts = Counter(item.task for item in items)
    uneven = {"causal_judgement": 187, "penguins_in_a_table": 146, "snarks": 178}
    assert counts == {task: uneven.get(task, 250) for task in BBH_TASKS}
    assert len(items) == len({item.id for item in items}) == 5511
    lost = Counter(item.task for item in items if item.target not in item.options)
    assert lost == {"movie_recommendation": 1, "ruin_names": 2}
    assert len({item.question for item in items}) == 5507  # four are repeated


def test_real_agieval_has_2546_items_in_the_papers_form(data_dir: Path):
    items = list(read_agieval(data_dir / "agieval" / "v1"))
    sizes = (254, 651, 230, 510, 269, 220, 206, 206)
    assert Counter(item.task for item in items) == dict(zip(AGIEVAL_TASKS, sizes, strict=True))
    assert len({item.id for item in items}) == 2546
    lost = [item.task for item in items if item.target not in item.options]
    assert lost == ["sat-en", "sat-en-without-passage"]
    ported = data_dir / "orca_eval_openchat" / "zs" / "agieval"  # an independent port of the form
    for task in AGIEVAL_TASKS:
        lines = (ported / f"{task}.zero-shot.jsonl").read_text(encoding="utf-8").split("\n")
        theirs = [json.loads(line) for line in lines if line]
        ours = [item for item in items if item.task == task]
        assert [row["question"] for row in theirs] == [item.question for item in ours]
        assert [row["label"] for row in theirs] == [[item.target] for item in ours]
        assert [row["options"] for row in theirs] == [item.options for item in ours]
