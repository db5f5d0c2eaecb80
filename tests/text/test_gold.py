import pytest

from spyhop.text.gold import is_right, options, stated

LISTED = "Which bird sang?\n(A) the crow\n(B) the jay\n(C) the owl"


@pytest.mark.parametrize(
    ("question", "labels"),
    [
        (LISTED, "ABC"),
        ("Pick one: A) 21 B) 22 C) 23", "ABC"),
        ("Options:\nA. one\nB. two", "AB"),
        ("(A)one (B)two (C)three (D)four", "ABCD"),
        ("Q: How many?\nA: Let's see", ""),
        ("(B) and (C) without a first", ""),
        ("(A) and (C) with a gap", ""),
        ("Mr. A. Smith met C.D. and E.", ""),
        ("", ""),
    ],
)
def test_options_follow_each_other_from_the_letter_a(question: str, labels: str):
    assert options(question) == list(labels)


@pytest.mark.parametrize(
    ("response", "question", "target", "found"),
    [
        ("It is loud. The answer is (B) the jay.", LISTED, "B", "B"),
        ("(B), because jays are loud.", LISTED, "(B)", "B"),
        ("The answer is the jay.", LISTED, "B", "B"),
        ("The answer is a bird.", LISTED, "B", None),
        ("The answer is the jay.", LISTED, "the jay", "the jay"),
        ("So the answer is 1,024.0.", "How many?", "1024", "1024"),
        ("The answer is B.", "What comes after A?", "B", "b"),
        ("The answer is (B).", LISTED, "", "B"),
        ("The answer is the jay.", LISTED, "", "the jay"),
        ("I cannot tell which of the two it might have been, there are too many of them.", LISTED,
         "", None),
        ("", LISTED, "B", None),
        ("The answer is", "How many?", "3", None),
    ],
)  # fmt: skip
def test_stated_answers(response: str, question: str, target: str, found: str | None):
    assert stated(response, question, target) == found


@pytest.mark.parametrize(
    ("response", "label"),
    [
        ("The jay is known for it.", "B"),
        ("The one that sang is the owl.", "C"),
        ("The jay is not known for it.", None),
        ("A bird sang, and the jay was there.", None),
        ("The owl is louder than the jay.", "C"),
        ("the jay", "B"),
        ("The answer is the jay or the owl.", None),
    ],
)
def test_an_option_may_be_stated_by_its_text(response: str, label: str | None):
    assert stated(response, LISTED, "B") == label


TRUTH = "Q: Not True or False is? Answer Choices: (A) True (B) False"
COUNTED = "How many?\nA) 21\nB) 22\nC) 3"


@pytest.mark.parametrize(
    ("response", "question", "gold", "right"),
    [
        ("(B)", TRUTH, "False", True),
        ("The answer is (B).", TRUTH, "False", True),
        ("B", TRUTH, "false", True),
        ("(A)", TRUTH, "False", False),
        ("False", TRUTH, "(B)", True),
        ("The answer is False.", TRUTH, "B", True),
        ("The answer is True.", TRUTH, "B", False),
        ("The answer is True.", TRUTH, "False", False),
        ("(B), since 20 + 2 = 22.", COUNTED, "22", True),
        ("(A)", COUNTED, "22", False),
        ("The answer is C.", COUNTED, "3", True),
        ("I would choose B.", LISTED, "the jay", True),
        ("**(C)**", LISTED, "the jay", False),
    ],
)
def test_label_and_text_of_an_option_stand_for_each_other(
    response: str, question: str, gold: str, right: bool
):
    assert bool(is_right(response, question, gold)) == right


@pytest.mark.parametrize("gold", ["B", "(B)", "B.", "B) the jay", "(B) the jay", "B. the jay"])
def test_a_gold_label_may_come_with_its_text(gold: str):
    assert is_right("The answer is (B).", LISTED, gold)
    assert is_right("The answer is (A).", LISTED, gold) is False


@pytest.mark.parametrize("response", ["", "...", "4", "The answer is"])
def test_nothing_is_right_without_a_gold_answer(response: str):
    assert not is_right(response, "How many?", "")


def test_initials_are_no_label():
    asked = "Who was it? (A) A. Lincoln (B) B. Franklin"
    assert is_right("The answer is B. Harrison.", asked, "B. Harrison")


def test_right_wrong_and_unreadable_are_three_things():
    said = ["The answer is (B).", "The answer is (A).", "Birds sing at dawn.\nMany do."]
    assert [is_right(text, LISTED, "(B)") for text in said] == [True, False, None]


@pytest.mark.parametrize("text", ["} ]] \x00 (((", "(" * 50_000, "\boxed{" * 999, "A B C " * 9999])
@pytest.mark.parametrize("target", ["B", "the jay", ""])
def test_garbage_is_never_right(text: str, target: str):
    assert not is_right(text, LISTED, target or "3")
    stated(text, LISTED, target)
    options(text)
