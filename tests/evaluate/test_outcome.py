import math
from pathlib import Path

import pytest

import toys
from spyhop.evaluate import HeldOutConfig, compare, outcomes, score_held_out
from spyhop.evaluate.likelihood import HeldOutLogLikelihood
from spyhop.models import Local, ModelUse
from spyhop.schema import Answer, InputError, Message, Score, Verdict
from spyhop.store import Artifact, Source


def _score(name: str, correct: bool) -> Score:
    return Score(
        id=name, suite="s", task="t", response="", extracted=None, correct=correct, target="A",
        chance=0.5, finish_reason="stop", response_tokens=0,
    )  # fmt: skip


def _scores(folder: Path, right: list[bool]) -> list[Artifact]:
    rows = [_score(str(place), correct) for place, correct in enumerate(right)]
    return [toys.rows_artifact(folder, rows)]


def _fits(folder: Path, values: list[float]) -> list[Artifact]:
    rows = [
        HeldOutLogLikelihood(id=str(place), value=value, num_tokens=3)
        for place, value in enumerate(values)
    ]
    return [toys.rows_artifact(folder, rows)]


def test_right_and_wrong_are_compared_exactly(tmp_path: Path):
    first = _scores(tmp_path / "a", [True, False] * 10)
    found, num = compare(first, _scores(tmp_path / "b", [True] * 20))
    assert num == 20 and found.difference.value == 0.5
    assert found.p_value == pytest.approx(2 * 0.5**10)  # McNemar: ten gained, none lost


def test_likelihoods_are_compared_by_their_differences(tmp_path: Path):
    first = _fits(tmp_path / "a", [-3.0, -9.0, -5.0, -1.0])
    found, _ = compare(first, _fits(tmp_path / "b", [-2.9, -8.8, -4.9, -0.8]))
    assert found.difference.value == pytest.approx(0.15)
    assert 0 < found.difference.low < 0.15  # though the levels themselves lie far apart


def test_only_items_that_both_were_asked_count(tmp_path: Path):
    first = _scores(tmp_path / "a", [True] * 5)
    second = _scores(tmp_path / "b", [False] * 9)
    assert compare(first, second)[1] == 5
    with pytest.raises(InputError, match="the two models have 1 items in common"):
        compare(_scores(tmp_path / "c", [True]), second)


def test_rows_of_no_measure_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="not scores"):
        outcomes([toys.artifact_of(tmp_path, [toys.answer_row(1, "a", "b")])])


def _held_out(tmp_path: Path, texts: list[str]) -> Artifact:
    rows = [toys.answer_row(place, f"Q{place}", text) for place, text in enumerate(texts)]
    system = Message(role="system", content="Tag.")
    tagged = [row.model_copy(update={"messages": [system, *row.messages]}) for row in rows]
    return toys.artifact_of(tmp_path, tagged)


def test_held_out_responses_are_weighed_under_the_message_of_inference(
    tmp_path: Path, tiny_folder: Path
):
    model = ModelUse(Local(name="student"), Source(tiny_folder).open(tmp_path))
    answers = _held_out(tmp_path, ["abc", "x" * 200, "d"])
    found = {
        message: score_held_out.run(
            tmp_path, HeldOutConfig(system_message=message), answers={"one": answers}, model=model
        )
        for message in (None, "Tag.", "", "Other.")
    }
    values = {message: outcomes([made]) for message, made in found.items()}
    assert set(values[None]) == {"a0", "a2"}  # the long one does not fit 96 positions
    assert found[None].record.counts == {"failed": 1}
    assert values[None] == values["Tag."] != values["Other."] and values[""] != values["Tag."]
    assert all(math.isfinite(value) and value < 0 for value in values[None].values())
    lengths = [row.num_tokens for row in found[None].rows(HeldOutLogLikelihood)]
    assert lengths == [4, 2]  # bytes and the end token
    assert [row.messages[0].content for row in answers.rows(Answer)] == ["Tag."] * 3


def test_verdicts_are_outcomes_of_the_model_that_is_compared_with_the_reference(tmp_path: Path):
    def verdict(name: str, winner: str | None, **more: object) -> Verdict:
        given = {"id": f"{name}{len(more)}{winner}", "item_id": name, "judge": "j", "a": "ref"}
        return Verdict.model_validate({**given, "b": "m", "winner": winner, **more})

    rows = [
        verdict("1", "b"), verdict("1", "tie", order="ba"), verdict("2", "a"),
        verdict("3", None, missing="no_verdict"), verdict("4", None, score=7.0),
    ]  # fmt: skip
    found = outcomes([toys.rows_artifact(tmp_path / "one", rows)])
    assert found == {"1": 0.75, "2": 0.0, "4": 7.0}
    other = toys.rows_artifact(tmp_path / "two", [*rows, verdict("5", "a", b="other")])
    with pytest.raises(InputError, match="2 pairs of models"):
        outcomes([other])
