from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

import toys
from scripted import prompt, prompts
from spyhop.collect import SubsetConfig, draw_subset
from spyhop.curate import SelectHardestConfig, select_hardest
from spyhop.schema import Answer, InputError, Message, Prompt
from spyhop.stage import Estimate
from spyhop.store import Artifact, PartWriter, arrow_schema


def _prompts(root: Path, num: int) -> Artifact:
    return prompts(
        root / "prompts", [prompt(f"p{n}", f"Question {n}?", str(n)) for n in range(num)]
    )


def _answer(
    name: str, said: str | None, *, target: str = "1", sample: int = 0, **columns
) -> Answer:
    turns = [Message(role="system", content="s"), Message(role="user", content="How many?")]
    if said is not None:
        turns.append(Message(role="assistant", content=said))
    return Answer(
        id=f"{name}.{sample}" if sample else name, query_id="q", collection="c", task="t",
        system_id="1", messages=turns, target=target, model="ta", sample_index=sample,
        **{"finish_reason": "stop", **columns},
    )  # fmt: skip


def _answers(root: Path, rows: Sequence[Answer]) -> Artifact:
    return toys.rows_artifact(root / "answers", rows)


def _failed(name: str, **columns) -> Answer:
    return _answer(name, None, error="400", finish_reason="error", **columns)


def _run(root: Path, asked: Artifact, told: list[Artifact], num: int, by: str = "wrong", seed=0):
    config = SelectHardestConfig(by=by, num_rows=num, seed=seed)
    made = select_hardest.run(root, config, prompts=asked, answers=toys.named(told))
    return [row.id for row in made.rows(Prompt)], made.record.counts


def test_wrong_ones_come_first_and_unknown_ones_last(tmp_path: Path):
    asked = _prompts(tmp_path, 8)
    told = _answers(tmp_path, [
        _answer("p7", "The answer is 2."),
        _answer("p0", "The answer is 1."),
        _answer("p2", "Well.\nWho knows?"),
        _answer("p3", "The answer is 1.", finish_reason="length"),
        _failed("p4"),
        _answer("p5", "The answer is 2.", target=""),
        _answer("elsewhere", "The answer is 2."),
        _answer("p1", "The answer is 1.0"),
    ])  # fmt: skip
    assert _run(tmp_path, asked, [told], 3) == (
        ["p2", "p3", "p7"],
        {"kept/wrong": 3, "left/right": 2, "left/unknown": 3, "samples/failed": 1,
         "samples/no_gold": 1, "samples/foreign": 1},
    )  # fmt: skip
    kept, counts = _run(tmp_path, asked, [told], 5)
    assert kept == ["p0", "p1", "p2", "p3", "p7"]
    assert counts["kept/right"] == 2 and counts["left/unknown"] == 3
    assert len(_run(tmp_path, asked, [told], 100)[0]) == 8


def test_more_wrong_samples_are_harder(tmp_path: Path):
    asked = _prompts(tmp_path, 4)
    num_right = {"p0": 3, "p1": 1, "p2": 0, "p3": 2}
    rows = [
        _answer(name, f"The answer is {1 if n < num else 2}.", sample=n)
        for name, num in num_right.items()
        for n in range(3)
    ]
    halves = [toys.rows_artifact(tmp_path / str(n), rows[n::2]) for n in range(2)]
    drawn = [_run(tmp_path, asked, halves, num)[0] for num in (1, 2, 3)]
    assert drawn == [["p2"], ["p1", "p2"], ["p1", "p2", "p3"]]


def test_samples_that_disagree(tmp_path: Path):
    asked = _prompts(tmp_path, 6)
    says = {"p0": "1111", "p1": "1112", "p2": "1122", "p3": "1234", "p4": "11??", "p5": "????"}
    rows = [
        _answer(name, f"The answer is {said}." if said != "?" else "Hm.\nHm.", sample=n)
        for name, text in says.items()
        for n, said in enumerate(text)
    ]
    told = _answers(tmp_path, rows)
    assert _run(tmp_path, asked, [told], 2, "disagreement")[0] == ["p3", "p5"]
    assert _run(tmp_path, asked, [told], 4, "disagreement")[0] == ["p2", "p3", "p4", "p5"]
    kept, counts = _run(tmp_path, asked, [told], 5, "disagreement")
    assert kept == ["p1", "p2", "p3", "p4", "p5"]  # 1/4, 1/2, 3/4, 1/2, 1
    assert counts == {"kept/split": 5, "left/agreed": 1}


def test_one_sample_cannot_disagree(tmp_path: Path):
    asked = _prompts(tmp_path, 2)
    told = _answers(tmp_path, [_answer("p0", "1"), _answer("p1", "2")])
    with pytest.raises(InputError, match="num_samples to 2"):
        _run(tmp_path, asked, [told], 1, "disagreement")


def test_low_confidence_is_per_token(tmp_path: Path):
    asked = _prompts(tmp_path, 4)
    told = _answers(tmp_path, [
        _answer("p0", "x", log_probability=-10.0, response_tokens=100),
        _answer("p1", "x", log_probability=-6.0, response_tokens=3),
        _answer("p2", "x", log_probability=-2.0, response_tokens=2),
        _failed("p3"),
    ])  # fmt: skip
    drawn = [_run(tmp_path, asked, [told], num, "confidence")[0] for num in (1, 2, 3)]
    assert drawn == [["p1"], ["p1", "p2"], ["p0", "p1", "p2"]]
    assert _run(tmp_path, asked, [told], 1, "confidence")[1] == {
        "kept/known": 1, "left/known": 2, "left/unknown": 1, "samples/failed": 1}  # fmt: skip


def test_unknown_confidence_says_what_to_set(tmp_path: Path):
    told = _answers(tmp_path, [_answer("p0", "x")])
    with pytest.raises(InputError, match=r"p0 has no log-probability.*log_probability = true"):
        _run(tmp_path, _prompts(tmp_path, 1), [told], 1, "confidence")


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (_failed("p0"), "1 failed, 0 have no gold answer, 0 answer other prompts"),
        (_answer("p0", "1", target=""), "0 failed, 1 have no gold"),
        (_answer("p9", "1"), "1 answer other prompts"),
    ],
)
def test_answers_that_tell_nothing_are_refused(tmp_path: Path, row: Answer, line: str):
    with pytest.raises(InputError, match=line):
        _run(tmp_path, _prompts(tmp_path, 1), [_answers(tmp_path, [row])], 1)


@pytest.fixture
def half_wrong(tmp_path: Path) -> tuple[Artifact, Artifact]:
    rows = [_answer(f"p{n}", f"The answer is {1 + n % 2}.") for n in range(400)]
    return _prompts(tmp_path, 400), _answers(tmp_path, rows)


def test_subsets_are_nested_and_keep_the_order(tmp_path: Path, half_wrong):
    asked, told = half_wrong
    whole = [row.id for row in asked.rows(Prompt)]
    drawn = [_run(tmp_path, asked, [told], num)[0] for num in (1, 50, 200, 201, 399)]
    for small, large in pairwise(drawn):
        assert set(small) < set(large) and large == [name for name in whole if name in set(large)]
    assert [int(name[1:]) % 2 for name in drawn[2]] == [1] * 200
    assert set(_run(tmp_path, asked, [told], 50, seed=1)[0]) != set(drawn[1])


def test_ties_are_drawn_as_subset_draws(tmp_path: Path):
    asked = _prompts(tmp_path, 60)
    told = _answers(tmp_path, [_answer(f"p{n}", "The answer is 2.") for n in range(60)])
    random = draw_subset.run(tmp_path, SubsetConfig(num_rows=9, seed=3), prompts=asked)
    assert _run(tmp_path, asked, [told], 9, seed=3)[0] == [row.id for row in random.rows(Prompt)]


def test_ids_that_end_in_a_number_are_not_mistaken(tmp_path: Path):
    asked = prompts(tmp_path / "p", [prompt(name, name) for name in ("a", "b.1", "c.2")])
    rows = [
        _answer("a", "The answer is 2."),
        _answer("b.1", "The answer is 1."),
        _answer("c.2", "The answer is 2.").model_copy(update={"sample_index": 2}),
    ]
    assert _run(tmp_path, asked, [_answers(tmp_path, rows)], 2)[0] == ["a", "c.2"]


def test_no_prompts_give_none(tmp_path: Path):
    told = _answers(tmp_path, [_answer("p0", "1")])
    none = prompts(tmp_path / "p", [prompt("p0", "x")])
    PartWriter(none.path, arrow_schema(Prompt)).close()
    assert _run(tmp_path, none, [told], 1)[0] == []


def test_the_plan_is_the_smaller_number():
    config = SelectHardestConfig(num_rows=10)
    made = select_hardest.plan(config, Estimate(rows=99, row_tokens=7.0), [Estimate()])
    assert (made.rows, made.row_tokens) == (10, 7.0)
