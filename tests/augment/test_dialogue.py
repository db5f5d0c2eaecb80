from pathlib import Path

import pytest
from pydantic import ValidationError

from asking import KEY_ENV, REMOTE, service
from scripted import Scripted, failed, last, prompt, prompts, reply
from server import KEY, Server
from spyhop.augment import DialogueConfig, discuss
from spyhop.models import ModelUse
from spyhop.runtime import Runtime
from spyhop.schema import Answer, Message, ModelError
from spyhop.stage import Estimate
from spyhop.text.template import fill

YES, NO = "Looks sound.\nVERDICT: SATISFIED", "Why is that?\nVERDICT: OBJECTION"
TEXTS = {
    "critic": "Check it.",
    "question": "{task} >> {answer}",
    "question_revised": "again >> {answer}",
    "revise": "But: {objection}",
}
GOLD = {  # name: (teacher's answers, assistant's remarks, outcome); the gold answer is 7
    "right, let be": (["7"], [YES], "same"),
    "right, doubted, kept": (["7", "7"], [NO, YES], "same"),
    "right, doubted, harmed": (["7", "8"], [NO, YES], "harmed"),
    "wrong, let be": (["5"], [YES], "same"),
    "wrong, fixed": (["5", "7"], [NO, YES], "fixed"),
    "wrong, fixed at the second turn": (["5", "6", "7"], [NO, NO], "fixed"),
    "wrong, other": (["5", "6"], [NO, YES], "changed"),
    "fixed, then harmed": (["5", "7", "4"], [NO, NO], "changed"),
    "no verdict": (["5"], ["Fine by me."], "same"),
    "no verdict later": (["5", "7"], [NO, "Hm."], "fixed"),
    "assistant fails": (["5"], [failed("409")], "same"),
    "revision fails": (["7", failed("410")], [NO], "same"),
    "revision is cut": (["5", reply("The answer is 7.", "length")], [NO], "same"),
    "draft is cut": ([reply("The answer is 5", "length")], [], "same"),
    "draft is empty": ([reply(" ")], [], "same"),
}
FREE = {
    "free, other": (["5", "6"], [NO, YES], "changed"),
    "free, same": (["5", "5.0"], [NO, YES], "same"),
}
FAILED = {"draft fails": ([failed("411")], [], "")}
ALL = GOLD | FREE | FAILED


def _full(said):
    return f"Thus the answer is {said}." if isinstance(said, str) else said


def _teach(request, sampling):
    name = request.messages[1].content
    num_said = sum(turn.role == "assistant" for turn in request.messages)
    return _full(ALL[name][0][num_said])


def _question(request, sampling):
    name = request.messages[1].content.split(" >> ")[0].removeprefix("Explain.\n\n")
    num_said = sum(turn.role == "assistant" for turn in request.messages)
    return ALL[name][1][num_said]


def _run(tmp_path: Path, teacher=None, assistant=None, cases=ALL, max_error_frac=0.1, **changes):
    rows = [
        prompt(name, name, target="" if name in FREE else "7", system="Explain.") for name in cases
    ]
    return discuss.run(
        tmp_path,
        DialogueConfig(**{**TEXTS, **changes}),
        runtime=Runtime(max_error_frac=max_error_frac),
        prompts=prompts(tmp_path / "p", rows),
        teacher=teacher or Scripted(_teach, name="teacher"),
        assistant=assistant or Scripted(_question, name="assistant"),
    )


def test_the_counts_of_planted_errors_come_out_exactly(tmp_path: Path):
    made = _run(tmp_path)
    rows = {row.id: row for row in made.rows(Answer)}
    assert list(rows) == list(ALL)
    assert {name: row.outcome for name, row in rows.items()} == {k: v[2] for k, v in ALL.items()}
    assert made.record.counts == {
        "outcome/same": 10, "outcome/changed": 3, "outcome/fixed": 3, "outcome/harmed": 1,
        "answers/changed": 7,
        "gold/rows": 15, "gold/draft_right": 4, "gold/final_right": 6,
        "objections": 13, "verdict/objection": 13, "verdict/satisfied": 8, "verdict/missing": 2,
        "verdict/failed": 1, "revision/failed": 2,
        "turns/0": 2, "turns/1": 6, "turns/2": 9,
        "ending/whole": 15, "ending/empty": 1, "ending/cut": 1, "ending/failed": 1,
    }  # fmt: skip


def test_the_row_trains_on_the_original_prompt_and_the_last_answer(tmp_path: Path):
    rows = {row.id: row for row in _run(tmp_path).rows(Answer)}
    row = rows["wrong, fixed at the second turn"]
    assert [(turn.role, turn.content) for turn in row.messages] == [
        ("system", "Explain."), ("user", row.id), ("assistant", "Thus the answer is 7."),
    ]  # fmt: skip
    assert [(turn.role, turn.content) for turn in row.transcript] == [
        ("assistant", "Thus the answer is 5."), ("user", NO),
        ("assistant", "Thus the answer is 6."), ("user", NO),
        ("assistant", "Thus the answer is 7."),
    ]  # fmt: skip
    assert last(rows["revision is cut"]) == "Thus the answer is 5."
    assert [turn.content for turn in rows["no verdict"].transcript][1:] == ["Fine by me."]
    assert (rows["draft fails"].error, rows["draft fails"].transcript) == ("411", [])
    assert rows["draft is cut"].finish_reason == "length"


def test_both_see_the_whole_dialogue(tmp_path: Path):
    teacher, assistant = Scripted(_teach, name="t"), Scripted(_question, name="a")
    name = "wrong, fixed at the second turn"
    _run(tmp_path, teacher, assistant, cases={name: ALL[name]})
    system, asked = Message(role="system", content="Explain."), Message(role="user", content=name)
    five, six = (Message(role="assistant", content=f"Thus the answer is {n}.") for n in "56")
    but = Message(role="user", content="But: Why is that?")
    assert teacher.seen == [
        [system, asked], [system, asked, five, but], [system, asked, five, but, six, but],
    ]  # fmt: skip
    critic = Message(role="system", content="Check it.")
    first = Message(role="user", content=f"Explain.\n\n{name} >> {five.content}")
    again = Message(role="user", content=f"again >> {six.content}")
    no = Message(role="assistant", content=NO)
    assert assistant.seen == [[critic, first], [critic, first, no, again]]


def test_the_dialogue_ends_after_its_turns(tmp_path: Path):
    assistant = Scripted(lambda r, s: NO, name="grumpy")
    teacher = Scripted(lambda r, s: f"The answer is {len(r.messages)}.", name="meek")
    made = _run(tmp_path, teacher, assistant, cases=FREE, max_turns=4)
    assert (len(teacher.asked), len(assistant.asked)) == (10, 8)
    assert made.record.counts["turns/4"] == 2 and made.record.counts["objections"] == 8
    assert {last(row) for row in made.rows(Answer)} == {"The answer is 10."}


def test_what_is_filled_in_is_not_filled_again():
    assert fill("{task}|{answer}|{other}", task="{answer}", answer=r"\1{task}") == (
        r"{answer}|\1{task}|{other}"
    )


@pytest.mark.parametrize("who", ["teacher", "assistant"])
def test_failed_calls_of_either_model_are_measured_at_the_gate(tmp_path: Path, who: str):
    models = {who: Scripted(lambda r, s: failed(f"411 {who}"), name=f"failing {who}")}
    with pytest.raises(ModelError, match=rf"calls failed.*411 {who}"):
        _run(tmp_path, **models, cases=FREE)


@pytest.mark.parametrize("name", ["question", "question_revised", "revise"])
def test_texts_without_their_place_are_refused(name: str):
    with pytest.raises(ValidationError, match=rf"{name}\n.*it has no \{{"):
        DialogueConfig(**{name: "Nothing to fill in."})


@pytest.mark.parametrize(("who", "lives"), [(w, n) for w in ("t", "a") for n in (0, 3, 9, 17)])
def test_a_killed_stage_asks_nothing_twice(tmp_path: Path, who: str, lives: int):
    cases = {name: case for name, case in ALL.items() if "fail" not in name}
    whole = _run(tmp_path / "whole", cases=cases)

    def pair(limits):
        return (Scripted(_teach, name="teacher", lives=limits.get("t", 999)),
                Scripted(_question, name="assistant", lives=limits.get("a", 999)))  # fmt: skip

    dying, living = pair({who: lives}), pair({})
    with pytest.raises(ModelError, match="killed"):
        _run(tmp_path, *dying, cases=cases)
    made = _run(tmp_path, *living, cases=cases)
    for before, after in zip(dying, living, strict=True):
        both = [tuple(turn.content for turn in turns) for turns in [*before.seen, *after.seen]]
        assert len(both) == len(set(both))
    assert (made.digest, made.record.counts) == (whole.digest, whole.record.counts)


def test_a_model_may_question_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(KEY_ENV, KEY)
    cases = {name: case for name, case in ALL.items() if "right" in name}
    with Server() as server:
        pair = [ModelUse(REMOTE, service=service(server.url)) for _ in range(2)]
        made = _run(tmp_path, *pair, cases=cases)
        assert set(server.billed().values()) == {1} and len(server.billed()) == 2 * len(cases)
        other = ModelUse(REMOTE, service=service(server.url, concurrency=2))
        with pytest.raises(ModelError, match="one model with two different services"):
            _run(tmp_path, pair[0], other, cases=cases, max_turns=3)
    assert made.record.counts["outcome/same"] == len(cases)


def test_the_plan_counts_both_models():
    config = DialogueConfig(**TEXTS)
    made = discuss.plan(config, Estimate(rows=1000, row_tokens=100.0), Estimate(), Estimate())
    teacher, assistant = made.calls["teacher"], made.calls["assistant"]
    assert (teacher.requests, assistant.requests) == (1000 + 300 + 90, 1000 + 300)
    assert teacher.response_tokens == 1390 * 150 and assistant.response_tokens == 1300 * 60
    assert teacher.most_response_tokens == 3000 * 512
    assert assistant.most_response_tokens == 2000 * 512
    revise = len(TEXTS["revise"]) / 4
    longest = 100 + (100 + 1024 + revise) + (100 + 2 * (1024 + revise))
    assert teacher.prompt_tokens + teacher.further_prompt_tokens == round(1000 * longest)
    critic = (len(TEXTS["critic"]) + len(TEXTS["question"])) / 4
    assert teacher.prompt_tokens == round(
        100_000 + 300 * (100 + 210 + revise) + 90 * (100 + 2 * (210 + revise))
    )
    assert assistant.prompt_tokens == round(1000 * (250 + critic) + 300 * (250 + critic + 210))
