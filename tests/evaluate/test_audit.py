"""The imitation audit: planted gains, known judges, and figures worked out another way."""

import importlib.util
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spyhop.evaluate.audit import (
    ACCURACY,
    EQUAL_ANSWERS,
    EQUAL_FORM,
    FOR_FIRST,
    FOR_RIGHT,
    FORM,
    JUDGED,
    AuditItem,
    audit_items,
)
from spyhop.text.form import FEATURES, form_of, phrases_of
from spyhop.world.judge import JudgeRules, prefer

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "audit.py"
LONG = "First, we look at it. Then {n} follows, because {n} is so. Therefore: Answer: {n}"
TEACHER = [LONG.format(n=n) for n in range(20)]


def _benchmark():
    spec = importlib.util.spec_from_file_location("audit_benchmark", BENCHMARK)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _item(n: int, **changes) -> AuditItem:
    texts = {"base": f"Answer: {n}", "student": LONG.format(n=n)}
    return AuditItem(**{**texts, "base_right": 0.0, "student_right": 0.0, **changes})


def test_planted_gains_are_found_under_both_judges():
    found = list(_benchmark().trials(range(2), 30, "hard"))
    assert len(found) == 12
    assert [trial.found.conclusion for trial in found] == [trial.planted for trial in found]


def test_too_few_items_tell_nothing():
    found = audit_items(
        [_item(1, student_right=True, student_first=1.0, student_second=1.0)], TEACHER
    )
    assert found.conclusion == "cannot tell" and "accuracy gain may be 0" in found.sentence
    assert found.gains[JUDGED].low < 0 < found.gains[JUDGED].high


def test_equal_models_have_no_gain_to_explain():
    items = [
        _item(n, student=f"Answer: {n}", student_first=0.0, student_second=0.0) for n in range(200)
    ]
    found = audit_items(items, TEACHER)
    assert found.conclusion == "cannot tell" and "no gain to explain" in found.sentence
    assert found.gains[JUDGED].value == 0 and found.gains[JUDGED].low > -0.05


@pytest.mark.parametrize("bias", [-0.8, 0.0, 0.6])
def test_position_bias_is_measured_and_moves_no_gain(bias: float):
    """A judge that only reads the place: the gain is 0, also where one order is mostly missing."""
    rng = random.Random(1)
    items = [
        _item(n, student_first=bias, student_second=None if rng.random() < 0.7 else -bias)
        for n in range(60)
    ]
    found = audit_items(items, TEACHER)
    gains = found.gains
    assert gains[JUDGED].value == pytest.approx(0, abs=1e-9)
    assert gains[FOR_FIRST].value == pytest.approx(bias)
    assert gains[FOR_FIRST].low <= bias <= gains[FOR_FIRST].high
    assert 0.25 < found.missing < 0.45


def test_one_order_alone_cannot_tell_the_place_from_the_model():
    gains = audit_items([_item(n, student_first=1.0) for n in range(40)], TEACHER).gains
    assert gains[JUDGED] is None and gains[FOR_FIRST] is None


def test_preference_for_right_answers_is_no_gain_at_equal_answers():
    rights = [(n % 2 == 0, n % 3 == 0) for n in range(90)]
    items = []
    for n, (base, student) in enumerate(rights):
        value = float(student) - float(base)
        items.append(
            _item(n, base_right=base, student_right=student, student_first=value,
                  student_second=value)
        )  # fmt: skip
    gains = audit_items(items, TEACHER).gains
    assert gains[JUDGED].value == pytest.approx(30 / 90 - 45 / 90)
    assert gains[EQUAL_ANSWERS].value == pytest.approx(0, abs=1e-9)
    assert gains[FOR_RIGHT].value == pytest.approx(1)
    assert gains[EQUAL_FORM] is None or gains[EQUAL_FORM].low < 0 < gains[EQUAL_FORM].high


def test_a_guess_for_a_missing_answer_is_no_right_answer_to_a_judge():
    """The judge gives a right answer 1 and nothing else, also against a base without answers."""
    items = [
        _item(n, base="", base_right=0.5, student_right=float(n % 2), student_first=float(n % 2),
              student_second=float(n % 2))
        for n in range(40)
    ]  # fmt: skip
    gains = audit_items(items, TEACHER).gains
    assert gains[EQUAL_ANSWERS].value == pytest.approx(0, abs=1e-9)
    assert gains[FOR_RIGHT].value == pytest.approx(1)


def test_form_held_equal_takes_away_what_a_judge_of_length_gives():
    """Half of the responses have the base's form, so style and model can be told apart."""
    items = [
        _item(n, student=LONG.format(n=n) if n % 2 else f"Answer: {n}",
              student_first=float(n % 2), student_second=float(n % 2))
        for n in range(60)
    ]  # fmt: skip
    gains = audit_items(items, TEACHER).gains
    assert gains[EQUAL_ANSWERS].value == pytest.approx(0.5)
    assert gains[EQUAL_FORM].value == pytest.approx(0, abs=0.05)


def test_intervals_of_the_gain_cover_the_truth():
    """Simulated: wins, losses and ties with a random effect of each item."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        tilt = rng.normal(0, 0.5, size=30)
        first, second = (np.sign(np.round(tilt + rng.normal(0.3, 0.6, 30))) for _ in range(2))
        items = [
            _item(n, student_first=float(a), student_second=float(b))
            for n, (a, b) in enumerate(zip(first, second, strict=True))
        ]
        gain = audit_items(items, TEACHER).gains[JUDGED]
        covered += gain.low <= 0.247 <= gain.high  # the mean of 10^6 draws of this law
    assert covered >= 53


def test_format_alone_is_no_gain_in_accuracy():
    """A base that writes no answers is credited with guesses."""
    items = [
        _item(n, base="well", base_right=0.5, student_right=float(n % 2 == 0)) for n in range(80)
    ]
    found = audit_items(items, TEACHER)
    assert found.gains[ACCURACY].value == pytest.approx(0) and found.conclusion == "style"
    free = audit_items([replace(item, base_right=0.0) for item in items], TEACHER)
    assert free.gains[ACCURACY].value == pytest.approx(0.5) and free.conclusion == "both"


def test_the_share_closed_is_1_at_the_teacher_and_0_at_the_base():
    same = audit_items([_item(n, student=TEACHER[n]) for n in range(20)], TEACHER)
    none = audit_items([_item(n, student=f"Answer: {n}") for n in range(20)], TEACHER)
    assert same.gains[FORM].value == pytest.approx(1, abs=0.02) and same.gains[FORM].low > 0.9
    assert none.gains[FORM].value == 0 and none.gains[FORM].high == 0
    assert list(same.form) == list(FEATURES)


def test_an_audit_needs_items_and_texts():
    with pytest.raises(ValueError, match="needs items"):
        audit_items([], TEACHER)
    with pytest.raises(ValueError, match="texts of the teacher"):
        audit_items([_item(1)], [])


def test_overlap_counts_phrases_but_no_results():
    phrases = phrases_of(["the sum is 12 now", "the sum is 7 now", "once only"])
    assert phrases == {("the", "sum"), ("sum", "is"), ("is", "0"), ("0", "now")}
    length, layout, steps, hedging, overlap = form_of("The sum is 99 now", phrases)
    assert (length, layout, steps, hedging) == (np.log2(6), 0, 0, 0) and overlap == 4
    assert form_of("", phrases) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "feature"),
    [
        ("# Title\n- one\n- two\n**bold** words", "layout"),
        ("First this, then that; therefore so.", "steps"),
        ("Perhaps it might be, I think.", "hedging"),
    ],
)
def test_features_see_their_own_marks(text: str, feature: str):
    values = dict(zip(FEATURES, form_of(text, frozenset()), strict=True))
    assert values[feature] >= 2
    assert all(values[name] == 0 for name in ("layout", "hedging") if name != feature)


@pytest.mark.parametrize("rewards", ["style", "answers"])
def test_judges_reward_what_they_say(rewards: str):
    rules = JudgeRules(rewards=rewards, first_rate=0, slip_rate=0)
    question = "The lift is on floor 5. a) up 2. b) down 1. Which floor is that?"
    wrong = "Start: 5. a) up 2: 5 to 9. b) down 1: 9 to 8. Answer: 8"
    right = "Answer: 6"
    style_wins = rewards == "style"
    assert prefer(rules, question, wrong, right) == ("first" if style_wins else "second")
    assert prefer(rules, question, right, wrong) == ("second" if style_wins else "first")
    assert prefer(rules, question, right, right) == "tie"
