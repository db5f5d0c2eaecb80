"""Problems can be read back from their text, are balanced, and belong to one split each."""

from collections import Counter
from random import Random

import pytest

from spyhop.world.family import CORE, FAMILIES, SLOT, content_slots
from spyhop.world.problem import Problem, draw, draw_split, parse

NAMES = sorted(FAMILIES)


def test_there_are_the_four_core_families_and_at_least_five_more() -> None:
    assert CORE == ("coin", "compass", "cups", "lift")
    assert set(CORE) < set(NAMES) and len(NAMES) >= 9


@pytest.mark.parametrize("family", NAMES)
def test_what_is_written_can_be_read_back(family: str) -> None:
    rng = Random(f"read {family}")
    for _ in range(400):
        problem = draw(family, rng, steps=(1, 10))
        assert parse(problem.text) == problem


@pytest.mark.parametrize("family", NAMES)
def test_every_sentence_of_a_family_is_used(family: str) -> None:
    rng = Random(f"forms {family}")
    texts = {draw(family, rng).text for _ in range(1000)}
    rules = FAMILIES[family]
    told = [form for forms in rules.phrases.values() for form in forms]
    for form in (*rules.openings, *told, *rules.questions):
        literal = max(form.replace("{", "\0{").replace("}", "}\0").split("\0"), key=_plain_length)
        assert any(literal in text for text in texts), form


def _plain_length(part: str) -> int:
    return 0 if part.startswith("{") else len(part)


@pytest.mark.parametrize("family", NAMES)
def test_all_ways_to_tell_one_kind_carry_the_same_content(family: str) -> None:
    rules = FAMILIES[family]
    for kind, forms in rules.phrases.items():
        assert len({content_slots(form) for form in forms}) == 1
        assert set(SLOT.findall(rules.plain[kind])) <= set(content_slots(forms[0]))
    assert len({content_slots(form) for form in rules.openings}) == 1
    assert rules.phrases.keys() == rules.plain.keys()


@pytest.mark.parametrize("family", NAMES)
def test_no_answer_is_far_above_chance(family: str) -> None:
    rng = Random(f"balance {family}")
    answers = Counter(draw(family, rng).target for _ in range(2000))
    rules = FAMILIES[family]
    assert max(answers.values()) / 2000 < rules.chance + 0.05
    assert set(answers) == set(rules.answers) or not rules.answers


@pytest.mark.parametrize("family", NAMES)
def test_a_guess_from_the_opening_alone_is_not_far_above_chance(family: str) -> None:
    rng = Random(f"opening {family}")
    seen: dict[tuple[str, ...], Counter[str]] = {}
    for _ in range(4000):
        problem = draw(family, rng)
        seen.setdefault(problem.start, Counter())[problem.target] += 1
    right = sum(max(answers.values()) for answers in seen.values()) / 4000
    assert right < FAMILIES[family].chance + 0.2


@pytest.mark.parametrize("family", NAMES)
def test_train_and_test_share_no_content_whatever_the_seeds(family: str) -> None:
    train = {draw_split(family, Random(f"a{i}"), "train", (2, 4)).content for i in range(200)}
    test = {draw_split(family, Random(f"b{i}"), "test", (2, 4)).content for i in range(200)}
    assert train and test and not train & test


def test_the_split_does_not_depend_on_the_wording() -> None:
    told = [
        "The ball is under the left cup. a) swap left and right. Where is it now?",
        "Ann hides a ball under the left cup. a) trade right and left. Where is it now?",
        "The ball is under the left cup. a) Ben swaps right and left. Which cup hides it?",
    ]
    problems = [parse(text) for text in told]
    assert len({p.content for p in problems if p}) == 1 and all(problems)
    other = parse("The ball is under the left cup. a) swap left and middle. Where is it now?")
    assert other and other.content != _read(told[0]).content


def test_the_test_split_holds_about_a_fifth() -> None:
    rng = Random(4)
    share = sum(draw("lift", rng).split == "test" for _ in range(3000)) / 3000
    assert 0.17 < share < 0.23


def test_the_same_seed_draws_the_same_problem() -> None:
    assert draw("coin", Random(5)) == draw("coin", Random(5))
    assert draw("coin", Random(5)) != draw("coin", Random(6))


@pytest.mark.parametrize("steps", [(1, 1), (4, 4), (3, 6), (10, 10)])
def test_the_number_of_steps_keeps_to_its_range(steps: tuple[int, int]) -> None:
    rng = Random(7)
    nums = {len(draw("days", rng, steps).steps) for _ in range(200)}
    assert nums == set(range(steps[0], steps[1] + 1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What is the capital of France?",
        "A coin shows heads.",
        "A coin shows heads. b) it is flipped. Which side is up?",
        "A coin shows heads. a) it melts. Which side is up?",
        "A coin shows heads. a) it is flipped. Why?",
        "A coin shows heads. a) it is flipped Which side is up?",
        "Ann is honest. a) Ben calls Cleo a liar. Is Ben honest or lying?",
        "Ann is honest. a) Ben calls Ann a liar. Is Cleo honest or lying?",
    ],
)
def test_other_texts_are_not_read(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (
            "A coin shows heads. a) it is flipped. b) it is flipped twice. Which side is up?",
            "tails",
        ),
        ("A ship heads west. a) turn right. b) turn back. Which way is that?", "south"),
        ("The left cup hides a coin. a) swap left and right. Where is it now?", "right"),
        ("A lift waits on floor 4. a) it goes up 3. b) down 1. Where does it stop?", "6"),
        ("Ann counts fruits only. a) figs, 2 of them. b) cats, 3 of them. How many is that?", "2"),
        ("Today is Monday. a) 2 days earlier. b) the next day. Which day is that?", "Sunday"),
        ("A signal is true. a) negate it. b) or false. What comes out?", "false"),
        ("Ann is lying. a) Ben calls Ann a liar. Is Ben honest or lying?", "honest"),
        ("Ann is lying. a) Ben denies that Ann lies. Is Ben honest or lying?", "lying"),
        ("Take the last letter of every word. a) lemon. b) truck. What does it spell?", "n k"),
        ("A jar holds 3 beads. a) double that. b) take away 2. What is the total?", "4"),
    ],
)
def test_answers_worked_out_by_hand(text: str, target: str) -> None:
    assert _read(text).target == target


def _read(text: str) -> Problem:
    problem = parse(text)
    assert problem is not None
    return problem
