import random
from pathlib import Path

import pytest
from pydantic import ValidationError

from pairing import Judge, artifact, pair, rated
from scripted import failed, reply
from spyhop.curate import GateConfig, KeepConfig, RateConfig, gate, keep, rate
from spyhop.curate.rate import SCORES, plan_rate
from spyhop.models import Choice, Local, ModelUse, Sampling
from spyhop.runtime import Runtime
from spyhop.schema import Finding, ModelError, Pair, Rating, TrainingError
from spyhop.stage import Estimate
from spyhop.store import Artifact, Source

PLAIN = {"num_repeated": 0}
TOLERANT = Runtime(max_error_frac=1.0)


def _pairs(folder: Path, num: int) -> Artifact:
    return artifact(folder / "pairs", [pair(n) for n in range(num)])


def _run(
    root: Path, judge: object, num: int, max_error_frac: float = 1.0, **changes: object
) -> tuple[list[Rating], Artifact]:
    config = RateConfig.model_validate({**PLAIN, **changes})
    runtime = Runtime(max_error_frac=max_error_frac)
    made = rate.run(root, config, runtime=runtime, pairs=_pairs(root, num), judge=judge)
    rows = list(made.rows(Pair))
    assert [row.id for row in rows] == [pair(n).id for n in range(num)]
    assert all(row.rating is not None for row in rows)
    return [row.rating for row in rows if row.rating], made


def _place(request) -> int:
    return int(request.messages[-1].content.split("How is thing ")[1].split()[0])


def _never(request) -> Choice:
    raise AssertionError("nothing is to be weighed")


SAYS = [
    "Clear and whole.\nScore: 5",
    "Vague.\nScore: 2\nNo, worse.\nScore: 1",
    "I like it.",
    reply("It is very", "length"),
    reply("", "content_filter"),
    failed(),
    "Score: 9",
]


def test_verdicts_are_read_and_what_cannot_be_read_is_missing(tmp_path: Path):
    judge = Judge(lambda request, _: SAYS[_place(request)], _never)
    ratings, made = _run(tmp_path, judge, len(SAYS), method="verdict")
    assert [rating.score for rating in ratings] == [5, 1, *[None] * 5]
    assert [rating.missing for rating in ratings] == [
        "", "", "no_verdict", "cut", "refused", "failed", "no_verdict"
    ]  # fmt: skip
    assert [rating.reason for rating in ratings][:3] == ["Clear and whole.", "Vague.", "I like it."]
    assert ratings[5].error == "400 bad request"
    assert made.record.counts == {
        "score/1": 1, "score/5": 1, "missing/no_verdict": 2, "missing/cut": 1,
        "missing/refused": 1, "missing/failed": 1, "repeated": 0, "no_probabilities": 0,
    }  # fmt: skip


def test_the_prompt_gives_the_scale_then_asks_for_reasons_first(tmp_path: Path):
    judge = Judge(lambda request, _: "Score: 3", _never)
    _run(tmp_path, judge, 1, method="verdict", num_repeated=1, system_message="Judge.")
    config = RateConfig()
    (system, first), (_, second) = judge.seen
    assert system.content == "Judge."
    shown = f"Instruction:\n{pair(0).instruction}\n\nResponse:\n{pair(0).response}"
    assert first.content == f"{config.scale}\n\n{config.reasoned}\n\n{shown}"
    assert second.content == f"{shown}\n\n{config.scale}\n\n{config.reasoned}"
    assert [line[:2] for line in config.scale.splitlines()[1:]] == ["1:", "2:", "3:", "4:", "5:"]


@pytest.mark.parametrize(
    "text", ["As the scale says,\nScore: 5\nis for perfect ones, and here I see that", "Score: 4"]
)
def test_a_cut_reply_has_no_score(tmp_path: Path, text: str):
    """What it says of the scale is no verdict, and `4` may be the begin of `4.5`."""
    says = [reply(text, "length"), "Good.\nScore: 3"]
    judge = Judge(lambda request, _: says[request.sample_index], lambda request: [])
    (rating,), _ = _run(tmp_path / "one", judge, 1, method="verdict")
    assert (rating.score, rating.missing) == (None, "cut")
    (rating,), _ = _run(tmp_path / "two", judge, 1, method="verdict", num_verdicts=2)
    assert rating.score == 3.0
    (rating,), _ = _run(tmp_path / "three", judge, 1, method="expected", fallback_verdicts=2)
    assert (rating.score, rating.method) == (3.0, "verdict")


def test_the_mean_of_several_verdicts(tmp_path: Path):
    says = ["Score: 4", "none", "Score: 5"]
    judge = Judge(lambda request, _: says[request.sample_index], _never)
    (rating,), _ = _run(tmp_path, judge, 1, method="verdict", num_verdicts=3)
    assert rating.score == 4.5


def test_expected_scores_are_read_behind_the_reason(tmp_path: Path):
    says = ["It helps.\nScore: 2", "Score: 1", "It is", reply("Cut off her", "length")]
    judge = Judge(lambda request, _: says[_place(request)], lambda request: [0, 0, 0, 0.5, 0.5])
    ratings, _ = _run(tmp_path, judge, len(says), method="expected")
    assert [rating.score for rating in ratings] == [4.5] * 4  # none is lost
    assert [rating.value for rating in ratings] == [4.5] * 4
    assert {rating.method for rating in ratings} == {"expected"}
    assert [rating.written for rating in ratings] == [2, 1, None, None]
    assert judge.begun == ["It helps.\nScore: ", "Score: ", "It is\nScore: ",
                           "Cut off her\nScore: "]  # fmt: skip
    assert ratings[0].probabilities == [0, 0, 0, 0.5, 0.5] and ratings[0].reason == "It helps."


def test_where_no_probabilities_are_told_verdicts_are_averaged(tmp_path: Path):
    says = ["Score: 4", "Score: 4", "Score: 5", "?", "Score: 3"]
    judge = Judge(
        lambda request, _: says[request.sample_index],
        lambda request: Choice(id="", probabilities=[0, 0, 0, 1, 0], is_parsed=True),
    )
    (rating,), made = _run(tmp_path, judge, 1, method="expected")
    assert (rating.score, rating.method) == (4.0, "verdict")
    assert made.record.counts["no_probabilities"] == 1 and len(judge.asked) == 5


def test_what_a_failed_choice_leaves_is_read_from_the_verdict(tmp_path: Path):
    judge = Judge(
        lambda request, _: "Good.\nScore: 4",
        lambda request: Choice(id="", probabilities=[], error="400 unknown field"),
    )
    (rating,), made = _run(tmp_path, judge, 1, method="expected")
    assert (rating.score, rating.method, rating.error) == (4.0, "verdict", None)
    assert made.record.counts["no_probabilities"] == 1


def test_a_failed_reason_or_choice_is_missing(tmp_path: Path):
    judge = Judge(
        lambda request, _: failed() if _place(request) == 0 else "Fine.",
        lambda request: Choice(id="", probabilities=[], error="too long"),
    )
    ratings, _ = _run(tmp_path, judge, 2, method="expected")
    assert [(r.score, r.missing, r.error) for r in ratings] == [
        (None, "failed", "400 bad request"), (None, "no_verdict", "too long"),
    ]  # fmt: skip
    with pytest.raises(ModelError, match="2 of 2 calls failed"):
        _run(tmp_path / "again", judge, 2, method="expected", max_error_frac=0.5)


def test_a_choice_always_gives_a_score(tmp_path: Path):
    judge = Judge(lambda request, _: "never", lambda request: [0.1, 0.1, 0.5, 0.2, 0.1])
    ratings, _ = _run(tmp_path, judge, 2, method="choice")
    assert [rating.score for rating in ratings] == [3.0, 3.0]
    assert ratings[0].value == pytest.approx(3.1)
    assert judge.begun == ["Score: "] * 2 and not judge.asked
    silent = Judge(lambda request, _: "never", lambda request: [], name="silent")
    ratings, _ = _run(tmp_path, silent, 1, method="choice")
    assert (ratings[0].score, ratings[0].missing) == (None, "no_verdict")


def test_some_pairs_are_rated_again_in_another_form(tmp_path: Path):
    def say(request, _):
        is_first = request.messages[-1].content.startswith(RateConfig().scale)
        return "Score: 4" if is_first else "Score: 2"

    ratings, made = _run(tmp_path, Judge(say, _never), 20, method="verdict", num_repeated=5)
    again = [rating for rating in ratings if rating.is_repeated]
    assert len(again) == 5 == made.record.counts["repeated"]
    assert {(rating.score, rating.second_score) for rating in again} == {(4, 2)}
    assert all(rating.second_score is None for rating in ratings if not rating.is_repeated)
    larger, _ = _run(tmp_path, Judge(say, _never), 20, method="verdict", num_repeated=9)
    assert all(b.is_repeated for a, b in zip(ratings, larger, strict=True) if a.is_repeated)


def test_an_earlier_rating_is_replaced(tmp_path: Path):
    rows = artifact(tmp_path / "p", [rated(0, 1.0, judge="old")])
    config = RateConfig(method="verdict", **PLAIN)
    made = rate.run(tmp_path, config, pairs=rows, judge=Judge(lambda r, _: "Score: 5", _never))
    (row,) = made.rows(Pair)
    assert row.rating is not None and (row.rating.score, row.rating.judge) == (5.0, "fake")


def test_a_local_model_loses_no_rating(tmp_path: Path, tiny_folder: Path):
    """A random model's verdicts cannot be read; its expected scores and choices all can."""
    judge = ModelUse(Local(), Source(tiny_folder).open(tmp_path))
    short = {
        "scale": "1-5?", "reasoned": "", "unreasoned": "", "shown": "{instruction}{response}",
        "sampling": {"max_new_tokens": 8, "temperature": 1.0},
    }  # fmt: skip
    verdicts, _ = _run(tmp_path, judge, 6, method="verdict", **short)
    assert all(rating.score is None for rating in verdicts)
    for method in ("expected", "choice"):
        ratings, _ = _run(tmp_path, judge, 6, method=method, **short)
        assert all(rating.score and 1 <= rating.score <= 5 for rating in ratings)
        assert len({rating.value for rating in ratings}) == 6
        assert all(sum(rating.probabilities) == pytest.approx(1) for rating in ratings)


def test_a_killed_run_asks_nothing_twice(tmp_path: Path):
    weighed = lambda request: [0, 0, 0, 0, 1.0]  # noqa: E731
    killed = Judge(lambda request, _: "Fine.", weighed, lives=3)
    with pytest.raises(ModelError, match="killed"):
        _run(tmp_path, killed, 8, method="expected", num_repeated=2)
    again = Judge(lambda request, _: "Fine.", weighed)
    ratings, _ = _run(tmp_path, again, 8, method="expected", num_repeated=2)
    assert len(killed.asked) + len(again.asked) == 10 == len(again.begun)
    assert {rating.score for rating in ratings} == {5.0}


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(ValidationError, match=r"shown does not contain \{response\}"):
        RateConfig(shown="{instruction}")
    with pytest.raises(ValidationError, match="are identical"):
        RateConfig(method="verdict", num_verdicts=3, sampling=Sampling())


def test_the_plan_counts_what_the_stage_asks(tmp_path: Path):
    source = random.Random(1)
    for method, num in (("verdict", 2), ("choice", 1), ("expected", 1)):
        config = RateConfig(method=method, num_verdicts=num, num_repeated=3)
        calls = plan_rate(config, Estimate(rows=10), Estimate()).calls["judge"]
        judge = Judge(
            lambda request, _: f"Score: {source.choice(SCORES)}", lambda request: [0.2] * 5,
            name=method,
        )  # fmt: skip
        rate.run(tmp_path, config, runtime=TOLERANT, pairs=_pairs(tmp_path, 10), judge=judge)
        assert len(judge.asked) + len(judge.begun) == calls.requests


def test_no_run_takes_more_than_the_most_of_its_plan(tmp_path: Path):
    """The costliest judge writes as long as it may and cannot go on with a verdict."""
    config = RateConfig(num_repeated=3)
    room = config.sampling.max_new_tokens
    cannot = Choice(id="", probabilities=[], error="400 it cannot go on")
    judge = Judge(lambda request, _: "Score: 4", lambda request: cannot)
    given = _pairs(tmp_path, 10)
    rate.run(tmp_path, config, runtime=TOLERANT, pairs=given, judge=judge)
    calls = plan_rate(config, Estimate(rows=10, row_tokens=20.0), Estimate()).calls["judge"]
    assert len(judge.asked) == 13 * config.fallback_verdicts and len(judge.begun) == 13
    most = calls.most_response_tokens + calls.further_response_tokens
    assert most == len(judge.asked) * room + len(judge.begun)
    asked = 20 + (len(config.scale) + len(config.reasoned) + len(config.shown)) / 4
    num_asked, num_begun = len(judge.asked), len(judge.begun)
    most = calls.prompt_tokens + calls.further_prompt_tokens
    assert most == pytest.approx((num_asked + num_begun) * asked + num_begun * room, abs=2)
    cold = RateConfig(num_repeated=3, sampling={"temperature": 0.0})
    assert (
        plan_rate(cold, Estimate(rows=10), Estimate()).calls["judge"].further_response_tokens == 0
    )


@pytest.mark.parametrize("is_honest", [True, False])
def test_a_judge_whose_probabilities_contradict_its_text_keeps_nothing(tmp_path: Path, is_honest):
    """It repeats itself perfectly, and its highest scores go to the pairs that it finds worst."""

    def weigh(request) -> list[float]:
        written = 1 + _place(request) % 5
        meant = written if is_honest else 6 - written
        return [float(meant == score) for score in range(1, 6)]

    judge = Judge(lambda request, _: f"I see.\nScore: {1 + _place(request) % 5}", weigh)
    config = RateConfig(num_repeated=30)
    made = rate.run(tmp_path, config, pairs=_pairs(tmp_path, 30), judge=judge)
    passed = gate.run(tmp_path, GateConfig(min_repeated=30), rated=made)
    found = {each.id: each for each in passed.rows(Finding)}
    assert found["repeatability"].value == 1 and found["repeatability"].is_passed
    if is_honest:
        kept = keep.run(tmp_path, KeepConfig(min_score=5), rated=made, gate=passed)
        assert {_written(row) for row in kept.rows(Pair)} == {5}
        return
    with pytest.raises(TrainingError, match=r"agreement: quadratic kappa of 30 .*contradict"):
        keep.run(tmp_path, KeepConfig(min_score=5), rated=made, gate=passed)


def _written(row: Pair) -> float | None:
    return row.rating.written if row.rating else None
