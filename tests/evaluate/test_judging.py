"""What is asked of a judge, and what becomes of its replies."""

from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

import toys
from scripted import Scripted, failed, reply
from spyhop.evaluate.judging import JudgeConfig, judge, read_prompts
from spyhop.models import Request, Sampling
from spyhop.runtime import Runtime
from spyhop.schema import InputError, Item, ModelError, Question, Response, Score, Verdict
from spyhop.store import Artifact

TOLERANT = Runtime(max_error_frac=1.0)


def _questions(folder: Path, num: int, turns: int = 1) -> Artifact:
    rows = [
        Question(
            id=f"q{n}", suite="toy", topic=f"skill {n % 2}",
            turns=[f"Question {n}, turn {t}?" for t in range(1, turns + 1)],
        )
        for n in range(num)
    ]  # fmt: skip
    return toys.rows_artifact(folder, rows)


def _answers(folder: Path, num: int, *names: str, turns: int = 1) -> dict[str, Artifact]:
    return {
        name: toys.rows_artifact(
            folder / name,
            [
                Response(id=f"q{n}", turns=[f"{name} says {n}.{t}" for t in range(1, turns + 1)])
                for n in range(num)
            ],
        )
        for name in names
    }


def _run(root: Path, say, num: int = 20, names=("x", "y"), **changes) -> list[Verdict]:
    model = say if isinstance(say, Scripted) else Scripted(say)
    made = judge.run(
        root, JudgeConfig.model_validate(changes), runtime=TOLERANT,
        questions=_questions(root / "questions", num),
        answers=_answers(root, num, *names), judge=model,
    )  # fmt: skip
    return list(made.rows(Verdict))


def _first(request: Request) -> str:
    """Name of the model whose response is read first."""
    return request.messages[-1].content.split("[Response A]\n")[1].split(" says")[0]


def test_both_orders_are_asked_and_a_winner_is_a_model_not_a_place(tmp_path: Path):
    rows = _run(tmp_path, lambda request, _: f"Verdict: {'A' if _first(request) == 'y' else 'B'}")
    assert {row.winner for row in rows} == {"b"}
    assert Counter((row.order, row.repeat) for row in rows) == {
        ("ab", 0): 20, ("ba", 0): 20, ("ab", 1): 2, ("ba", 1): 2,
    }  # fmt: skip
    assert {(row.a, row.b, row.judge, row.suite) for row in rows} == {("x", "y", "fake", "toy")}


def test_what_judgements_of_a_question_share_comes_first(tmp_path: Path):
    model = Scripted(lambda request, _: "Verdict: tie")
    _run(tmp_path, model, num=1, repeat_frac=0)
    (system, first), (same, second) = ([turn.content for turn in seen] for seen in model.seen)
    assert system == same
    assert first.startswith("[Question]\nQuestion 0, turn 1?\n\n[Response A]")
    assert first.split("[Response A]")[0] == second.split("[Response A]")[0]


@pytest.mark.parametrize(
    ("said", "missing"),
    [
        ("Verdict: both", "no_verdict"),
        ("Verdict: A\nVerdict: B", "two_verdicts"),
        (reply("Verdict: A", "length"), "cut"),
        (reply("", "content_filter"), "refused"),
        (reply(""), "empty"),
        (failed(), "failed"),
    ],
)
def test_a_verdict_that_cannot_be_had_is_missing(tmp_path: Path, said, missing: str):
    rows = _run(tmp_path, lambda request, _: said, num=3, repeat_frac=0, attempts=1)
    assert {(row.missing, row.winner, row.score) for row in rows} == {(missing, None, None)}


def test_a_missing_verdict_is_asked_for_again_and_no_other(tmp_path: Path):
    """What has no verdict is not taken from the journal as if it were one."""

    def say(request: Request, _: Sampling) -> str:
        is_bad = "Question 1," in request.messages[-1].content and request.sample_index < 4
        return "I cannot say." if is_bad else "Verdict: A"

    model = Scripted(say)
    rows = _run(tmp_path, model, num=3, repeat_frac=0)
    assert [row.missing for row in rows] == ["", "", "no_verdict", "no_verdict", "", ""]
    before = len(model.asked)
    rows = _run(tmp_path, model, num=3, repeat_frac=0, attempts=3)
    assert [row.missing for row in rows] == [""] * 6
    assert [sample for _, sample, _ in model.asked[before:]] == [4, 4]


def test_equal_responses_tie_unasked_and_a_missing_response_is_no_loss(tmp_path: Path):
    rows = {
        "x": [Response(id="q0", turns=["same"]), Response(id="q1", turns=["one"])],
        "y": [Response(id="q0", turns=["same"]), Response(id="q2", turns=["two"])],
    }
    answers = {name: toys.rows_artifact(tmp_path / name, some) for name, some in rows.items()}
    model = Scripted(lambda request, _: "Verdict: A")
    made = judge.run(
        tmp_path, JudgeConfig(repeat_frac=0), questions=_questions(tmp_path / "q", 3),
        answers=answers, judge=model,
    )  # fmt: skip
    found = [(row.item_id, row.winner, row.missing) for row in made.rows(Verdict)]
    no_response = [(f"q{n}", None, "no_response") for n in (1, 1, 2, 2)]
    assert found == [("q0", "tie", ""), ("q0", "tie", ""), *no_response]
    assert not model.asked
    assert made.record.counts["equal"] == 2 and made.record.counts["missing/no_response"] == 4


def test_grades_of_both_are_those_of_the_models_in_either_order(tmp_path: Path):
    rows = _run(
        tmp_path,
        lambda request, _: "9 4\nwhy" if _shown_first(request) == "x" else "4 9\nwhy",
        form="graded_pairs", repeat_frac=0,
    )  # fmt: skip
    assert {(row.score, row.score_b, row.winner) for row in rows} == {(9, 4, "a")}


def _shown_first(request: Request) -> str:
    return min("xy", key=lambda name: request.messages[-1].content.index(f"{name} says"))


def test_single_responses_are_scored_for_each_model(tmp_path: Path):
    rows = _run(tmp_path, lambda request, _: "Score: 7", num=2, form="scored", repeat_frac=0)
    found = [(row.item_id, row.a, row.b, row.order, row.score) for row in rows]
    assert found == [(f"q{n}", name, "", "", 7) for n in range(2) for name in "xy"]


def test_the_second_turn_is_judged_in_its_conversation_with_its_reference(tmp_path: Path):
    question = Question(
        id="q0", suite="toy", turns=["1 + 1?", "Times 3?"], references=["It is 2.", "It is 6."]
    )
    questions = toys.rows_artifact(tmp_path / "q", [question])
    model = Scripted(lambda request, _: "Verdict: A")
    made = judge.run(
        tmp_path, JudgeConfig(repeat_frac=0, orders="ab"), questions=questions,
        answers=_answers(tmp_path, 1, "x", "y", turns=2), judge=model,
    )  # fmt: skip
    assert [row.turn for row in made.rows(Verdict)] == [1, 2]
    first, second = (seen[-1].content for seen in model.seen)
    assert "It is 2." in first and "It is 6." not in first and "x says 0.2" not in first
    assert "User: 1 + 1?\n\nAssistant: x says 0.1" in second
    assert second.index("It is 6.") < second.index("x says 0.1") < second.index("y says 0.2")


def test_a_reference_model_is_compared_with_all_others(tmp_path: Path):
    def pairs(**changes) -> list[tuple[str, str]]:
        rows = _run(tmp_path, lambda *_: "Verdict: A", num=1, names=("x", "y", "z"), **changes)
        return list(dict.fromkeys((row.a, row.b) for row in rows))

    assert pairs(reference="z") == [("z", "x"), ("z", "y")]
    assert pairs() == [("x", "y"), ("x", "z"), ("y", "z")]
    with pytest.raises(InputError, match="reference 'w': not among x, y, z"):
        pairs(reference="w")


def test_items_with_scores_are_questions_with_answers(tmp_path: Path):
    item = Item(id="i", suite="s", task="t", topic="law", question="Why?", target="so")
    score = Score(
        id="i", suite="s", task="t", response="So.", extracted=None, correct=False, target="so",
        chance=0, finish_reason="stop", response_tokens=1,
    )  # fmt: skip
    other = score.model_copy(update={"response": "Because."})
    answers = {
        "base": toys.rows_artifact(tmp_path / "a", [score]),
        "student": toys.rows_artifact(tmp_path / "b", [other]),
    }
    made = judge.run(
        tmp_path, JudgeConfig(), questions=toys.rows_artifact(tmp_path / "q", [item]),
        answers=answers, judge=Scripted(lambda *_: "Verdict: B"),
    )  # fmt: skip
    assert [(row.winner, row.topic) for row in made.rows(Verdict)][:3:2] == [
        ("b", "law"),
        ("a", "law"),
    ]


def test_a_killed_judge_is_asked_for_nothing_twice(tmp_path: Path):
    def say(request: Request, _: Sampling) -> str:
        return "Verdict: A"

    asked = []
    for lives in (7, 11, 1000):
        model = Scripted(say, lives=lives)
        try:
            rows = _run(tmp_path, model)
        except ModelError:
            rows = []
        asked += [(text, sample) for text, sample, _ in model.asked]
    assert len(rows) == len(asked) == len(set(asked)) == 44


def test_too_many_failed_calls_stop_the_stage(tmp_path: Path):
    with pytest.raises(ModelError, match="calls failed"):
        judge.run(
            tmp_path, JudgeConfig(), questions=_questions(tmp_path / "q", 2),
            answers=_answers(tmp_path, 2, "x", "y"), judge=Scripted(lambda *_: failed()),
        )  # fmt: skip


def test_no_common_question_is_an_error(tmp_path: Path):
    with pytest.raises(InputError, match="the ids of answers must be those of the questions"):
        judge.run(
            tmp_path, JudgeConfig(), questions=_questions(tmp_path / "q", 2),
            answers={
                name: toys.rows_artifact(tmp_path / name, [Response(id="z", turns=[name])])
                for name in "xy"
            },
            judge=Scripted(lambda *_: "Verdict: A"),
        )  # fmt: skip


def test_a_prompt_that_shows_no_response_is_refused():
    with pytest.raises(ValidationError, match=r"prompts.general.user does not contain \{answer_b"):
        JudgeConfig.model_validate({"prompts": {"general": {"user": "{question} {answer_a}"}}})
    assert "{reference}" in JudgeConfig().prompts["reference"].user


def test_published_prompts_are_data(tmp_path: Path, data_dir: Path):
    """MT-bench's mathematics prompt shows both turns, their references and responses."""
    path = data_dir / "fastchat_mtbench" / "judge_prompts.jsonl"
    prompts = read_prompts(path, "pairwise")
    assert set(prompts) == {"general", "reference", "turns", "turns_reference"}
    config = JudgeConfig(prompts=prompts, orders="ab", repeat_frac=0)
    question = Question(
        id="q0", suite="toy", turns=["1 + 1?", "Times 3?"], references=["It is 2.", "It is 6."]
    )
    model = Scripted(lambda *_: "So: [[B]]")
    made = judge.run(
        tmp_path, config, questions=toys.rows_artifact(tmp_path / "q", [question]),
        answers=_answers(tmp_path, 1, "x", "y", turns=2), judge=model,
    )  # fmt: skip
    assert [row.winner for row in made.rows(Verdict)] == ["b", "b"]
    later = model.seen[1][-1].content
    for text in ("1 + 1?", "Times 3?", "It is 2.", "It is 6.", "x says 0.2", "y says 0.2"):
        assert text in later
    assert "{" not in later
    assert set(read_prompts(path, "scored")) == set(prompts)
    with pytest.raises(InputError, match="no general prompt of the form 'graded_pairs'"):
        read_prompts(path, "graded_pairs")


def test_the_prompt_of_vicunas_reviews_is_data(data_dir: Path):
    path = data_dir / "vicuna80_answers_reviews" / "prompt.jsonl"
    prompts = read_prompts(path, "graded_pairs")
    assert set(prompts) == {"general", "reference"}
    assert "{answer_a}" in prompts["general"].user and "{prompt}" not in prompts["general"].user
    JudgeConfig(form="graded_pairs", prompts=prompts)
