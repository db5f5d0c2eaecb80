"""lm-eval's task files: the same prompts byte for byte, and one line where a file is refused."""

import hashlib
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from lm_eval_cases import CASES, CLOZE, WRITTEN, rows, write
from spyhop.evaluate import MeasureConfig, items_of, read_suite, with_shots
from spyhop.evaluate.lm_eval import LmEvalSuite
from spyhop.evaluate.lm_eval_items import draw_shots, lm_eval_items
from spyhop.evaluate.measure import read_fields
from spyhop.schema import InputError, Item, RecipeError
from spyhop.text.filters import Filter, Step
from spyhop.text.sandbox import Sandbox

DIGESTS = {
    "cloze": "be6277636cc5a3c2",
    "cloze_shots": "faf31c58b4dc8518",
    "cloze_first": "5cd1b4f5d3d0b569",
    "from_test": "9668fa7f2e33ad20",
    "first_from_test": "f75ee5b649464466",
    "validation_only": "33e6f2f0d7d7796f",
    "no_training": "4ffd5b56af698373",
    "letters": "524c30f73544d676",
    "columns": "d9ee715aed5c934d",
    "boolean": "bb1c8ef063d04a98",
    "several_golds": "be6277636cc5a3c2",
    "begun": "0d1851090a6c4b7b",
    "begun_with_space": "8083d96f423a94bc",
    "contexts": "bc5b747f1d307386",
    "continued": "5a22df7666f49934",
    "written": "8ff9a45276ceb925",
    "written_samples": "fcbe4e33b91954dd",
    "written_list": "abae7ddaaa889f37",
    "written_choice": "0c5ff9f1394a25d2",
    "replaced": "8414a884e835eb0a",
}
"""Of lm-eval 0.4.13's prompts, by `benchmarks/lm_eval_prompts.py`."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made-up")
    write(folder)
    return folder


def _suite(folder: Path, text: str, name: str = "one") -> LmEvalSuite:
    path = folder / f"{name}.yaml"
    path.write_text(f"task: {name}\n{text}", encoding="utf-8")
    (found,) = read_suite(str(path))
    assert isinstance(found, LmEvalSuite)
    return found


def _items(folder: Path, text: str, data: Path) -> list[Item]:
    return [item for group in items_of(_suite(folder, text), data) for item in group]


def _requests(suite: LmEvalSuite, item: Item) -> list[list[Any]]:
    """What lm-eval would send for an item."""
    if suite.method == "generate":
        return [[item.asked, list(suite.sampling.stop)]]
    prompts = item.contexts or [item.asked] * len(item.continuations)
    return [[prompt, text] for prompt, text in zip(prompts, item.continuations, strict=True)]


def test_prompts_are_lm_evals_byte_for_byte(tmp_path: Path, data: Path):
    found = {}
    with Sandbox() as sandbox:
        for name, text in CASES.items():
            suite = _suite(tmp_path, text, name)
            (items,) = lm_eval_items(suite, data, None, sandbox)
            sent = json.dumps([_requests(suite, item) for item in items], ensure_ascii=False)
            found[name] = hashlib.sha256(sent.encode()).hexdigest()[:16]
    assert found == DIGESTS


def test_golds_are_labels_texts_or_several(tmp_path: Path, data: Path):
    first, *_ = test = rows("test", 12)
    items = _items(tmp_path, CASES["cloze"], data)
    assert [item.target for item in items] == ["ABCD"[row["gold"]] for row in test]
    assert items[0].chance == 1 / len(first["texts"]) and items[0].text == "Q: Heron 7?\nA:"
    several = _items(tmp_path, CASES["several_golds"], data)
    assert [item.golds for item in several] == [
        ["ABCD"[n] for n in row["many"]] if len(row["many"]) > 1 else [] for row in test
    ]
    listed = _items(tmp_path, CASES["written_list"], data)[0]
    assert (listed.target, listed.golds) == ("7", ["7", "the 7"]) and not listed.options
    chosen = _items(tmp_path, CASES["written_choice"], data)[0]
    assert chosen.target == first["texts"][first["gold"]]
    placed = _items(tmp_path, CASES["contexts"], data)
    assert [item.target for item in placed[:2]] == ["AB"[row["gold"] % 2] for row in test[:2]]


def test_the_number_of_worked_examples_can_be_set(tmp_path: Path, data: Path):
    suite = _suite(tmp_path, CASES["cloze"])
    (three,) = items_of(with_shots(suite, 3), data)
    (own,) = items_of(_suite(tmp_path, CASES["cloze_shots"]), data)
    assert [item.question for item in three] == [item.question for item in own]
    assert with_shots(suite, None) is suite


@pytest.mark.parametrize("number", [1, 3, 5])
@pytest.mark.parametrize("excludes", [True, False])
def test_the_sampler_is_one_sequence_of_pythons_random_sample(number: int, excludes: bool):
    pool = [{"n": n % 6} for n in range(9)]  # rows 0 to 2 occur twice
    rng = random.Random(1234)
    found = draw_shots(pool, pool, number, "seeded", excludes=excludes)
    for row, places in zip(pool, found, strict=True):
        wanted = rng.sample(pool, number + excludes)
        if excludes:
            wanted = [each for each in wanted if each != row][:number]
            if len(wanted) < number:
                wanted = rng.sample([each for each in pool if each != row], number)
        assert [pool[n] for n in places] == wanted


def test_too_few_rows_for_worked_examples_is_one_line(tmp_path: Path, data: Path):
    for text in (CASES["cloze_shots"], CASES["cloze_first"]):
        suite = with_shots(_suite(tmp_path, text), 16)
        with pytest.raises(InputError, match=r"16 worked examples are wanted; .* 15 rows"):
            list(items_of(suite, data))


def test_protocol_of_a_written_answer(tmp_path: Path):
    suite = _suite(tmp_path, CASES["written"])
    assert (suite.form, suite.metric, suite.data) == ("plain", "exact", "made/up")
    assert suite.sampling.stop == ("Question:", "</s>") and suite.sampling.is_greedy
    own = MeasureConfig().for_tasks([suite]).protocol("one")
    assert own.filters == suite.filters and own.form == "plain"
    bare = _suite(tmp_path, WRITTEN.replace("generation_kwargs", "# "))
    assert bare.sampling.stop == ("\n\n",) and bare.sampling.max_new_tokens == 256


GSM8K = """
filter_list:
  - name: strict-match
    filter:
      - {function: regex, regex_pattern: "#### (\\\\-?[0-9\\\\.\\\\,]+)"}
      - {function: take_first}
  - name: flexible-extract
    filter:
      - {function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)"}
      - {function: take_first}
"""


@pytest.mark.parametrize(
    ("response", "strict", "flexible", "answer"),
    [
        ("So 5.\n#### 1,007", 1.0, 1.0, "1,007"),
        ("It is $1,007", 0.0, 1.0, None),
        ("1007 it is, or 8", 0.0, 0.0, None),
        ("#### 1007\nQ: 9?", 1.0, 0.0, "1007"),
        ("none", 0.0, 0.0, None),
    ],
)
def test_filters_read_as_lm_evals(
    response: str, strict: float, flexible: float, answer: str | None, tmp_path: Path
):
    suite = _suite(tmp_path, WRITTEN + GSM8K)
    item = Item(id="1", task="t", suite="one", question="Q", target="Sum.\n#### 1,007")
    found = read_fields(response, "whole", item, suite)
    assert found["metrics"]["exact_match,strict-match"] == strict == found["value"]
    assert found["metrics"]["exact_match,flexible-extract"] == flexible
    assert found["extracted"] == answer and found["correct"] == bool(strict)


def test_a_filter_with_groups_takes_the_first_that_is_not_empty():
    step = Step(function="regex", pattern="(a)|(b) ", select=-1)
    assert step.apply("a b ") == "b" and step.apply("c") == "[invalid]"
    assert Filter(name="n", steps=(Step(function="lowercase"),)).answer("AB") == "ab"


def test_a_group_has_its_tasks_by_tag_and_name_with_topics(tmp_path: Path, data: Path):
    (tmp_path / "_base_yaml").write_text(CLOZE)
    for name, tag in (("b", "easy_tasks"), ("a", "easy_tasks"), ("c", "hard_tasks")):
        own = f'include: _base_yaml\ntask: {name}\ntag: {tag}\ndescription: "{name}: "\n'
        (tmp_path / f"{name}.yaml").write_text(own)
    groups = {
        "_all": "group: all\ntask: [easy, {group: hard, group_alias: tough, task: [hard_tasks]}]\n"
        "num_fewshot: 1\n",
        "_easy": "group: easy\ntask: [easy_tasks]\n",
    }
    for name, text in groups.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    (suite,) = read_suite(str(tmp_path / "_all.yaml"))
    found = [(group[0].task, group[0].topic) for group in items_of(suite, data)]
    assert found == [("a", "easy"), ("b", "easy"), ("c", "tough")]
    (some,) = items_of(suite, data, ("c",))
    assert some[0].question.startswith("c: Q: ") and some[0].question.count("\nA:") == 2
    with pytest.raises(InputError, match="all: no task z; known: a, b, c"):
        list(items_of(suite, data, ("z",)))


def test_groups_that_contain_each_other_or_nothing_are_one_line(tmp_path: Path):
    (tmp_path / "g.yaml").write_text("group: g\ntask: [h, h]\n")
    (tmp_path / "h.yaml").write_text("group: h\ntask: [g, g]\n")
    with pytest.raises(RecipeError, match="groups contain each other"):
        read_suite(str(tmp_path / "g.yaml"))
    (tmp_path / "h.yaml").write_text("group: h\ntask: x\n")
    with pytest.raises(RecipeError, match=r"h\.yaml: the group 'h' has no list of tasks"):
        read_suite(str(tmp_path / "g.yaml"))
    (tmp_path / "h.yaml").write_text("group: h\ntask: [{alias: x}, 3]\n")
    with pytest.raises(RecipeError, match=r"h\.yaml: a member of 'h' has no name"):
        read_suite(str(tmp_path / "g.yaml"))
    (tmp_path / "h.yaml").unlink()
    with pytest.raises(RecipeError, match=r"g\.yaml: no YAML file in .* defines 'h'"):
        read_suite(str(tmp_path / "g.yaml"))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "h.yaml").write_text("group: h\ntask: [x]\n")
    message = rf"below/h\.yaml: no YAML file in {re.escape(str(tmp_path))} defines 'x'"
    with pytest.raises(RecipeError, match=message):
        read_suite(str(tmp_path / "g.yaml"))


def test_a_group_with_its_tasks_written_out_reads_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("spyhop.evaluate.lm_eval._MAX_FILES", 0)
    own = CLOZE.strip().replace("\n", "\n    ")
    (tmp_path / "g.yaml").write_text(f"group: g\ntask:\n  - task: a\n    {own}\n")
    assert [suite.data for suite in read_suite(str(tmp_path / "g.yaml"))] == ["made/up"]
    (tmp_path / "g.yaml").write_text("group: g\ntask: [a]\n")
    with pytest.raises(RecipeError, match="1 YAML files; at most 0"):
        read_suite(str(tmp_path / "g.yaml"))


def test_a_group_of_several_data_sets_is_several_suites(tmp_path: Path):
    _suite(tmp_path, CLOZE, "a")
    _suite(tmp_path, CLOZE.replace("made/up", "other/one"), "b")
    (tmp_path / "g.yaml").write_text("group: g\ntask: [a, b]\n")
    found = read_suite(str(tmp_path / "g.yaml"))
    assert [(suite.name, suite.data) for suite in found] == [("a", "made/up"), ("b", "other/one")]


@pytest.mark.parametrize(
    "layout",
    [
        "{subset}/{split}-00000-of-00001.jsonl",
        "data/{subset}/{split}.json",
        "{split}/{subset}_{split}.jsonl",
        "{subset}_{split}.jsonl",
    ],
)
def test_splits_are_found_in_the_usual_layouts(layout: str, tmp_path: Path):
    folder = tmp_path / "data"
    for subset in ("one", "two", "none_of_one"):
        for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
            path = folder / layout.format(subset=subset, split=name)
            path.parent.mkdir(parents=True, exist_ok=True)
            made = [{**row, "question": f"{subset} {split}"} for row in rows("train", 3)]
            path.write_text("".join(json.dumps(row) + "\n" for row in made))
    text = CLOZE.replace("test_split: test", "fewshot_split: validation")
    (item, *_) = _items(tmp_path, f"dataset_name: two\n{text}num_fewshot: 1\n", folder)
    assert item.question.count("two validation") == 2
    with pytest.raises(InputError, match=r"no file of the split 'extra' of 'two'; its name, or a"):
        text = CLOZE.replace("test_split: test", "test_split: extra")
        _items(tmp_path, f"dataset_name: two\n{text}", folder)


def test_csv_has_numbers_and_missing_columns_are_none(tmp_path: Path):
    (tmp_path / "test.csv").write_text("question,a,b,gold\nWhich?,one,two,1\nWho?,he,she,0\n")
    text = CLOZE.replace('"{{choices.text}}"', '"{{ [a, b] }}"')
    text = text.replace('"{{choices.label.index(key)}}"', "gold")
    one, two = _items(tmp_path, text.replace("training_split: train\n", ""), tmp_path)
    assert (one.target, two.target, one.continuations) == ("B", "A", [" one", " two"])
    mixed = '{"question": "Q", "texts": ["a", "b"], "gold": 0}\n'
    (tmp_path / "rows.jsonl").write_text(mixed + mixed.replace("}", ', "note": "n"}'))
    text = CASES["columns"].replace("num_fewshot: 2", 'description: "{{ note }}|"')
    one, two = _items(tmp_path, text, tmp_path / "rows.jsonl")
    assert (one.question, two.question) == ("None|Q", "n|Q")


REFUSED = {
    "a function": (
        "doc_to_text: !function utils.text\n",
        r"line 13: doc_to_text needs Python \(!fu",
    ),
    "in a list": (
        "metric_list:\n  - {metric: !function utils.f}\n",
        "line 14: metric_list needs Py",
    ),
    "of rows": ("process_docs: utils.rows\n", "process_docs = 'utils.rows' needs Python"),
    "a class": ("class: utils.Task\n", "class = 'utils.Task' needs Python"),
    "an object": (
        "description: !!python/object/apply:os.system [ls]\n",
        "line 13: description nee",
    ),
    "an unknown key": (
        "doc_to_txt: x\n",
        "doc_to_txt is not a setting; did you mean 'doc_to_text'",
    ),
    "a bad number": (
        "num_fewshot: many\n",
        "num_fewshot = 'many': Input should be a valid integer",
    ),
    "a sampler": ("fewshot_config: {sampler: balanced}\n", "fewshot_config.sampler = 'balanced'"),
    "no table": ("fewshot_config: [1]\n", r"fewshot_config = \[1\]: write a table"),
    "a metric": ("metric_list: [{metric: bleu}]\n", "metric_list has none of .*: bleu"),
    "metrics": ("metric_list: 3\n", "metric_list, filter_list, generation_kwargs: "),
    "a rolling task": ("output_type: loglikelihood_rolling\n", "output_type = 'loglikelihood_roll"),
    "no split": (
        "test_split: null\nvalidation_split: null\n",
        "test_split or validation_split is m",
    ),
    "no data": ("dataset_path: null\n", "dataset_path is missing"),
    "itself": ("include: one.yaml\n", "includes itself"),
    "not there": ("include: other.yaml\n", r"other\.yaml: cannot be read \(No such file"),
    "no YAML": ("description: 'x\n", r"line \d+: not YAML \("),
    "a list": ("- x\n", r"not YAML \("),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_not_declarative_is_refused_with_its_line(name: str, tmp_path: Path):
    text, message = REFUSED[name]
    with pytest.raises(RecipeError, match=message) as caught:
        _suite(tmp_path, CLOZE.replace("\n", "", 1) + text)
    assert "\n" not in str(caught.value) and ".yaml" in str(caught.value)


def test_a_function_of_the_base_that_the_file_replaces_does_not_count(tmp_path: Path):
    (tmp_path / "base_yaml").write_text("description: !function utils.f\n" + CLOZE)
    assert _suite(tmp_path, 'include: base_yaml\ndescription: "Hm. "\n').members[0].description
    with pytest.raises(RecipeError, match=r"base_yaml: line 1: description needs Python"):
        _suite(tmp_path, "include: base_yaml\n")


def test_bombs_of_aliases_and_depth_are_one_line(tmp_path: Path):
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(RecipeError, match="its aliases unfold to more than 50,000 values"):
        _suite(tmp_path, "\n".join(levels))
    with pytest.raises(RecipeError, match="or 40 levels"):
        _suite(tmp_path, f"description: {'[' * 60}{']' * 60}")
    with pytest.raises(RecipeError, match=r"one\.yaml: nested too deeply|or 40 levels"):
        _suite(tmp_path, f"description: {'[' * 5000}{']' * 5000}")
    with pytest.raises(RecipeError, match="or 40 levels"):
        _suite(tmp_path, "fewshot_config: &c\n  samples: [*c]\n")


WRONG = {
    "choices": (
        "doc_to_choice",
        '"{{ question }}"',
        "line 1: doc_to_choice gives no list: 'Heron 7",
    ),
    "undefined": (
        "doc_to_text",
        '"{{ nothing }}"',
        "line 1: .*'doc_to_text' fails: 'nothing' is un",
    ),
    "gold": ("doc_to_target", '"{{ 9 }}"', "line 1: the answer 9 is not among 3 choices"),
    "text": ("doc_to_target", '"{{ question }}"', "line 1: the answer 'Heron 7.*' is not among"),
    "number": ("doc_to_text", "many", r"line 1: the prompt is \[0, 1\], not text"),
    "private": ("doc_to_text", '"{{ question.__class__ }}"', "'__class__' .*is unsafe"),
    "file": ("doc_to_text", "\"{% include '/etc/passwd' %}\"", "no loader for this environment"),
    "syntax": ("doc_to_text", '"{{ question"', "'doc_to_text' fails: unexpected"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_field_is_one_line_with_its_row(name: str, tmp_path: Path, data: Path):
    key, value, message = WRONG[name]
    text = "\n".join(
        f"{key}: {value}" if line.startswith(f"{key}:") else line for line in CLOZE.split("\n")
    )
    with pytest.raises(InputError, match=message) as caught:
        _items(tmp_path, text.replace('"{{choices.text}}"', "texts"), data)
    assert "\n" not in str(caught.value) and "test.jsonl" in str(caught.value)
