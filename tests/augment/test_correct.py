"""Students' answers corrected from the first wrong step, and as many tokens of plain answers."""

from pathlib import Path

import pytest

from scripted import Scripted, failed, prompt, prompts, reply
from spyhop import world
from spyhop.augment import (
    AnswerConfig,
    CorrectConfig,
    MatchConfig,
    answer,
    correct_answers,
    match_tokens,
)
from spyhop.augment.correct import SPENT, corrected
from spyhop.collect import PairConfig, SystemMessage, pair
from spyhop.models import ModelUse
from spyhop.runtime import Runtime
from spyhop.schema import Answer
from spyhop.store import Artifact

OWN = "First, 2 + 2 = 4.\nThen 4 + 3 = 8.\nThe answer is 8."


@pytest.mark.parametrize(
    ("own", "said", "text", "outcome"),
    [
        (OWN, "RIGHT", OWN, "own"),
        (OWN, " right.\n", OWN, "own"),
        (OWN, "KEEP: First, 2 + 2 = 4.\nThen 4 + 3 = 7.\nThe answer is 7.",
         "First, 2 + 2 = 4.\nThen 4 + 3 = 7.\nThe answer is 7.", "continued"),
        ("a) one. b) two.", "KEEP: a)  one.\nb) three.", "a) one. b) three.", "continued"),
        ("cut after", "KEEP: cut after\nthis.", "cut after this.", "continued"),
        (OWN, "The answer is 7.", "The answer is 7.", "rewritten"),
        (OWN, "KEEP:\nThe answer is 7.", "The answer is 7.", "rewritten"),
        (OWN, "KEEP: Second, 2 + 2 = 4.\nSo 7.", "KEEP: Second, 2 + 2 = 4.\nSo 7.", "lost"),
        ("a step. a step. end", "KEEP: a step.\nend", "KEEP: a step.\nend", "lost"),
    ],
)  # fmt: skip
def test_a_correction_begins_after_the_last_right_step(own, said, text, outcome):
    assert corrected(own, said) == (text, outcome)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A weak student of the world, corrected by a perfect teacher."""
    folder = tmp_path_factory.mktemp("corrected")
    queries = world.draw_queries.run(folder, world.ProblemsConfig(num_rows=60))
    told = SystemMessage(id="steps", text="Explain each step.")
    pairing = PairConfig(messages=(told,), shares={"*": {"steps": 1.0}})
    asked = pair.run(folder, pairing, queries=queries)
    weak = ModelUse(world.Solver(name="student", solver=world.TA))
    teacher = ModelUse(world.Solver())
    fixed = correct_answers.run(
        folder, CorrectConfig(), prompts=asked, student=weak, teacher=teacher
    )
    plain = answer.run(folder, AnswerConfig(), prompts=asked, teacher=teacher)
    own = answer.run(folder, AnswerConfig(), prompts=asked, teacher=weak)
    matched = match_tokens.run(folder, MatchConfig(), answers=plain, like=fixed)
    return {"fixed": fixed, "plain": plain, "own": own, "matched": matched}


def test_right_answers_stay_and_wrong_ones_are_right_from_their_first_wrong_step(made):
    plain = {row.id: row for row in made["plain"].rows(Answer)}
    own = {row.id: row for row in made["own"].rows(Answer)}
    spent = 0
    for row in made["fixed"].rows(Answer):
        said, right = own[row.id].messages[-1].content, plain[row.id].messages[-1].content
        text = row.messages[-1].content
        assert row.messages[:-1] == own[row.id].messages[:-1]
        if row.outcome == "own":
            assert text == said and row.model == "student"
        else:
            assert row.outcome == "continued" and text == right and row.model == "teacher"
            spent += row.response_tokens
    counts = made["fixed"].record.counts
    assert counts["outcome/own"] > 0 and counts["outcome/continued"] > 10
    assert counts[SPENT] == spent and counts["right"] == counts["checked"] == counts["prompts"]
    assert made["fixed"].num_rows == len(plain)


def test_as_many_tokens_of_plain_answers_are_taken_and_no_more(made):
    budget = made["fixed"].record.counts[SPENT]
    rows = list(made["plain"].rows(Answer))
    taken = list(made["matched"].rows(Answer))
    assert taken == rows[: len(taken)]
    spent = sum(row.response_tokens for row in taken)
    assert spent <= budget < spent + rows[len(taken)].response_tokens


def test_wrong_corrections_are_dropped_and_without_gold_the_teacher_decides(tmp_path: Path):
    rows = [prompt("1", "one", target="7"), prompt("2", "two"), prompt("3", "three", target="8")]
    rows += [prompt("4", "four"), prompt("5", "five", target="7")]
    said = {"one": "The answer is 9.", "two": "RIGHT", "four": reply("KEEP", "length")}
    student = Scripted(lambda request, sampling: "So it is. The answer is 8.", name="student")
    teacher = Scripted(
        lambda request, sampling: said.get(request.messages[0].content, failed()), name="teacher"
    )
    made = correct_answers.run(
        tmp_path, CorrectConfig(), prompts=prompts(tmp_path, rows), student=student,
        teacher=teacher, runtime=Runtime(max_error_frac=0.5),
    )  # fmt: skip
    found = {row.id: (row.outcome, row.error) for row in made.rows(Answer)}
    assert found == {"2": ("own", None), "3": ("own", None), "5": ("", "400 bad request")}
    assert made.record.dropped == {"wrong": 1, "cut": 1}
    assert [turns[0].content for turns in teacher.seen] == ["one", "two", "four", "five"]
    assert all(turns[1].content == "So it is. The answer is 8." for turns in teacher.seen)
