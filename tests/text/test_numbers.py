import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spyhop.text.gold import read
from spyhop.text.numbers import final_number, number_of, same_number

MARKED = [
    ("Nine and nine make 18. Therefore, the answer (arabic numerals) is 18.", "18"),
    ("The answer to the question of what 9 and 9 are is 18", "18"),
    ("The answer is 18. (I first thought of 20.)", "18"),
    ("The answer is 3. Wait, no: the answer is 4.", "4"),
    ("Answer: 18\n\nExplanation: 9 + 9 = 18, and 4 + 4 = 8.", "18"),
    ("**Answer:** $1,234.50", "1234.5"),
    ("9 + 9 = 18\nA: 18 dollars", "18"),
    ("so 9 + 9 = 18 #### 18", "18"),
    ("\\[ x = \\boxed{1{,}234} \\]\nThis took 3 steps.", "1234"),
    ("We get \\boxed{\\frac{3}{4}}.", "3/4"),
    ("The answer is $-\\frac{1}{2}$.", "-1/2"),
    ("The final answer is 20 - 2 = 18 apples.", "18"),
    ("The answer is that after 3 days he has 15 of the 20 left.", "15"),
    ("The answer is \uff11\uff18\u3002", "18"),
    ("The answer is 3.2 \u00d7 10^5.", "320000"),
    ("The answer is 1.5 million.", "1500000"),
    ("The answer is 1 1/2 cups.", "3/2"),
    ("The answer is \u22125 degrees.", "-5"),
    ("Answer: 5th", "5"),
    ("The correct answer is 18, not 20.", "18"),
    ("The answer is 9 because 18 = 2 * 9.", "9"),
    ("Final answer 18", "18"),
    (
        "9 + 9 = 18\uff0c\u6240\u4ee5\u7b54\u6848\u662f18\u5143\u3002\u8fd8\u6709 3 \u4e2a\u3002",
        "18",
    ),
]
CONCLUDED = [
    ("Tom had 20 and ate 2, so he has 18 apples left.", "18"),
    ("2 x 9 = 18\nShe pays 18 dollars.", "18"),
    ("2x = 10, hence x = 5.", "5"),
    ("So 25% of them are red.", "25"),
    ("Thus he has 15 left out of the original 18.", "15"),
    ("If she has 20 and eats 2, she has 18 left.", "18"),
    ("It takes her 45 minutes to peel and cook 90 shrimp.", "45"),
    ("Therefore, Weng earned $10 for 50 minutes of work.", "10"),
    ("16 - 3 - 4 = 9 eggs.\nShe makes 9 * 2 = $18 every day at the market.", "18"),
    ("A: He sold 48/2 = 24 in May.\nAltogether he sold 48 + 24 = 72.", "72"),
    ("Step 3: There are 18 apples. I hope this helps!", "18"),
    ("It is not 18 but 20.", "20"),
    ("\u4ed6\u4e00\u5171\u670918\u4e2a\u82f9\u679c\u3002", "18"),
    ("In total 1\u202f234 apples.", "1234"),
    ("1. He buys 3.\n2. He has 12,000/year left.", "12000"),
]
UNREADABLE = [
    "",
    "I cannot tell.",
    "It takes 3 to 5 days.",
    "It is 3-5.",
    "The answer is 3 or 4.",
    "x = 5 or x = -5",
    "The answer is 2 hours and 30 minutes.",
    "The answer is unknown, though 9 + 9 = 18.\nThe answer cannot be found.",
    "We begin with 18 apples:",
    "Are there 18?",
    "The answer is x = 5, y = 3.",
    "The answer is 18 - 2.",
    "The answer is $2\\sqrt{3}$.",
    "The answer is 2 + 3i.",
    "The train leaves at 10:30.",
    "18 of them. " + "That is so. " * 3,
    "He ate 3, 4 and 5.",
]


@pytest.mark.parametrize(("response", "value"), MARKED + CONCLUDED)
def test_the_final_number_is_read(response: str, value: str):
    assert final_number(response) == Fraction(value)


@pytest.mark.parametrize(("response", "value"), MARKED)
def test_a_cut_response_counts_where_its_answer_is_marked(response: str, value: str):
    assert final_number(f"{response}\nAnd now", is_whole=False) == Fraction(value)


@pytest.mark.parametrize("response", [text for text, _ in CONCLUDED])
def test_a_cut_derivation_has_no_answer(response: str):
    assert final_number(response, is_whole=False) is None


@pytest.mark.parametrize("response", UNREADABLE)
def test_a_number_is_never_guessed(response: str):
    assert final_number(response) is None


def test_a_number_that_is_cut_off_is_not_read():
    assert read("The answer is 12.\nThe answer is 1", "", "12", is_whole=False).is_right
    assert read("So the answer is 12", "", "12", is_whole=False).answer is None


@pytest.mark.parametrize(
    ("gold", "value"),
    [("$1,080", "1080"), ("25%", "25"), ("-0.50", "-1/2"), ("1e3", "1000"), ("\\frac{3}{4}", "3/4"),
     ("18.", "18"), ("5 apples", None), ("22:05", None), ("2020-01-02", None), ("(0,1]", None),
     ("x", None), ("", None)],
)  # fmt: skip
def test_gold_answers_that_are_numbers(gold: str, value: str | None):
    assert number_of(gold) == (None if value is None else Fraction(value))


def test_equal_up_to_the_rounding_of_floats_only():
    assert same_number(Fraction("0.30000000000000004"), Fraction("0.3"))
    assert not same_number(Fraction("0.3001"), Fraction("0.3"))
    assert not same_number(Fraction(10**13), Fraction(10**13 + 1))


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=2, min_value=-(10**30), max_value=10**9
    )
)
def test_every_written_form_of_a_number_is_read(number):
    value = Fraction(number)
    grouped = f"{number:,.2f}"
    for shown in (grouped, f"{grouped} dollars", f"**{grouped}**", f"\\boxed{{{number:.2f}}}"):
        assert final_number(f"2 + 3 = 5\nSo the answer is {shown}.") == value
    assert number_of(grouped) == value


@given(st.text(alphabet="0123456789.,-+*/=$%()[] answeri:#\n\\boxed{}tofr"))
def test_any_text_is_read_or_not(text: str):
    for is_whole in (True, False):
        found = final_number(text, is_whole=is_whole)
        assert found is None or isinstance(found, Fraction)


def test_gsm8k_as_published(data_dir: Path):
    """Every gold verifies itself, marked; most do without their mark, and few are misread."""
    lines = (data_dir / "gsm8k/test.jsonl").read_text().splitlines()
    rows = [(row["question"], row["answer"]) for row in map(json.loads, lines)]
    assert len(rows) == 1319 and all(read(gold, asked, gold).is_right for asked, gold in rows)
    others = [gold for _, gold in rows[1:]] + [rows[0][1]]
    same = sum(
        a.split("####")[1] == b.split("####")[1] for (_, a), b in zip(rows, others, strict=True)
    )
    wrong = sum(
        read(gold, asked, other).is_right for (asked, gold), other in zip(rows, others, strict=True)
    )
    assert wrong == same
    found = [read(gold.split("####")[0], asked, gold) for asked, gold in rows]
    assert sum(each.is_right for each in found) >= 1290  # human derivations that end unmarked
    assert sum(each.answer is not None and not each.is_right for each in found) <= 8
