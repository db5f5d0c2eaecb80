import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from spyhop.evaluate import (
    ItemsConfig,
    MeasureConfig,
    Task,
    forms,
    read_items,
    read_suite,
    task_names,
)
from spyhop.evaluate.suite import FOLDER
from spyhop.schema import InputError, Item, RecipeError
from spyhop.store import Source

LISTED = "Which is red?\nOptions:\n(A) the jay\n(B) the quail\n(C) the owl"


def _read(folder: Path, task: str | Task, *tasks: str, limit: int | None = None) -> list[Item]:
    """The items that a benchmark's files in a folder give."""
    config = ItemsConfig(
        task=read_suite(task)[0] if isinstance(task, str) else task,
        tasks=tasks or None,
        limit=limit,
    )
    with TemporaryDirectory() as out:
        root = Path(out)
        return list(read_items.run(root, config, folder=Source(folder).open(root)).rows(Item))


def _bbh(folder: Path, task: str, examples: list[Any]) -> Path:
    (folder / f"{task}.json").write_text(json.dumps({"canary": "", "examples": examples}))
    return folder


def _bbh_one(folder: Path, task: str, text: str, gold: str) -> Item:
    (item,) = _read(_bbh(folder, task, [{"input": text, "target": gold}]), "bbh", task)
    return item


def _jsonl(folder: Path, *rows: Any, task: str = "sat-math") -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / f"{task}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _row(question: str = "1 + 1?", **changes: Any) -> dict[str, Any]:
    row = {"passage": "", "question": question, "options": ["(A)1", "(B)2", "(C)3"], "label": "B"}
    return {**row, **changes}


def test_bbh_lettered_options_in_the_papers_form(tmp_path: Path):
    item = _bbh_one(tmp_path, "snarks", LISTED, "(B)")
    assert item.asked == (
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
    assert f" Answer Choices: {shown}\nA: Among A through B" in item.asked
    assert (item.options, item.target) == (["A", "B"], "B")


def test_a_gold_answer_that_no_option_holds_is_kept_without_chance(tmp_path: Path):
    item = _bbh_one(tmp_path, "ruin_names", LISTED, "sue, and bob")
    assert item.target == "sue, and bob" and item.chance == 0


def test_agieval_prompt_has_passage_question_options_and_cue(tmp_path: Path):
    folder = _jsonl(tmp_path, _row(passage="Sums."), _row(passage=None))
    first, second = _read(folder, "agieval", "sat-math")
    assert first.asked == (
        "Sums.Q: 1 + 1? Answer Choices: (A)1 (B)2 (C)3\nA: Among A through C, the answer is"
    )
    assert second.asked == first.asked.removeprefix("Sums.")
    assert (first.text, second.text) == ("Sums.1 + 1?", "1 + 1?")
    assert (first.options, first.target, first.suite) == (["A", "B", "C"], "B", "agieval")


def test_repeated_items_are_kept_with_ids_of_their_own(tmp_path: Path):
    folder = _jsonl(tmp_path, _row(), _row("2 + 2?"), _row(), _row())
    ids = [item.id for item in _read(folder, "agieval", "sat-math")]
    assert len(set(ids)) == 4 and all(re.fullmatch(r"[0-9a-f]{16}", name) for name in ids)
    _jsonl(tmp_path, _row("2 + 2?"), _row())
    assert [item.id for item in _read(folder, "agieval", "sat-math")] == [ids[1], ids[0]]


def test_ids_depend_on_suite_task_and_text(tmp_path: Path):
    for task in ("sat-math", "aqua-rat"):
        _jsonl(tmp_path, _row(), task=task)
    first, second = _read(tmp_path, "agieval", "sat-math", "aqua-rat")
    assert first.asked == second.asked and first.id != second.id
    assert first.task == "aqua-rat"  # the order of the benchmark


def test_limit_is_a_fixed_random_sample_in_file_order(tmp_path: Path):
    folder = _jsonl(tmp_path, *(_row(f"{n} + 1?") for n in range(200)))

    def questions(limit: int | None) -> list[str]:
        return [item.asked for item in _read(folder, "agieval", "sat-math", limit=limit)]

    every, some, more = questions(None), questions(20), questions(60)
    assert len(some) == 20 and some == questions(20) and set(some) < set(more)
    assert some == [question for question in every if question in some] != every[:20]
    positions = [every.index(question) for question in more]
    assert 70 < sum(positions) / 60 < 130  # the first 60 would give 29.5


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([_row(), '{"passage": '], r"sat-math\.jsonl: line 2: not JSON"),
        (["[1]"], r"sat-math\.jsonl: row 1: 1 is not a row"),
        ([_row(), _row(options=[["a"], "b"])], r"jsonl: line 2: column 'options' = .* lists no"),
        ([_row(options="(A) one\n(C) two")], r"jsonl: line 1: column 'options' = .* lists no"),
        ([_row(question="")], r"jsonl: line 1: an empty question"),
        ([{"question": "1 + 1?", "passage": ""}], r"jsonl: line 1: no 'label'; found \['passage"),
        ([_row(label=["B"])], r"jsonl: line 1: 'label' is no str or int"),
    ],
)
def test_errors_say_where_what_and_the_value(rows: list[Any], message: str, tmp_path: Path):
    with pytest.raises(InputError, match=message) as caught:
        _read(_jsonl(tmp_path, *rows), "agieval", "sat-math")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"snarks\.json: not JSON"),
        ("{}", r"snarks\.json: no 'examples'; found"),
        ('{"examples": [{"input": "?"}]}', r"snarks\.json: row 1, column 'input': not of the form"),
        (
            json.dumps({"examples": [{"input": LISTED.replace("(B)", "(D)"), "target": "(A)"}]}),
            r"snarks\.json: row 1: column 'options' = .* lists no options",
        ),
    ],
)
def test_bbh_errors_say_where_what_and_the_value(content: str, message: str, tmp_path: Path):
    (tmp_path / "snarks.json").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        _read(tmp_path, "bbh", "snarks")
    assert "\n" not in str(caught.value)


def test_an_incomplete_benchmark_is_refused(tmp_path: Path):
    _bbh(tmp_path, "snarks", [{"input": LISTED, "target": "(A)"}])
    with pytest.raises(InputError, match=r"1 items of bbh, published are 5,511; fetch"):
        _read(tmp_path, "bbh")
    with pytest.raises(InputError, match=r"bbh: no task navigate; known: snarks"):
        _read(tmp_path, "bbh", "navigate", "snarks")
    (tmp_path / "aqua-rat.jsonl").write_text("")
    with pytest.raises(InputError, match=r"no file of the task sat-en \(\*\.jsonl\)"):
        _read(tmp_path, "agieval", "sat-en")


def test_your_own_questions_with_and_without_options(tmp_path: Path):
    choice = {"question": "Which floats?", "options": ["cork", "coin"], "answer": "coin"}
    rows = [{"question": "1 + 1?", "answer": 2}, choice, {**choice, "answer": "A"}]
    one, two, three = _read(_jsonl(tmp_path, *rows, task="mine") / "mine.jsonl", "questions")
    assert (one.question, one.target, one.chance, one.options) == ("1 + 1?", "2", 0, [])
    assert two.asked == (
        "Q: Which floats? Answer Choices: (A) cork (B) coin\nA: Among A through B, the answer is"
    )
    assert (two.target, two.options, two.chance, three.target) == ("B", ["A", "B"], 0.5, "A")
    assert (two.suite, two.task, two.text) == ("questions", "mine", "Which floats?")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Q"}, "line 1: no 'answer'; found"),
        ({"question": "Q", "answer": ""}, "line 1: an empty question or answer"),
        ({"question": "Q", "answer": "c", "options": ["a", "b"]}, "'c' is not among"),
        ({"question": "Q", "answer": "a", "options": ["a"]}, "one option; two are needed"),
    ],
)
def test_errors_in_your_own_questions_are_named(tmp_path: Path, row: Any, message: str):
    with pytest.raises(InputError, match=message):
        _read(_jsonl(tmp_path, row, task="mine") / "mine.jsonl", "questions")


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({"text": ["cork", "coin"], "label": ["1", "2"]}, "2"),
        ({"a": "cork", "b": "coin"}, "b"),
        ("(A) cork\n(B) coin", "(B)"),
        ("A. cork B. coin", "coin"),
        (["cork", "coin"], "coin"),
    ],
)
def test_options_in_other_shapes(options: Any, answer: str, tmp_path: Path):
    row = {"question": "Which sinks?", "options": options, "answer": answer, "passage": "Long."}
    (item,) = _read(_jsonl(tmp_path, row, task="mine") / "mine.jsonl", "questions")
    assert "(A) cork (B) coin\n" in item.asked and item.target == "B"


def test_keys_that_nothing_reads_are_reported(tmp_path: Path):
    row = {"question": "Which?", "choices": ["a", "b"], "answer": "a"}
    source = Source(_jsonl(tmp_path, row, task="mine") / "mine.jsonl").open(tmp_path)
    notes: list[str] = []
    config = ItemsConfig(task=read_suite("questions")[0])
    made = read_items.run(
        tmp_path, config, folder=source, report=lambda progress: notes.append(progress.doing)
    )
    assert made.record.counts == {"unused/choices": 1}
    assert any("choices (1 rows)" in note for note in notes)


def test_more_options_than_letters(tmp_path: Path):
    row = {"question": "Which?", "options": [f"o{n}" for n in range(30)], "answer": "o27"}
    (item,) = _read(_jsonl(tmp_path, row, task="mine") / "mine.jsonl", "questions")
    assert item.target == "AB" and "(Z) o25 (AA) o26" in item.asked


def test_a_new_benchmark_is_one_toml_file(data_dir: Path, tmp_path: Path):
    """GSM8K in a form of one's own: nothing but this text is added."""
    (tmp_path / "sums.toml").write_text(
        """citation = "GSM8K (arXiv:2110.14168)"
files = "test.jsonl"
num_items = 1319
question = "{question}"
few_shot = "Q: What are 2 and 3?\\nA: The answer is 5.\\n\\n"
target = "{answer}"
system_message = "Be brief."
sampling = { max_new_tokens = 300 }
"""
    )
    task = read_suite(str(tmp_path / "sums.toml"))[0]
    found = _read(data_dir / "gsm8k", task)
    assert len(found) == 1319 and {item.suite for item in found} == {"sums"}
    assert found[0].question.startswith("Q: What are 2 and 3?\nA: The answer is 5.\n\nJanet")
    assert found[0].text.startswith("Janet") and found[0].target.endswith("#### 18")
    assert MeasureConfig().for_tasks([task]).suites["sums"].sampling.max_new_tokens == 300


@pytest.mark.parametrize("name", task_names())
def test_every_benchmark_that_ships_is_short_and_says_where_it_is_from(name: str):
    assert len((FOLDER / f"{name}.toml").read_text().splitlines()) <= 12
    for task in (task for form in ("", *forms(name)) for task in read_suite(f"{name}:{form}")):
        assert task.note and (task.citation or name == "questions")
        texts = task.model_dump(include={"citation", "note", "hidden"})
        assert task.identity().model_copy(update=texts) == task


def test_an_unknown_benchmark_or_key_is_one_line(tmp_path: Path):
    with pytest.raises(RecipeError, match="no benchmark 'bhh'; known: agieval, arc_challenge"):
        read_suite("bhh")[0]
    (tmp_path / "odd.toml").write_text('fils = "*.jsonl"\n')
    with pytest.raises(
        RecipeError, match=r"odd\.toml: fils is not a setting; did you mean 'files'"
    ):
        read_suite(str(tmp_path / "odd.toml"))[0]


def _digest(items: list[Item]) -> str:
    text = "".join(f"{item.id}{item.asked}{item.target}" for item in items)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_real_bbh_has_the_papers_5511_items(data_dir: Path):
    found = _read(data_dir / "bbh" / "bbh", "bbh")
    counts = Counter(item.task for item in found)
    uneven = {"causal_judgement": 187, "penguins_in_a_table": 146, "snarks": 178}
    assert len(counts) == 23 and counts == {task: uneven.get(task, 250) for task in counts}
    assert len(found) == len({item.id for item in found}) == 5511
    lost = Counter(item.task for item in found if item.target not in item.options)
    assert lost == {"movie_recommendation": 1, "ruin_names": 2}
    assert len({item.asked for item in found}) == 5507  # four are repeated
    assert _digest(found) == "638db21c4efa3b7c"  # before the cue was a field of its own


def test_real_agieval_has_2546_items_in_the_papers_form(data_dir: Path):
    found = _read(data_dir / "agieval" / "v1", "agieval")
    tasks = read_suite("agieval")[0].tasks
    sizes = (254, 651, 230, 510, 269, 220, 206, 206)
    assert Counter(item.task for item in found) == dict(zip(tasks, sizes, strict=True))
    assert len({item.id for item in found}) == 2546
    lost = [item.task for item in found if item.target not in item.options]
    assert lost == ["sat-en", "sat-en-without-passage"]
    assert _digest(found) == "a46dbb9a0de9c10e"  # before the cue was a field of its own
    ported = data_dir / "orca_eval_openchat" / "zs" / "agieval"  # an independent port of the form
    for task in tasks:
        lines = (ported / f"{task}.zero-shot.jsonl").read_text(encoding="utf-8").split("\n")
        theirs = [json.loads(line) for line in lines if line]
        ours = [item for item in found if item.task == task]
        assert [row["question"] for row in theirs] == [item.asked for item in ours]
        assert [row["label"] for row in theirs] == [[item.target] for item in ours]
        assert [row["options"] for row in theirs] == [item.options for item in ours]
