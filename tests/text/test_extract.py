import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spyhop.text.choices import choice, first_capital
from spyhop.text.extract import BARE_ANSWER_CHARS, final_answer, matches, normalise
from spyhop.text.gold import read

LABELS = list("ABCDE")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" (C) because A is out", "C"),
        ("C", "C"),
        ("Based on the text, (C)", "B"),
        ("The answer is (C)", "C"),
        ("After that, (C)", "A"),
        ("c", None),
        ("", None),
        ("The horse is third.", None),
    ],
)
def test_first_capital_is_the_papers_rule_with_its_hazards(text: str, expected: str | None):
    assert first_capital(text, LABELS) == expected


def test_first_capital_refuses_labels_that_it_cannot_read():
    with pytest.raises(ValueError, match="single capital letters"):
        first_capital("(2)", ["0", "1", "2"])


STATED = [
    ("The answer is (C).", "C"),
    ("the answer is c.", "C"),
    ("The answer is C because it is red", "C"),
    ("The answer is C - the jay", "C"),
    ("The answer is C (the jay)", "C"),
    ("The answer to the question is B.", "B"),
    ("The correct answer is option (D) since", "D"),
    ("The answer is C, a bird", "C"),
    ("the best option is (e)", "E"),
    ("The answer is therefore, C.", "C"),
    ("The answer is most likely (C).", "C"),
    ("The answer is (C). The wrong answer is (B).", "C"),
    ("The answer is (C). The other option is (B).", "C"),
    ("Answer: C", "C"),
    ("Answer: 'B'", "B"),
    ("Answer choice: B", "B"),
    ("Final answer: B", "B"),
    ("#### B", "B"),
    ("**Answer:** C", "C"),
    ("**Answer: (C)**", "C"),
    ("Answer:\n\n**C**", "C"),
    ("$\\boxed{C}$", "C"),
    ("The answer is \\boxed{\\text{C}}.", "C"),
    ("answer is <b>C</b>", "C"),
    ("The answer is\uff08\uff23\uff09", "C"),
    ("The answer\u200b is \u201cC\u201d.", "C"),
    ("Option C is the correct answer.", "C"),
    ("So (C) is clearly the best choice", "C"),
    ("The answer is A. Wait, no: the answer is B.", "B"),
    ("The answer is D. If the answer is C, then it fails.", "D"),
    ("The answer is D. I don't think the answer is C.", "D"),
]
STATED += [  # as chat models say it, in several languages
    ("It is likely to be D.", "D"),
    ("Hence it must be (D), I think.", "D"),
    ("I would choose (D) here.", "D"),
    ("After some thought I'd go with option B.", "B"),
    ("We therefore select C because it is red.", "C"),
    ("The answer is not B but C.", "C"),
    ("The correct answer is not (A), but rather (E).", "E"),
    ("The correct one here is B.", "B"),
    ("The best option among these is (D).", "D"),
    ("Therefore, (C).", "C"),
    ("(C) is correct, (D) is not.", "C"),
    ("The answer is \\( C \\).", "C"),
    ("The answer is $\\mathbf{C}$.", "C"),
    ("\\[\\boxed{\\text{B}}\\]", "B"),
    ("\u56e0\u6b64\u7b54\u6848\u662fB\u3002", "B"),
    ("\u7b54\u6848\uff1aC", "C"),
    ("\u7efc\u4e0a\u6240\u8ff0\uff0c\u5e94\u9009D\u9879\u3002", "D"),
    ("\u6b63\u786e\u9009\u9879\u4e3a\uff08A\uff09", "A"),
    ("\u7b54\u3048\u306fB\u3067\u3059\u3002", "B"),
    ("La respuesta correcta es C.", "C"),
    ("La r\u00e9ponse est (B).", "B"),
    ("Die richtige Antwort ist D.", "D"),
    ("B is the answer.", "B"),
    ("I believe it's (B).", "B"),
    ("Let's go with C.", "C"),
    ("(A), (B) and (D) can be ruled out. That leaves (C).", "C"),
    ("A) is incorrect.\nB) is correct.", "B"),
    ("The right choice would have been D.", "D"),
]
ALONE = [("(C)", "C"), (" (C).", "C"), ("c", "C"), ("Option C", "C"), ("I looked.\n\n**C**\n", "C")]
OPENING = [
    ("C. The jay", "C"),
    ("(C) The jay\nbecause (A) is out", "C"),
    ("B) the jay", "B"),
    ("E. the owl\n\nStep 1: compare.\n\nA. the jay - it is blue.\nB. the quail - no.", "E"),
    ("B. the owl\n\nA. the jay is out", "B"),
    ("E, of course", "E"),
    ("C: the jay", "C"),
    ("A: C because it is red", "C"),
    ("A: (B) the jay", "B"),
    ("A:\nB. the jay", "B"),
    ("A: B", "B"),
    ("A because it is red", "A"),
]
UNREADABLE = [
    "",
    "It could be A or B.",
    "A is the first option.",
    "The statement A is true and so is B.",
    "I would choose A or B.",
    "It is likely to be a dog.",
    "(A) is not correct.",
    "(A) and (B) is correct",
    "Therefore, A dog.",
    "So I went home.",
    "\u7b54\u6848\u662fA\u6216B",
    "We choose between A and B.",
    "The answer is",
    "The answer is (Z).",
    "The answer is (A) or (B).",
    "The answer is A, B and C.",
    "The answer is (a) and (b).",
    "(A) or (B)",
    "A/B",
    "The answer is either A or B",
    "Both (A) and (B) are correct",
    "The answer is (A). So the answer is (None of the above).",
    "The answer is not (A)",
    "The answer is C?",
    "If the answer is C, then it fails.",
    "The answer is a dog",
    "The answer is A dog",
    "A dog",
    "#### A. Analysis\nIt is red.",
    "A: Let's think step by step.",
    "A:",
    "A: ",
    "B:",
    "A:\nB:\nC:",
    "A:\nB:",
    "A:\n\nfirst, the jay",
    "A: A dog",
    "A: the jay\nB: the quail",
    "a is the correct answer",
    "the answer is i.e. C",
    "The answer is C++",
    "The answer is C.S. Lewis",
    "Based on the text, (B) is wrong",
    "VitaminB is the best choice",
    "A\nB\nC",
    "Let us see.\n(C) looks wrong",
    "(A) the jay\n(B) the quail",
    "A. the jay\n\nB. the quail",
    "B. the jay\nC. the quail",
    "(A) the jay (B) the quail (C) the owl",
    "Answer Choices: (A) the jay (B) the quail",
]


@pytest.mark.parametrize(("text", "expected"), STATED + ALONE + OPENING)
def test_choice_reads_what_is_stated(text: str, expected: str):
    assert choice(text, LABELS) == expected


@pytest.mark.parametrize("text", UNREADABLE)
def test_choice_never_guesses(text: str):
    assert choice(text, LABELS) is None


def test_choice_reads_other_labels():
    assert choice("The answer is (3).", list("0123")) == "3"
    assert choice("The answer is 3.5", list("0123")) is None
    assert choice("The answer is Valid.", ["valid", "invalid"]) == "valid"
    assert choice("The answer is invalid.", ["valid", "invalid"]) == "invalid"
    assert choice("The answer is (A)", []) is None
    assert choice("A. the only one", ["A"]) == "A"


@given(st.text(), st.sampled_from(LABELS))
def test_a_last_clear_statement_wins_after_any_text(before: str, label: str):
    assert choice(f"{before}\nThe answer is ({label}).", LABELS) == label


@given(st.text())
def test_choice_is_a_label_or_none(text: str):
    assert choice(text, LABELS) in {*LABELS, None}
    assert first_capital(text, LABELS) in {*LABELS, None}


@given(st.text("the answr is:()[]\\{}.,*\n"))
def test_no_label_in_the_text_gives_none(text: str):
    assert choice(text, ["B", "C"]) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So the answer is 1,024.", "1024"),
        ("The answer is 14. The answer is 15.", "15"),
        ("Answer: -35", "-35"),
        ("The answer is \u221235.", "-35"),
        ("The answer is $2.50!", "2.5"),
        ("**The answer is 42.** I am sure.", "42"),
        ("**Answer:** 42", "42"),
        ("Answer:\n\n  Four Score\nand more", "four score"),
        ("work\n#### 72", "72"),
        ("so $\\boxed{42}$ it is", "42"),
        ("The answer is True.", "true"),
        ("The answer is No, since it rains.", "no"),
        ("The answer is No one.", "no one"),
        ("The answer is invalid - it does not follow.", "invalid"),
        ("So the answer is barn damp it&t.", "barn damp it&t"),
        ("Answer: ] ] >", "] ] >"),
        ("The answer is (A) or (B).", "(a) or (b)"),
        ("The answer is J. K. Rowling. She wrote it.", "j. k. rowling"),
        ("The answer is Dr. Who!", "dr. who"),
        ("It is \\boxed{\\{1, \\frac{1}{2}\\}}", "\\{1, \\frac{1}{2}\\}"),
        ("The answer is C. It is red.", "c"),
        ("Yes", "yes"),
        ("Yes, because the statement is plausible in " + "all ways " * 9, "yes"),
        ("No one knows.", "no one knows"),
        ("The answer is", None),
        ("", None),
        ("one\ntwo", None),
        ("x" * (BARE_ANSWER_CHARS + 1), None),
    ],
)
def test_final_answer(text: str, expected: str | None):
    assert final_answer(text) == expected


def test_matches_is_exact_after_normalising():
    assert matches("True", "true.") and matches("1,000.0", "1000") and matches("(B)", "B")
    assert (
        not matches(None, "") and not matches("5 apples", "5") and not matches("not valid", "valid")
    )
    assert not matches("2*3", "23") and not matches("-5", "5") and not matches("yes", "true")


@pytest.mark.parametrize(
    ("stated", "gold", "is_right"),
    [
        ("(0,1]", "[0,1)", False),
        ("[0,1)", "[0,1)", True),
        ("0,1", "[0,1)", False),
        (") ]", ") ] >", False),
        ("(the jay)", "the jay", True),
        ("f(x)", "f(x)", True),
        ("(B)", "B", True),
        ("B", "(B)", True),
        ("x\u00b2", "x2", False),
        ("\uff59\uff45\uff53", "yes", True),
        ("soft\u00adware", "software", True),
        ("(3, 4)", "(4, 3)", False),
    ],
)
def test_brackets_count_where_the_gold_answer_has_them(stated: str, gold: str, is_right: bool):
    assert matches(stated, gold) == is_right


THOUGHTS = [
    "<think>\nmaybe {}\n</think>\n\n",
    "maybe {}\n</think>\n",
    "<thinking>{}</thinking>",
    "[THINK]{}[/THINK]",
    "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>",
    "<think>{}</think>Well.<think>{}</think>",
    "\u25c1think\u25b7{}\u25c1/think\u25b7",
]


@pytest.mark.parametrize("thought", THOUGHTS)
def test_answers_are_read_behind_a_thought_never_in_it(thought: str):
    for wrong, answer, gold in (
        ("the answer is (A).", "**C**", "C"),
        ("The answer is 17.", "So he has 18 apples.", "18"),
        ("The answer is the jay.", "The answer is the owl.", "the owl"),
    ):
        before = thought.replace("{}", wrong)
        question = "Which? (A) a (B) b (C) c" if gold == "C" else "Which?"
        assert read(before + answer, question, gold).is_right
        unfinished = (before + answer).split("</")[0].split("[/")[0]
        if unfinished.startswith(("<think", "[THINK")):
            assert read(unfinished, question, gold).answer is None


@pytest.mark.parametrize(
    "gold",
    [
        "antelope badger camel donkey elephant falcon giraffe hedgehog iguana jackal kiwi lemur",
        "[ [ ] ]",
    ],
)
def test_a_response_that_equals_the_gold_answer_is_right(gold: str):
    assert read(f" {gold}\n", "Sort.", gold).is_right
    assert read(f"Here you are:\n\n{gold.upper()}.", "Sort.", gold).is_right
    assert not read(f"{gold} more", "Sort.", gold).is_right


@given(st.text() | st.from_regex(r"[-+$(]?[0-9]{1,6}(,[0-9]{3})?(\.[0-9]{0,4})?[.%)]?"))
def test_normalising_twice_changes_nothing(text: str):
    once = normalise(text)
    assert normalise(once) == once


@given(st.integers(), st.booleans())
def test_a_stated_number_matches_itself(number: int, grouped: bool):
    shown = f"{number:,}" if grouped else str(number)
    assert matches(final_answer(f"We add up.\nSo the answer is {shown}. Done."), str(number))


@given(st.text())
def test_final_answer_is_normal_or_none(text: str):
    answer = final_answer(text)
    assert answer is None or (answer and normalise(answer) == answer)


@pytest.mark.parametrize(
    "piece",
    ["answer is ", "answer ", "(A) ", "\n", " ", "(", "A\n", "\\boxed{", "if the ", "1,", "*", "!"],
)
def test_huge_ugly_text_takes_linear_time(piece: str):
    text = piece * (300_000 // len(piece))
    start = time.perf_counter()
    choice(text, LABELS)
    final_answer(text)
    assert time.perf_counter() - start < 40  # quadratic time would be minutes


OUTPUTS = "bbh_code_davinci_cot_outputs/code-davinci-002-cot"
CORRECT = {  # right answers of code-davinci-002 with chain of thought, as published
    "boolean_expressions": 232,
    "date_understanding": 218,
    "disambiguation_qa": 190,
    "formal_fallacies": 126,
    "logical_deduction_three_objects": 219,
    "multistep_arithmetic_two": 119,
    "navigate": 241,
    "object_counting": 233,
    "snarks": 106,
    "sports_understanding": 244,
    "web_of_lies": 238,
    "word_sorting": 101,
}


def _outputs(folder: Path, task: str) -> tuple[list[tuple[str, str]], float]:
    stem = folder / OUTPUTS / f"{task}_few_shot_template_0-255000"
    rows = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))["outputs"]
    metrics = json.loads(Path(f"{stem}_eval_metrics.jsonl").read_text(encoding="utf-8"))
    return [(row["prediction"], row["target"]) for row in rows], metrics["accuracy"]


@pytest.mark.parametrize("task", CORRECT)
def test_published_accuracies_are_recomputed_exactly(task: str, data_dir: Path):
    rows, published = _outputs(data_dir, task)
    correct = sum(read(text, "", gold).is_right for text, gold in rows)
    assert correct == CORRECT[task]
    assert 100 * correct / len(rows) == pytest.approx(published, abs=1e-9)


@pytest.mark.parametrize(
    ("task", "unread", "correct_by_first_capital"),
    [
        ("date_understanding", 1, 164),
        ("disambiguation_qa", 0, 95),
        ("logical_deduction_three_objects", 0, 78),
        ("snarks", 24, 82),  # 3 cut off, 21 answer both or neither
    ],
)
def test_lettered_tasks_agree_with_the_published_accuracy(
    task: str, unread: int, correct_by_first_capital: int, data_dir: Path
):
    rows, _ = _outputs(data_dir, task)
    labels = list("ABCDEF")
    chosen = [choice(text, labels) for text, _ in rows]
    assert sum(f"({c})" == gold for c, (_, gold) in zip(chosen, rows, strict=True)) == CORRECT[task]
    assert chosen.count(None) == unread
    by_rule = sum(f"({first_capital(text, labels)})" == gold for text, gold in rows)
    assert by_rule == correct_by_first_capital
