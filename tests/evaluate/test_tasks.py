"""Benchmarks as tables: forms, styles, worked examples, several golds; the ones that ship."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from spyhop.evaluate import Task, items_of, read_suite, task_names
from spyhop.evaluate.suite import STYLES
from spyhop.recipe import Recipe
from spyhop.recipes.inputs import Suite, add_items, placed
from spyhop.schema import InputError, Item, RecipeError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from commonsense_forms import FORMS, parts

ROWS = [
    {"q": f"Which is {n}?", "a": f"no {n}", "b": f"yes {n}", "right": n % 2, "page": f"p{n // 2}"}
    for n in range(6)
]
CHOICE = 'question = "{q}"\noptions = ["a", "b"]\ngold = "right"\n'


def _task(folder: Path, text: str, *rows: dict[str, Any], form: str = "") -> tuple[Task, Path]:
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    data = folder / "data"
    data.mkdir(exist_ok=True)
    lines = [json.dumps(row) + "\n" for row in rows or ROWS]
    (data / "part_test.jsonl").write_text("".join(lines), encoding="utf-8")
    (task,) = read_suite(f"{folder / 'mine.toml'}{form}")
    assert isinstance(task, Task)
    return task, data


def _items(folder: Path, text: str, *rows: dict[str, Any], form: str = "") -> list[Item]:
    return [item for group in items_of(*_task(folder, text, *rows, form=form)) for item in group]


def test_styles_give_likelihood_forms_and_forms_change_them(tmp_path: Path):
    text = (
        CHOICE + 'files = "*_test.jsonl"\nstyle = "cloze"\nforms.letters = { style = "letters" }\n'
    )
    first = _items(tmp_path, text)[0]
    assert (first.task, first.suite, first.target) == ("part", "mine", "A")
    assert (first.asked, first.continuations) == (
        "Question: Which is 0?\nAnswer:",
        [" no 0", " yes 0"],
    )
    letters = _items(tmp_path, text, form=":letters")[1]
    assert letters.asked == "Which is 1?\nA. no 1\nB. yes 1\nAnswer:" and letters.target == "B"
    assert (letters.suite, letters.continuations) == ("mine-letters", [" A", " B"])
    task, _ = _task(tmp_path, text, form=":letters")
    assert (task.method, task.form, task.metric, task.data) == (
        "likelihood",
        "plain",
        "acc",
        "mine",
    )


def test_worked_examples_come_from_other_files_or_from_the_other_items(tmp_path: Path):
    text = CHOICE + 'style = "letters"\nfiles = "*_test.jsonl"\nshots = 2\n'
    items = _items(tmp_path, text)
    assert items[0].question.startswith("Which is 1?\nA. no 1\nB. yes 1\nAnswer: B\n\nWhich is 2?")
    assert items[3].question.startswith("Which is 0?") and items[3].text == "Which is 3?"
    (tmp_path / "data" / "part_dev.jsonl").write_text(json.dumps(ROWS[5] | {"q": "Dev?"}) + "\n")
    own = text.replace("shots = 2", 'shots = 1\nshot_files = "{task}_dev.jsonl"')
    assert all(item.question.startswith("Dev?\n") for item in _items(tmp_path, own))
    with pytest.raises(InputError, match="3 worked examples are wanted; their files have 1 rows"):
        _items(tmp_path, own.replace("shots = 1", "shots = 3"))


def test_a_published_block_of_examples_is_read_from_its_file(tmp_path: Path):
    text = (
        CHOICE + 'files = "*_test.jsonl"\nfew_shot_file = "{task}.txt"\nfew_shot_after = "--\\n"\n'
    )
    _task(tmp_path, text)
    (tmp_path / "data" / "part.txt").write_text("a notice\n--\nQ: One?\nA: Yes.\n")
    item = _items(tmp_path, text)[0]
    assert item.question.startswith("Q: One?\nA: Yes.\n\nQ: Which is 0? Answer Choices: (A) no 0")
    with pytest.raises(InputError, match=r"part\.txt: no '==' before its worked examples"):
        _items(tmp_path, text.replace("--\\n", "=="))


def test_columns_golds_topics_and_passages(tmp_path: Path):
    text = (
        'question = "{q}"\noptions = "every"\nstyle = "cloze"\nmetric = "mc2"\n'
        'columns = { every = "[a, b, a ~ b]", last_two = "[every|length - 2, every|length - 1]" }\n'
        'gold = "last_two"\ntopic = "kind {right}"\npassage = "{page}"\n'
    )
    items = _items(tmp_path, text)
    assert (items[0].target, items[0].golds, items[0].chance) == ("B", ["B", "C"], 2 / 3)
    assert items[0].continuations[2] == " no 0yes 0" and items[1].topic == "kind 1"
    passages = [item.passage for item in items]
    assert len(set(passages)) == 3 and passages[0] == passages[1] != passages[2]
    free = 'question = "{q}"\noptions = ""\ncolumns = { both = "[a, b]" }\ngold = "both"\n'
    assert _items(tmp_path, free)[0].golds == ["no 0", "yes 0"]
    topics = CHOICE + 'files = "*_test.jsonl"\ntopics = { odd = ["part"], even = ["other"] }\n'
    assert {item.topic for item in _items(tmp_path, topics)} == {"odd"}


def test_options_can_differ_in_the_context(tmp_path: Path):
    row = {"s": "The jay saw the owl as _ flew.", "o1": "jay", "o2": "owl", "answer": "2"}
    text = (
        "split = { s = '(?P<start>.*)_\\s*(?P<end>.*)' }\nquestion = \"{s}\"\n"
        'options = ["o1", "o2"]\ncontext = "{start}{text}"\ncontinuation = " {end}"\n'
        'gold = "answer|int - 1"\nstyle = "blank"\n'
    )
    (item,) = _items(tmp_path, text, row)
    assert item.contexts == ["The jay saw the owl as jay", "The jay saw the owl as owl"]
    assert item.continuations == [" flew."] * 2 and item.target == "B" and not item.cue


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('gold = "right + 5"', r"part_test\.jsonl: line 1: gold = 5 is not the index of one of 2"),
        ('gold = "wrong"', r"line 1: no 'wrong'; found \['a', 'b'"),
        ('gold = "wrong + 1"', "line 1: the template 'gold answer' fails: 'wrong' is undefined"),
        ('options = ["a", "z"]', r"line 1: no 'z'; found"),
        ('question = "{z}"', r"line 1: no 'z'; found"),
        ('passage = "{right.x}"', r"line 1: no 'right\.x'"),
    ],
)
def test_a_wrong_column_or_gold_is_one_line(change: str, message: str, tmp_path: Path):
    key = change.partition(" ")[0]
    text = re.sub(rf"(?m)^{key} = .*\n", "", CHOICE) + change + "\n"
    with pytest.raises(InputError, match=message) as caught:
        _items(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "form", "message"),
    [
        ('style = "bold"', "", r"mine\.toml: style = 'bold': known are cloze, letters, blank"),
        ("forms = 3", "", "forms = 3: write a table for each form"),
        ("forms.x = 3", ":x", r"forms\.x = 3: write a table"),
        ("forms.x = {}", ":y", r"mine\.toml: no form 'y'; known: x"),
        ("suites = 3", "", "suites = 3: write a list of names"),
        ('suites = ["bhh"]', "", "no benchmark 'bhh'"),
        ("shots = -1", "", "shots = -1: Input should be greater than or equal to 0"),
        ('metric = "mc2"', "", "metric = 'mc2' needs method = \"likelihood\""),
    ],
)
def test_a_malformed_file_is_one_line(text: str, form: str, message: str, tmp_path: Path):
    with pytest.raises(RecipeError, match=message) as caught:
        _task(tmp_path, text + "\n", form=form)
    assert "\n" not in str(caught.value)


def test_lists_name_several_benchmarks_and_data_says_where_each_is(tmp_path: Path):
    names = [task.name for task in read_suite("orca")]
    assert names == ["bbh", "agieval", "truthfulqa_mc"]
    assert read_suite("humpback")[-1].name == "mmlu-0shot"
    data = {"bbh": "b", "agieval": "a"}
    suite = Suite(suite="orca", data={"agieval": "/mine"}, path=tmp_path, shots=None)
    assert [each.place for each in placed([suite], data)] == ["b", "/mine", str(tmp_path)]
    with pytest.raises(RecipeError, match=r"where are the files of 'truthfulqa_mc'\? Set it in"):
        placed([Suite(suite="orca")], data)
    (arc,) = placed([Suite(suite="arc_easy", shots=2)], {"allenai/ai2_arc": "x"})
    assert arc.place == "x" and isinstance(arc.task, Task) and arc.task.shots == 2


def test_a_hub_address_needs_its_commit(tmp_path: Path):
    for place in ("hf://datasets/a/b", "hf://datasets/a/b@main"):
        with pytest.raises(ValueError, match="name the commit"):
            Suite(suite="bbh", data={"bbh": place})
    pinned = f"hf://datasets/a/b@{'0' * 40}"
    assert Suite(suite="bbh", data={"bbh": pinned}).data["bbh"] == pinned


def test_a_data_set_of_the_hub_is_fetched_once_for_all_its_benchmarks():
    place = f"hf://datasets/allenai/ai2_arc@{'0' * 40}"
    suites = [Suite(suite="arc_easy"), Suite(suite="arc_challenge")]
    r = Recipe("eval")
    items = add_items(r, placed(suites, {"allenai/ai2_arc": place}))
    assert [step.name for step in r.steps] == [
        "data-allenai-ai2_arc",
        "items-arc_easy",
        "items-arc_challenge",
    ]
    assert list(items) == ["arc_easy", "arc_challenge"]
    fetched = r.steps[0].config.model_dump()
    assert (fetched["address"], fetched["revision"]) == (place.partition("@")[0], "0" * 40)


def test_every_form_of_every_benchmark_is_read():
    text = STYLES.read_text()
    assert all(f"[{name}]" in text for name in ("cloze", "letters", "blank"))
    assert {"orca", "humpback", "quick", "mmlu", "winogrande", "nq_open"} <= set(task_names())


PUBLISHED = [
    pytest.param("mmlu", "mmlu", 14042, marks=pytest.mark.slow),
    ("bbh:cot", "bbh", 5511),
    ("bbh:free", "bbh", 1000),
    ("truthfulqa_mc", "orca_eval_openchat", 684),
    ("truthfulqa", "truthfulqa", 790),
    ("truthfulqa:mc2", "truthfulqa", 790),
    ("nq_open", "nq_open", 3610),
    ("gsm8k:5shot", "gsm8k", 1319),
    ("math", "agieval/v1", 1000),
]


@pytest.mark.parametrize(("suite", "folder", "number"), PUBLISHED)
def test_real_benchmarks_have_the_published_number(
    suite: str, folder: str, number: int, data_dir: Path
):
    (task,) = read_suite(suite)
    found = [item for group in items_of(task, data_dir / folder) for item in group]
    assert len(found) == number == task.num_items == len({item.id for item in found})
    if suite == "mmlu":
        assert {item.topic for item in found} == {"stem", "humanities", "social_sciences", "other"}
        assert all(item.question.count("\nAnswer: ") == 5 for item in found)
        subjects = {item.task: item.topic for item in found}
        assert sum(topic == "stem" for topic in subjects.values()) == 19 and len(subjects) == 57
    if suite == "truthfulqa_mc":
        theirs = (data_dir / folder / "zs/truthfulqa_orca/truthfulqa_mc.jsonl").read_text()
        rows = [json.loads(line) for line in theirs.splitlines()]
        assert [row["question"] for row in rows] == [item.asked for item in found]
        assert [row["label"] for row in rows] == [[item.target] for item in found]
    if suite == "truthfulqa:mc2":
        made = json.loads((data_dir / "truthfulqa/data/mc_task.json").read_text())
        same = [
            [text for text in row["mc2_targets"] if text]
            == [text.strip() for text in item.continuations]
            for row, item in zip(made, found, strict=True)
        ]
        assert sum(same) >= 780  # the rest differ in blanks and repetitions


@pytest.mark.parametrize("name", FORMS)
def test_rewritten_forms_give_the_published_columns(name: str, data_dir: Path, tmp_path: Path):
    word, place, number, form = FORMS[name]
    path = data_dir / "llm_adapters_commonsense" / "dataset" / name / "test.json"
    rows = [form(*each) for row in json.loads(path.read_text()) if (each := parts(row, word))]
    assert len(rows) == number
    target = tmp_path / Path(*Path(place).parts[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(json.dumps(row) + "\n" for row in rows))
    suites = {"ARC-Easy": "arc_easy", "ARC-Challenge": "arc_challenge", "social_i_qa": "siqa"}
    (task,) = read_suite(suites.get(name, name))
    (items,) = items_of(task, tmp_path)
    assert len(items) == number == task.num_items
    assert all(len(item.continuations) == len(item.options) > 1 for item in items)
