import pytest
from hypothesis import given
from hypothesis import strategies as st

from spyhop.text.verdict import verdict_score, verdict_word, without_verdict


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("It is fine.\nScore: 4", 4),
        ("Score: 3\nOn second thoughts:\n**Score: 5**", 5),
        ("**Score:** 4/5\nThank you for reading.", 4),
        ("Good.\n\n> score = 4.5", 4.5),
        ("Score: 2 out of 5.", 2),
        ("# SCORE: [1]!", 1),
        ("Score: 4\r\n", 4),
        # what is not one score from 1 to 5 is missing
        ("Score: 4 or 5", None),
        ("Score: 4/10", None),
        ("Score: 10502", None),
        ("Score: 0", None),
        ("Score: 5.5", None),
        ("Score: -3", None),
        ("Score: <rating>", None),
        ("Score: five", None),
        ("Score:", None),
        ("The score: 4", None),
        ("4", None),
        ("", None),
        # the last verdict line decides, even where it cannot be read
        ("Score: 3\nScore: 10502", None),
        ("Score: 3\nScore: high", None),
    ],
)
def test_the_last_verdict_line_is_read_strictly(text: str, score: float | None):
    assert verdict_score(text) == score


@given(st.text(), st.floats(1, 5).map(lambda score: round(score, 2)))
def test_any_text_may_stand_before_a_verdict(text: str, score: float):
    said = f"{text}\nScore: {score:g}"
    assert verdict_score(said) == score
    assert "Score:" not in without_verdict(said) or "Score:" in text


@given(st.text(alphabet="score:= 12345*_/.\n[]"))
def test_a_score_is_in_range_whatever_the_text(text: str):
    found = verdict_score(text)
    assert found is None or 1 <= found <= 5


def test_long_ugly_text_is_read_in_no_time():
    for piece in ("score", "*_ ", "score: ", "\n", "Score: 5 *", ">" * 8 + "score"):
        assert verdict_score(piece * 200_000) is None


def test_the_reason_stands_before_the_first_verdict():
    assert without_verdict("A reason.\nMore.\n\n**Score: 4**\nScore: 5") == "A reason.\nMore."
    assert without_verdict("No verdict.") == "No verdict."
    assert without_verdict("Score: 4\nA reason behind it.") == "A reason behind it."


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Fine.\nVERDICT: SATISFIED", "satisfied"),
        ("VERDICT: OBJECTION\nNo, wait.\n**Verdict: satisfied.**", "satisfied"),
        ("> verdict = Objection!\nThanks for reading.", "objection"),
        ("**VERDICT:** OBJECTION", "objection"),
        ("x\n- *Verdict*: **objection**.\n", "objection"),
        ("VERDICT: partly SATISFIED\nVERDICT: OBJECTION", "objection"),
        # what is not one of the words is no verdict, and no earlier line is taken in its place
        ("VERDICT: OBJECTION\nNo, wait.\nVERDICT: partly SATISFIED", None),
        ("The verdict: satisfied", None),
        ("VERDICT: NOT SATISFIED", None),
        ("VERDICT: SATISFIED or OBJECTION", None),
        ("VERDICT:\nSATISFIED", None),
        ("VERDICT: UNSATISFIED", None),
        ("VERDICT: SUPPORTED", None),
        ("satisfied", None),
        ("", None),
        ("\n" * 100_000 + "VERDICT" * 20_000, None),
    ],
)
def test_the_last_verdict_line_states_one_of_the_words(text: str, verdict: str | None):
    assert verdict_word(text, ("satisfied", "objection")) == verdict
