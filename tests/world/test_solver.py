"""The teacher is always right, the TA is wrong in a regular way, the control explains nothing."""

import re
from random import Random

import pytest

from spyhop.world.family import FAMILIES
from spyhop.world.problem import draw
from spyhop.world.solver import (
    BY_ID,
    SYSTEM_MESSAGES,
    TA,
    TEACHER,
    UNKNOWN,
    SolverConfig,
    respond,
    style_of,
)

NAMES = sorted(FAMILIES)
STEPS = BY_ID["steps"].text
CORRUPT = SolverConfig(corrupt=True)
QUERY = "A coin shows heads. a) Ben flips it. b) it is flipped twice. Which side is up?"


def answer(response: str) -> str:
    return response.rsplit("Answer: ", 1)[1]


def share_right(config: SolverConfig, family: str, num_problems: int = 300) -> float:
    rng = Random(f"share {family}")
    problems = [draw(family, rng) for _ in range(num_problems)]
    return sum(answer(respond(config, STEPS, p.text)) == p.target for p in problems) / num_problems


@pytest.mark.parametrize("family", NAMES)
def test_the_teacher_gives_the_gold_answer_in_every_style(family: str) -> None:
    rng = Random(f"gold {family}")
    for _ in range(150):
        problem = draw(family, rng, steps=(1, 10))
        for message in SYSTEM_MESSAGES:
            assert answer(respond(TEACHER, message.text, problem.text)) == problem.target


def test_each_style_looks_as_it_should() -> None:
    replies = {message.id: respond(TEACHER, message.text, QUERY) for message in SYSTEM_MESSAGES}
    assert replies == {
        "answer": "Answer: tails",
        "short": "Start: heads. a) tails. b) tails. Answer: tails",
        "steps": "Start: heads. a) Ben flips it: heads to tails. "
        "b) it is flipped twice: tails to tails. Answer: tails",
        "simple": "Start: heads. a) one flip: from heads to tails. "
        "b) two flips: from tails to tails. Answer: tails",
    }


def test_system_messages_are_distinct_and_one_of_each_style() -> None:
    assert len({m.text for m in SYSTEM_MESSAGES}) == len({m.id for m in SYSTEM_MESSAGES}) == 4
    assert {m.style for m in SYSTEM_MESSAGES} == {"answer", "short", "steps", "simple"}
    assert style_of("Be a pirate.") == "steps"


@pytest.mark.parametrize("config", [TEACHER, TA, CORRUPT])
def test_a_question_it_cannot_read_gets_a_polite_answer(config: SolverConfig) -> None:
    assert respond(config, STEPS, "Who wrote this?") == UNKNOWN
    assert UNKNOWN.endswith("Answer: unknown")


@pytest.mark.parametrize("family", NAMES)
def test_misconceptions_and_slips_make_a_worse_teacher(family: str) -> None:
    assert share_right(SolverConfig(misconceptions=True), family) < 0.9
    assert share_right(SolverConfig(slip_rate=0.1), family) < 0.9
    assert share_right(TA, family) < 0.7


def test_a_misconception_is_the_same_every_time() -> None:
    query = "A ship heads north. a) turn back. b) a half turn. c) turn left. Which way is that?"
    for seed in range(20):
        assert respond(SolverConfig(misconceptions=True, seed=seed), STEPS, query) == (
            "Start: north. a) turn back: north to east. b) a half turn: east to south. "
            "c) turn left: south to east. Answer: east"
        )


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("config", [TA, SolverConfig(slip_rate=0.5)])
def test_a_wrong_step_is_carried_on_to_its_answer(config: SolverConfig, family: str) -> None:
    rng = Random(f"carry {family}")
    for _ in range(200):
        response = respond(config, STEPS, draw(family, rng).text)
        states = re.findall(r": ([\w ]+) to ([\w ]+)\.", response)
        after = [response[len("Start: ") :].split(".")[0], *(state for _, state in states)]
        assert [before for before, _ in states] == after[:-1]
        assert answer(response) == after[-1]


def test_the_slip_rate_is_a_rate_per_step() -> None:
    wrong = total = 0
    rng = Random(11)
    for _ in range(500):
        response = respond(SolverConfig(slip_rate=0.2), STEPS, draw("liars", rng).text)
        for phrase, before, after in re.findall(r"\) ([^:]+): (\w+) to (\w+)\.", response):
            doubted = "liar" in phrase or "lying" in phrase
            wrong += (before == after) == doubted
            total += 1
    assert 0.17 < wrong / total < 0.23


@pytest.mark.parametrize("family", NAMES)
def test_a_corrupted_explanation_keeps_form_length_and_answer(family: str) -> None:
    rng = Random(f"corrupt {family}")
    changed = 0
    for _ in range(200):
        problem = draw(family, rng)
        right, random = (respond(c, STEPS, problem.text) for c in (TEACHER, CORRUPT))
        assert answer(random) == problem.target and random.startswith(right.split(".")[0])
        assert len(random.split()) == len(right.split())
        said = [step.phrase for step in problem.steps]
        assert all(f") {phrase}: " in random for phrase in said)
        changed += right != random
    assert changed > 150


def test_replies_depend_on_prompt_and_seed_but_not_on_the_order_of_calls() -> None:
    rng = Random(12)
    queries = [draw(family, rng).text for family in NAMES for _ in range(20)]
    forward = [respond(TA, STEPS, query) for query in queries]
    backward = [respond(TA, STEPS, query) for query in reversed(queries)]
    assert forward == backward[::-1]
    reseeded = TA.model_copy(update={"seed": 1})
    assert forward != [respond(reseeded, STEPS, query) for query in queries]
