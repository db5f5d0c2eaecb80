from pathlib import Path

import pytest
from pydantic import ValidationError

from scripted import Scripted, failed, last, prompt, prompts, reply
from spyhop.augment import VerifyConfig, verify
from spyhop.models import Sampling
from spyhop.runtime import Runtime
from spyhop.schema import Answer, Message, ModelError
from spyhop.stage import Estimate

WARM = Sampling(temperature=0.7)
TELL = "Hint: {target}."
SAYS = {  # by prompt: what each sample says, then what it says once it is told
    "at once": ["The answer is 7."],
    "later": ["The answer is 6.", "I do not know.\nSorry.", "So: the answer is 7.0"],
    "told": ["The answer is 5."] * 3 + ["As it must, the answer is 7."],
    "stubborn": ["The answer is 4."] * 3 + ["No, the answer is 4."],
    "mute": ["Hm.\nWell."] * 3 + ["} ]] \x00\n((("],
    "cut": [reply("The answer is 7.", "length")] * 4,
    "late failure": ["The answer is 3.", failed("400")],
    "refused": [failed("403 refused")],
}


def _say(request, sampling):
    name, _, told = last(request).partition("\n\n")
    says = SAYS[name]
    assert told in ("", "Hint: 7.")
    if told:
        return says[3] if len(says) > 3 else failed("told")
    return says[request.sample_index]


def _run(tmp_path: Path, teacher=None, max_error_frac=0.2, **changes):
    rows = [prompt(name, name, target="7", system="Explain.") for name in SAYS]
    config = VerifyConfig(**{"sampling": WARM, "tell_message": TELL, **changes})
    return verify.run(
        tmp_path, config, runtime=Runtime(max_error_frac=max_error_frac),
        prompts=prompts(tmp_path / "p", rows), teacher=teacher or Scripted(_say),
    )  # fmt: skip


def test_wrong_answers_are_asked_again_and_then_told(tmp_path: Path):
    teacher = Scripted(_say)
    made = _run(tmp_path, teacher)
    rows = {row.id: row for row in made.rows(Answer)}
    assert list(rows) == list(SAYS)
    assert {name: (row.outcome, row.sample_index) for name, row in rows.items()} == {
        "at once": ("right", 0), "later": ("right", 2), "told": ("told", 0),
        "stubborn": ("wrong", 0), "mute": ("unparsed", 0), "cut": ("cut", 0),
        "late failure": ("wrong", 0), "refused": ("", 0),
    }  # fmt: skip
    assert made.record.counts == {
        "right/first": 1, "right/retry": 1, "tell/failed": 1,
        "outcome/right": 2, "outcome/told": 1, "outcome/wrong": 2, "outcome/unparsed": 1,
        "outcome/cut": 1, "ending/whole": 6, "ending/cut": 1, "ending/failed": 1,
    }  # fmt: skip
    assert last(rows["told"]) == "As it must, the answer is 7."
    assert last(rows["stubborn"]) == "No, the answer is 4."
    assert last(rows["late failure"]) == "The answer is 3."
    assert teacher.rounds == [8, 6, 6, 4]  # one is told a round before the others


def test_the_row_that_was_told_keeps_the_original_prompt(tmp_path: Path):
    teacher = Scripted(_say)
    rows = {row.id: row for row in _run(tmp_path, teacher).rows(Answer)}
    for row in rows.values():
        assert row.messages[:2] == [
            Message(role="system", content="Explain."),
            Message(role="user", content=row.id),
        ]
        assert "Hint" not in str(row.messages)
    assert rows["refused"].messages[-1].role == "user" and rows["refused"].error == "403 refused"
    asked = [turns for turns in teacher.seen if "Hint" in turns[-1].content]
    assert [turns[0].content for turns in asked] == ["Explain."] * 5


@pytest.mark.parametrize("give_up", ["keep", "drop"])
def test_wrong_answers_are_kept_or_dropped(tmp_path: Path, give_up: str):
    made = _run(tmp_path, give_up=give_up)
    rows = {row.id: row for row in made.rows(Answer)}
    counts = made.record.counts
    assert (counts["outcome/wrong"], counts["outcome/unparsed"], counts["outcome/cut"]) == (3, 1, 1)
    if give_up == "drop":
        assert list(rows) == ["at once", "later", "refused"]
        assert made.record.dropped == {"wrong": 3, "unparsed": 1, "cut": 1}
    else:
        assert list(rows) == list(SAYS) and made.record.dropped == {}
        assert last(rows["told"]) == "The answer is 5." and rows["told"].outcome == "wrong"


def test_one_sample_is_checked_and_not_repeated(tmp_path: Path):
    teacher = Scripted(_say)
    made = _run(tmp_path, teacher, max_samples=1, give_up="keep", sampling=Sampling())
    assert len(teacher.asked) == len(SAYS) and made.record.counts["outcome/right"] == 1


def test_rows_without_any_reply_are_measured_at_the_gate(tmp_path: Path):
    with pytest.raises(ModelError, match=r"1 of 8 calls failed.*403 refused"):
        _run(tmp_path, max_error_frac=0.12)


def test_options_are_read_as_a_choice(tmp_path: Path):
    asked = "Who?\n(A) the crow\n(B) the jay"
    rows = [prompt(str(n), f"{asked}{' ' * n}", target="(B)") for n in range(2)]
    says = ["The answer is (B) the jay, since it is loud.", "The answer is (A) the jay."]
    teacher = Scripted(lambda r, s: says[last(r).count("jay ")])
    config = VerifyConfig(sampling=WARM, max_samples=1, give_up="keep")
    made = verify.run(tmp_path, config, prompts=prompts(tmp_path / "p", rows), teacher=teacher)
    assert [row.outcome for row in made.rows(Answer)] == ["right", "wrong"]


VOTES = {
    "clear": ["a is 1.\nThe answer is 2.", "The answer is 1.", "answer: 1.0", "The answer is 1"],
    "half": ["The answer is 3.", "The answer is 4.", "The answer is 4.", "Who knows?\nI do not."],
    "apart": ["The answer is 5.", "The answer is 6.", "The answer is 7.", "The answer is 8."],
    "mute": ["\n", failed(), "Well.\nWell.", ""],
    "cut": [reply("The answer is 9.", "length")] * 3 + ["The answer is 9."],
    "failed": [failed("down")] * 4,
}


@pytest.mark.parametrize("split", ["keep", "drop"])
def test_the_majority_wins_where_there_is_no_gold_answer(tmp_path: Path, split: str):
    rows = [prompt(name, name) for name in VOTES]
    config = VerifyConfig(sampling=WARM, votes=4, min_agreement=0.5, split=split)
    teacher = Scripted(lambda r, s: VOTES[last(r)][r.sample_index])
    made = verify.run(
        tmp_path, config, runtime=Runtime(max_error_frac=0.2),
        prompts=prompts(tmp_path / "p", rows), teacher=teacher,
    )  # fmt: skip
    found = {row.id: (row.outcome, row.sample_index) for row in made.rows(Answer)}
    assert found == {
        "clear": ("voted", 1), "half": ("voted", 1), "failed": ("", 0),
        **({"apart": ("split", 0), "mute": ("split", 0), "cut": ("split", 3)}
           if split == "keep" else {}),
    }  # fmt: skip
    assert made.record.dropped == ({} if split == "keep" else {"split": 3})
    assert {k: n for k, n in made.record.counts.items() if "outcome" in k} == {
        "outcome/split": 3, "outcome/voted": 2}  # fmt: skip
    assert teacher.rounds == [24]


def test_no_answer_at_all_is_no_majority(tmp_path: Path):
    asked = prompts(tmp_path / "p", [prompt("mute", "mute")])
    config = VerifyConfig(sampling=WARM, votes=4, min_agreement=0)
    teacher = Scripted(lambda r, s: VOTES["mute"][r.sample_index])
    made = verify.run(tmp_path, config, prompts=asked, teacher=teacher)
    assert [row.outcome for row in made.rows(Answer)] == ["split"]


def test_without_votes_a_prompt_without_gold_is_asked_once(tmp_path: Path):
    asked = prompts(tmp_path / "p", [prompt("a", "a")])
    teacher = Scripted(lambda r, s: "The answer is 1.")
    made = verify.run(tmp_path, VerifyConfig(), prompts=asked, teacher=teacher)
    assert [row.outcome for row in made.rows(Answer)] == [""] and len(teacher.asked) == 1


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"votes": 1}, "votes = 1 is not a vote"),
        ({"tell_message": "Explain."}, "it has no {target}"),
        ({"sampling": Sampling()}, "at temperature 0 repeat the first"),
        ({"sampling": Sampling(), "max_samples": 1, "votes": 3}, "at temperature 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict, line: str):
    with pytest.raises(ValidationError, match=line):
        VerifyConfig(**values)


@pytest.mark.parametrize("lives", [0, 5, 8, 13, 20, 23])
def test_a_killed_stage_asks_nothing_twice(tmp_path: Path, lives: int):
    whole = _run(tmp_path / "whole")
    dying, living = Scripted(_say, lives=lives), Scripted(_say)
    with pytest.raises(ModelError, match="killed"):
        _run(tmp_path, dying)
    made = _run(tmp_path, living)
    is_failed = lambda name: name.startswith(("refused", "late failure"))  # noqa: E731
    both = [each for each in [*dying.asked, *living.asked] if not is_failed(each[0])]
    assert len(both) == len(set(both))
    assert (made.digest, made.record.counts) == (whole.digest, whole.record.counts)


def test_the_plan_counts_the_extra_calls():
    known = Estimate(rows=1024, row_tokens=100.0)
    config = VerifyConfig(sampling=Sampling(temperature=1.0, max_new_tokens=200))
    calls = verify.plan(config, known, Estimate()).calls["teacher"]
    assert calls.requests == 1024 + 256 + 64 + 16
    assert (calls.prompt_tokens, calls.response_tokens) == (136_000, 204_000)
    assert calls.most_response_tokens == 1024 * 4 * 200
    told = len(config.tell_message) / 4
    assert calls.prompt_tokens + calls.further_prompt_tokens == 1024 * (4 * 100 + told)
    kept = config.model_copy(update={"give_up": "keep", "max_samples": 1})
    assert verify.plan(kept, known, Estimate()).calls["teacher"].requests == 1024
    voting = config.model_copy(update={"votes": 5})
    calls = verify.plan(voting, known, Estimate()).calls["teacher"]
    assert (calls.requests, calls.most_response_tokens) == (5120, 5120 * 200)
