"""Suites as data: questions, ready answers and verdicts in their published formats."""

import json
from collections import Counter
from pathlib import Path

import pytest

import toys
from scripted import Scripted
from spyhop.evaluate.open_suite import (
    QuestionsConfig,
    ReadyConfig,
    RespondConfig,
    open_questions,
    open_suite_names,
    plan_questions,
    read_open_suite,
    ready_answers,
    ready_verdicts,
    respond,
)
from spyhop.models import Sampling
from spyhop.schema import InputError, Question, RecipeError, Response, Verdict
from spyhop.stage import Estimate
from spyhop.store import Artifact, Source

PUBLISHED = {
    "vicuna": ("fastchat_mtbench/vicuna_bench", 80, 9, 1),
    "mt-bench": ("fastchat_mtbench/mt_bench", 80, 8, 2),
    "wizardlm": ("wizardlm_testset", 218, 29, 1),
    "alpaca-eval": ("alpaca_eval", 805, 5, 1),
    "self-instruct": ("self_instruct/human_eval", 252, 71, 1),
    "pandalm": ("pandalm", 999, 50, 1),
}


def _questions(root: Path, name: str, path: Path, limit: int | None = None) -> Artifact:
    config = QuestionsConfig(suite=read_open_suite(name), limit=limit)
    return open_questions.run(root, config, folder=Source(path).open(root))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_questions(tmp_path: Path, data_dir: Path, name: str):
    path, num, num_topics, num_turns = PUBLISHED[name]
    made = _questions(tmp_path, name, data_dir / path)
    rows = list(made.rows(Question))
    assert len(rows) == num == len({row.id for row in rows})
    assert len({row.topic for row in rows}) == num_topics
    assert {len(row.turns) for row in rows} == {num_turns}
    assert all(turn.strip() for row in rows for turn in row.turns)


def test_references_of_mt_bench_belong_to_reasoning_mathematics_and_code(tmp_path, data_dir):
    rows = _questions(tmp_path, "mt-bench", data_dir / "fastchat_mtbench" / "mt_bench").rows(
        Question
    )
    topics = Counter(row.topic for row in rows if len(row.references) == 2)
    assert topics == {"math": 10, "reasoning": 10, "coding": 10}
    doubted = read_open_suite("mt-bench").doubted
    assert len(doubted) == 13 and all(101 <= int(name) <= 130 for name in doubted)


def test_the_number_of_awesome_prompts_is_told(tmp_path: Path, data_dir: Path):
    notes = []
    path = data_dir / "awesome_chatgpt_prompts" / "prompts_early.csv"
    config = QuestionsConfig(suite=read_open_suite("awesome"))
    made = open_questions.run(
        tmp_path, config, folder=Source(path).open(tmp_path),
        report=lambda progress: notes.append(progress.doing),
    )  # fmt: skip
    note = f"awesome: {made.num_rows:,} questions; published are 164"
    assert note in notes and made.num_rows > 150


def _reviewed(tmp_path: Path, data_dir: Path) -> tuple[list[Artifact], list[str]]:
    folder = data_dir / "vicuna80_answers_reviews"
    suite, notes = ReadyConfig(suite=read_open_suite("vicuna")), []
    questions = _questions(tmp_path, "vicuna", folder)
    answers = {
        path.stem.removeprefix("answer_"): ready_answers.run(
            tmp_path, suite, questions=questions, folder=Source(path).open(tmp_path)
        )
        for path in sorted((folder / "answer").glob("*.jsonl"))
    }
    made = [
        ready_verdicts.run(
            tmp_path, suite, questions=questions, answers=answers,
            folder=Source(path).open(tmp_path),
            report=lambda progress: notes.append(progress.doing),
        )
        for path in sorted((folder / "review").rglob("*.jsonl"))
    ]  # fmt: skip
    return made, [note for note in notes if "stored score" in note]


def test_the_shared_reviews_have_their_stored_scores(tmp_path: Path, data_dir: Path):
    """1,040 reviews: none without a score. Two have another stored score than their text says."""
    made, notes = _reviewed(tmp_path, data_dir)
    rows = [row for each in made for row in each.rows(Verdict)]
    assert len(rows) == 1040 and not any(row.missing for row in rows)
    assert sum(each.record.counts.get("differs", 0) for each in made) == 2
    assert [note.partition("/review/")[2] for note in notes] == [
        f"vicuna-13b_20230322-clean-lang/review_{name}_vicuna-13b.jsonl: line 70: the review says "
        "[10.0, 4.0], its stored score is [10, 2]"
        for name in ("bard", "llama-13b")
    ]
    assert len({(row.a, row.b) for row in rows}) == 13


def test_labels_of_people(tmp_path: Path, data_dir: Path):
    suite = read_open_suite("pandalm")
    folder = Source(data_dir / "pandalm").open(tmp_path)
    questions = _questions(tmp_path, "pandalm", data_dir / "pandalm")
    answers = {
        column: ready_answers.run(
            tmp_path, ReadyConfig(suite=suite, side=side), questions=questions, folder=folder
        )
        for side, column in enumerate(suite.responses)
    }
    labels = ready_verdicts.run(
        tmp_path, ReadyConfig(suite=suite, side=1), questions=questions, answers=answers,
        folder=folder,
    )  # fmt: skip
    rows = list(labels.rows(Verdict))
    assert Counter(row.judge for row in rows) == {f"annotator{n}": 999 for n in (1, 2, 3)}
    first = Counter(row.winner for row in rows if row.judge == "annotator1")
    assert first == {"b": 475, "a": 427, "tie": 97}
    models = {row.model for row in answers["response2"].rows(Response)}
    assert models == {"llama-7b", "pythia-6.9b", "opt-7b", "cerebras-gpt-6.7B"}


def _file(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "answer",
    [
        {"question_id": 7, "choices": [{"index": 0, "turns": ["So."]}], "model_id": "m"},
        {"question_id": "7", "text": "So.", "model_id": "m"},
        {"instruction": "Why?", "output": "So.", "generator": "m"},
        {"prompt": "Why?", "response": "So.", "model": "m"},
        {"messages": [
            {"role": "user", "content": "Why? "}, {"role": "assistant", "content": "So."},
        ], "model": "m"},
    ],
)  # fmt: skip
def test_answers_in_the_formats_that_people_publish(tmp_path: Path, answer: dict):
    asked = _file(tmp_path / "own.jsonl", [{"question_id": 7, "question": "Why?"}])
    questions = _questions(tmp_path, str(asked), asked)
    folder = Source(_file(tmp_path / "answers.jsonl", [answer])).open(tmp_path)
    config = ReadyConfig(suite=read_open_suite(str(asked)))
    made = ready_answers.run(tmp_path, config, questions=questions, folder=folder)
    assert [(row.id, row.turns, row.model) for row in made.rows(Response)] == [("7", ["So."], "m")]


def test_own_verdicts_are_read_back(tmp_path: Path):
    asked = _file(tmp_path / "own.jsonl", [{"id": "q", "question": "Why?"}])
    questions = _questions(tmp_path, str(asked), asked)
    answers = {
        name: toys.rows_artifact(tmp_path / name, [Response(id="q", turns=[name])]) for name in "xy"
    }
    row = Verdict(id="v", item_id="q", judge="j", a="x", b="y", order="ba", winner="b", turn=1)
    wrong = {**row.model_dump(), "winner": "both"}
    config = ReadyConfig(suite=read_open_suite(str(asked)))

    def read(rows: list[object]) -> Artifact:
        folder = Source(_file(tmp_path / "verdicts.jsonl", rows)).open(tmp_path)
        return ready_verdicts.run(
            tmp_path, config, questions=questions, answers=answers, folder=folder
        )

    (found,) = read([row.model_dump()]).rows(Verdict)
    assert found.model_copy(update={"id": "v", "suite": ""}) == row
    with pytest.raises(InputError, match="line 1: winner: Input should be 'a', 'b' or 'tie'"):
        read([wrong])


@pytest.mark.parametrize(
    ("preference", "winner"),
    [(1, "a"), (2.0, "b"), (0, "tie"), (1.5, "tie"), (1.23, "a"), (1.9999, "b"), ("Tie", "tie"),
     (None, None), ("garbage", None), (3, None), (-1, None)],
)  # fmt: skip
def test_preferences_as_people_publish_them(tmp_path: Path, preference, winner):
    asked = _file(tmp_path / "own.jsonl", [{"question": "Why?"}])
    questions = _questions(tmp_path, str(asked), asked)
    answers = {
        name: toys.rows_artifact(tmp_path / name, [Response(id="q", turns=[name])]) for name in "xy"
    }
    row = {"question": "Why?", "generator_1": "x", "generator_2": "y", "preference": preference}
    folder = Source(_file(tmp_path / "annotations.jsonl", [row])).open(tmp_path)
    config = ReadyConfig(suite=read_open_suite(str(asked)))
    made = ready_verdicts.run(tmp_path, config, questions=questions, answers=answers, folder=folder)
    (found,) = made.rows(Verdict)
    assert (found.winner, found.missing) == (winner, "" if winner else "no_verdict")


def test_a_sample_is_the_same_however_the_file_is_ordered(tmp_path: Path):
    rows = [{"question": f"What is {n}?"} for n in range(30)]
    one = _file(tmp_path / "own.jsonl", rows)
    first = [row.turns for row in _questions(tmp_path, str(one), one, 5).rows(Question)]
    _file(one, rows[::-1])
    again = [row.turns for row in _questions(tmp_path, str(one), one, 5).rows(Question)]
    assert len(first) == 5 and sorted(first) == sorted(again)


def test_two_questions_of_one_id_are_an_error(tmp_path: Path):
    rows = [{"id": 1, "question": "Why?"}, {"id": 1, "question": "How?"}]
    path = _file(tmp_path / "own.jsonl", rows)
    with pytest.raises(InputError, match="line 2: a second question has the id '1'"):
        _questions(tmp_path, str(path), path)


def test_every_suite_is_valid_and_an_unknown_one_is_refused():
    assert {read_open_suite(name).name for name in open_suite_names()} == set(open_suite_names())
    with pytest.raises(RecipeError, match="no suite 'nosuch'; known: alpaca-eval, awesome"):
        read_open_suite("nosuch")


def test_later_turns_are_asked_with_the_earlier_responses(tmp_path: Path):
    question = Question(id="q", suite="s", turns=["One?", "Two?"])
    model = Scripted(lambda request, _: f"to {request.messages[-1].content}")
    made = respond.run(
        tmp_path, RespondConfig(system_message="Be brief.", sampling=Sampling()),
        questions=toys.rows_artifact(tmp_path / "q", [question]), model=model,
    )  # fmt: skip
    (row,) = made.rows(Response)
    assert row.turns == ["to One?", "to Two?"]
    assert [turn.content for turn in model.seen[-1]] == ["Be brief.", "One?", "to One?", "Two?"]


def test_a_plan_counts_no_more_questions_than_there_are():
    suite = read_open_suite("vicuna")
    for limit, num in [(None, 80), (3, 3), (500, 80)]:
        assert plan_questions(QuestionsConfig(suite=suite, limit=limit), Estimate()).rows == num


def test_a_file_without_rows_is_an_error(tmp_path: Path):
    path = tmp_path / "question.jsonl"
    path.write_text("")
    with pytest.raises(InputError, match=r"question\.jsonl: no questions of vicuna"):
        _questions(tmp_path, "vicuna", path)
