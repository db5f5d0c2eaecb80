"""Judges of the embedded world with known faults: one rewards style alone, one checks answers."""

import re
from random import Random
from typing import Literal

from pydantic import Field

from spyhop.schema import Config
from spyhop.store import number_of
from spyhop.text.form import form_of
from spyhop.world.problem import parse

_PAIR = re.compile(
    r"\[Question\]\n(?P<question>.*?)\n\n\[Response A\]\n(?P<a>.*?)\n\[End of response A\]\n\n"
    r"\[Response B\]\n(?P<b>.*?)\n\[End of response B\]",
    re.DOTALL,
)
Preferred = Literal["first", "second", "tie"]
Rewarded = Literal["style", "answers"]
CLEAR = 0.5
"""Difference in form that a judge of style sees."""


class JudgeRules(Config):
    """What a scripted judge rewards, and its faults."""

    rewards: Rewarded
    """`style`: length, layout and step markers, without reading the answer. `answers`: the right
    final answer, whatever the form."""
    first_rate: float = Field(0.1, ge=0, le=1)
    """Position bias: chance that it takes the first response unread."""
    slip_rate: float = Field(0.05, ge=0, le=1)
    """Chance of a random verdict."""
    seed: int = 0
    """Random seed of both."""


def verdict(rules: JudgeRules, prompt: str) -> str:
    """Answer the user turn of a pairwise judgement; without a pair there is no verdict."""
    pair = _PAIR.search(prompt)
    if pair is None:
        return "There are no two responses to compare."
    better = prefer(rules, pair["question"], pair["a"], pair["b"])
    return f"Verdict: {({'first': 'A', 'second': 'B', 'tie': 'tie'})[better]}"


def prefer(rules: JudgeRules, question: str, first: str, second: str) -> Preferred:
    """Return which response a judge prefers; a function of the texts and the seed only."""
    rng = Random(number_of("\n".join([str(rules.seed), question, first, second])))
    if rng.random() < rules.first_rate:
        return "first"
    if rng.random() < rules.slip_rate:
        return rng.choice(("first", "second", "tie"))
    problem, values = parse(question), []
    for response in (first, second):
        if rules.rewards == "style":
            length, layout, steps, hedging, _ = form_of(response, frozenset())
            values.append(length + layout + steps - hedging)
        else:
            said = response.rpartition("Answer: ")[2].strip()
            values.append(float(problem is not None and said == problem.target))
    gap = values[0] - values[1]
    return "tie" if abs(gap) < CLEAR else "first" if gap > 0 else "second"
