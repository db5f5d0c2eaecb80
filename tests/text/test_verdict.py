import pytest
from hypothesis import given
from hypothesis import strategies as st

from spyhop.text.verdict import (
    read_grade,
    read_grades,
    read_winner,
    verdict_score,
    verdict_word,
    without_verdict,
)


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


@pytest.mark.parametrize(
    ("text", "winner"),
    [
        ("B rambles.\nVerdict: A", "a"),
        ("**Verdict: B**\n", "b"),
        ("Final verdict: [[B]]", "b"),
        ("Verdict: Assistant A is clearly better.", "a"),
        ("Verdict: A is better than B", "a"),
        ("The winner is: Response 2", "b"),
        ("I prefer the second. [[B]]", "b"),
        ("[[A]] it is. So: [[A]]", "a"),
        ("[[C]]", "tie"),
        ("Verdict: it's a tie", "tie"),
        ("My final verdict is: [[A>>B]]", "a"),
        ("[[B>A]]", "b"),
        ("[[A=B]]", "tie"),
        ("<think>[[A]] at first</think>[[B]]", "b"),
        ("b", "b"),
        ("The matrix [[1, 2]] is right in A.\nVerdict: A", "a"),
    ],
)
def test_a_winner_is_read_from_its_line_or_mark(text: str, winner: str):
    assert read_winner(text) == (winner, (), "")


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("Both are good.\nVerdict: both", "no_verdict"),
        ("Verdict: A or B", "no_verdict"),
        ("Verdict: A and B", "no_verdict"),
        ("Verdict: not A", "no_verdict"),
        ("Verdict: neither", "no_verdict"),
        ("A is better in style.", "no_verdict"),
        ("both", "no_verdict"),
        ("[[both]]", "no_verdict"),
        ("<think>Verdict: A", "no_verdict"),
        ("", "no_verdict"),
        ("Verdict: A\nNo.\nVerdict: B", "two_verdicts"),
        ('I write "[[A]]" if A is better and "[[B]]" if not. [[B]]', "two_verdicts"),
        ("Verdict: A\nI mean [[C]]", "two_verdicts"),
    ],
)
def test_both_nothing_and_two_verdicts_are_missing(text: str, missing: str):
    assert read_winner(text) == (None, (), missing)


@given(st.text())
def test_a_winner_is_never_read_beside_a_reason_for_its_absence(text: str):
    found = read_winner(text)
    assert (found.winner is None) == bool(found.missing)


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("Rating: [[5]]", 5),
        ("Fine.\nScore: 7/10", 7),
        ("[[7.5]]", 7.5),
        ("My final rating is: 9.", 9),
        ("Score: 3\nScore: 3", 3),
        ("Score: 3\nScore: 4", "two_verdicts"),
        ("[[3]] or [[4]]", "two_verdicts"),
        ("Score: 11", "no_verdict"),
        ("Score: 7/5", "no_verdict"),
        ("Score: 7 or 8", "no_verdict"),
        ("Good.", "no_verdict"),
    ],
)
def test_one_grade_is_read(text: str, grade: float | str):
    found = read_grade(text)
    assert (found.grades or found.missing) == ((grade,) if not isinstance(grade, str) else grade)


@pytest.mark.parametrize(
    ("text", "grades"),
    [
        ("8 9\nThe second is longer.", (8, 9)),
        ("8.5, 7\n", (8.5, 7)),
        ("0 9", (0, 9)),
        ("Scores: 8/10 and 9/10\nBecause", (8, 9)),
        ("The end points are (2, -2) and (10, 4).\nAssistant 1: 10\nAssistant 2: 3/10", (10, 3)),
        ("So I give Assistant 1 a score of 10 and Assistant 2 a score of 4.", (10, 4)),
        ("Assistant 1: the sum is 39.\nAssistant 2: 40.\nOutput: (10, 4)", (10, 4)),
        ("The end points are (2, 2) and (10, 4).", "no_verdict"),
        ("8 9 7", "no_verdict"),
        ("Assistant 1: 12\nAssistant 2: 3", "no_verdict"),
        ("Assistant 1: 8", "no_verdict"),
        ("Assistant 1: 8\nAssistant 2: 9\nOutput: (9, 8)", "two_verdicts"),
    ],
)
def test_two_grades_are_read_where_they_are_stated(text: str, grades: object):
    found = read_grades(text)
    assert (found.grades or found.missing) == grades
