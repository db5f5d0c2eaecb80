"""What verdicts come to, on verdicts and judges of known kind."""

import random
from collections.abc import Callable

import pytest

from spyhop.evaluate.win_rates import Figure, check_judge, figures
from spyhop.schema import Response, Verdict


def _verdict(n: int, order: str, winner: str | None, **more) -> Verdict:
    values = {
        "item_id": f"q{n}",
        "judge": "j",
        "a": "x",
        "b": "y",
        "order": order,
        "winner": winner,
    }
    if winner is None:
        values["missing"] = "no_verdict"
    return Verdict.model_validate({"id": f"{n}{order}{more}", **values, **more})


def _by(found: list[Figure], part: str = "all") -> dict[str, Figure]:
    return {each.measure: each for each in found if each.part == part}


def test_a_missing_verdict_is_no_loss_and_its_share_is_told():
    rows = [_verdict(n, order, "b") for n in range(8) for order in ("ab", "ba")]
    rows += [_verdict(8, "ab", "b"), _verdict(8, "ba", None)]
    found = _by(figures(rows, {}))
    assert (found["win rate"].value, found["win rate"].num) == (1.0, 8)
    assert found["missing verdicts"].value == pytest.approx(1 / 18)


@pytest.mark.parametrize("winner", ["a", "b", "tie"])
@pytest.mark.parametrize("num", [1, 5])
def test_one_question_and_equal_verdicts_have_every_figure(num: int, winner: str):
    rows = [
        _verdict(n, order, winner, score=5, score_b=5) for n in range(num) for order in ("ab", "ba")
    ]
    answers = {
        name: {f"q{n}": Response(id=f"q{n}", turns=[name]) for n in range(num)} for name in "xy"
    }
    found = _by(figures(rows, answers))
    value = {"a": 0.0, "tie": 0.5, "b": 1.0}[winner]
    assert found["win rate"].value == value
    assert found["length-controlled win rate"].value == pytest.approx(value, abs=0.01)
    assert found["style-controlled win rate"].low < found["style-controlled win rate"].high
    assert found["share of the other's grades"].value == 1


def test_rates_are_also_reported_without_doubted_questions_by_topic_and_turn():
    rows = [
        _verdict(n, "ab", "b" if n < 4 else "a", turn=turn, topic=f"t{n % 2}")
        for n in range(8)
        for turn in (1, 2)
    ]
    found = figures(rows, {}, doubted=("q5", "q6", "q7"))
    rates = {each.part: (each.value, each.num) for each in found if each.measure == "win rate"}
    assert rates == {
        "all": (0.5, 8), "without doubted references": (0.8, 5), "t0": (0.5, 4), "t1": (0.5, 4),
        "turn 1": (0.5, 8), "turn 2": (0.5, 8),
    }  # fmt: skip


def test_the_share_of_a_references_grades_shows_each_order():
    """Orca's Table 7, with the position bias of its footnote 18."""
    rows = []
    for n in range(10):
        rows.append(_verdict(n, "ab", "a", score=10, score_b=7))
        rows.append(_verdict(n, "ba", "a", score=9, score_b=8))
    found = [each for each in figures(rows, {}) if each.measure == "share of the other's grades"]
    assert {each.part: round(each.value, 3) for each in found} == {
        "all": round(15 / 19, 3), "the other shown first": 0.7, "the other shown second": 0.889,
    }  # fmt: skip


def test_single_grades_have_a_mean_with_an_interval():
    rows = [
        Verdict(id=str(n), item_id=str(n), judge="j", a="x", score=score)
        for n, score in enumerate([8, 6, 10])
    ]
    found = _by(figures(rows, {}))["mean grade / 10"]
    assert found.value == pytest.approx(0.8) and found.low < 0.8 < found.high


def test_more_than_two_models_are_ranked():
    rng = random.Random(1)
    strength = {"x": 0.0, "y": 1.0, "z": 2.0}
    rows = [
        Verdict(
            id=f"{n}{a}{b}", item_id=f"q{n}", judge="j", a=a, b=b,
            winner="b" if rng.random() < 1 / (1 + 2.7 ** (strength[a] - strength[b])) else "a",
        )
        for n in range(200) for a, b in (("x", "y"), ("y", "z"), ("x", "z"))
    ]  # fmt: skip
    wins = {each.model: each for each in figures(rows, {}) if each.measure == "Bradley-Terry"}
    assert wins["y"].low > 0.5 and wins["y"].value < wins["z"].low


Says = Callable[[int, str, str], str]
LONG, SHORT = "a long response " * 8, "short"


def _planted(position: float, length: float, own: float, seed: int, num: int = 300):
    """A judge that follows people, but with these probabilities a bias instead.

    People prefer either side by a coin. The judge's model wrote `b` of every second pair.
    """
    rng = random.Random(seed)
    labels, verdicts, sides = [], [], {"x": {}, "y": {}}
    for n in range(num):
        truth, long = rng.choice("ab"), rng.choice("ab")
        writer = "j" if n % 2 else "other"
        sides["x"][f"q{n}"] = Response(id=f"q{n}", turns=[LONG if long == "a" else SHORT])
        sides["y"][f"q{n}"] = Response(
            id=f"q{n}", model=writer, turns=[LONG if long == "b" else SHORT]
        )
        labels += [
            _verdict(n, "", truth).model_copy(update={"judge": f"person{p}"}) for p in range(3)
        ]
        for order in ("ab", "ba"):
            draw, winner = rng.random(), truth
            if draw < position:
                winner = order[0]
            elif draw < position + length:
                winner = long
            elif draw < position + length + own and writer == "j":
                winner = "b"
            verdicts.append(_verdict(n, order, winner))
    texts = {f"q{n}": "What is this?" for n in range(num)}
    return check_judge(verdicts, labels, sides, texts)


@pytest.mark.parametrize(
    ("position", "length", "own"),
    [(0.0, 0.0, 0.0), (0.3, 0.0, 0.0), (0.0, 0.3, 0.0), (0.0, 0.0, 0.4), (0.2, 0.2, 0.2)],
)
def test_planted_biases_are_found_within_their_intervals(position, length, own):
    """People prefer a side by a coin, so a bias gains half of its probability over them."""
    truth = {"position bias": position, "length bias": length / 2, "self-preference": own / 2}
    inside = 0
    for seed in range(4):
        found = _by(_planted(position, length, own, seed))
        inside += sum(found[name].low <= value <= found[name].high for name, value in truth.items())
        assert all(found[name].value > value / 4 for name, value in truth.items() if value)
        kappa = found["agreement with people (kappa)"]
        assert kappa.high < 1 if any(truth.values()) else kappa.value == 1
    assert inside >= 10  # of 12, at 95 % each


def test_a_judge_of_chance_agrees_with_nobody():
    rng = random.Random(3)
    rows = [_verdict(n, order, rng.choice("ab")) for n in range(400) for order in ("ab", "ba")]
    labels = [_verdict(n, "", rng.choice("ab"), judge="person") for n in range(400)]
    sides = {
        side: {f"q{n}": Response(id=f"q{n}", turns=["t"]) for n in range(400)} for side in "xy"
    }
    texts = {f"q{n}": "What is this?" for n in range(400)}
    found = _by(check_judge(rows, labels, sides, texts))
    kappa = found["agreement with people (kappa)"]
    assert kappa.low <= 0 <= kappa.high and "length bias" not in found
