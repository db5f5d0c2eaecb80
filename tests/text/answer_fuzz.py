# ruff: noqa: T201
"""Differential fuzzing of answer extraction: generated and mutated responses, against math-verify.

    python tests/text/answer_fuzz.py --seconds 3600 --seed 7

Generated responses have a known answer: a wrong one must never be accepted, and at least 95 % of
the right ones must be read. Mutated responses have none: there, both readers are asked, and the
rows on which they disagree are printed to be read by a person.
"""

import argparse
import random
import string
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from math_verify import (
    ExprExtractionConfig,
    LatexExtractionConfig,
    StringExtractionConfig,
    parse,
    verify,
)

from spyhop.text.gold import read

NOUNS = ["apples", "dollars", "km", "students", "hours", "boxes of tea", "m\u00b2", ""]
MARKS = [
    "The answer is {}.", "So the final answer is {}!", "Answer: {}", "**Answer:** {}", "#### {}",
    "Therefore, the answer (arabic numerals) is {}.", "\\[ \\boxed{{{}}} \\]", "A: {}",
    "The answer to this question is {} .", "Final answer: **{}**", "Hence, the answer is x = {}.",
]  # fmt: skip
CONCLUSIONS = [
    "So she has {} left.", "Therefore, he needs {}.", "Thus it takes {} in total.", "They pay {}.",
    "This means that {} remain.", "In total, there are {}.", "{a} + {b} = {}",
    "If he gives {a} away, he has {} left.", "Hence there are {} out of the original {a}.",
]  # fmt: skip
STEPS = [
    "First, {a} + {b} = {c}.", "She buys {a} of them for ${b} each.", "We know that x = {a}.",
    "1. Multiply {a} by {b}.", "Step 2: take {c} from {a}.", "After {a} days, {b} are gone.",
    "It could be {a} or {b}.", "On {a} of the {b} days it rains.",
]  # fmt: skip
AFTERWORDS = ["", "", "", " I hope this helps!", "\nLet me know if you need more.", "\n"]
LETTERS = [
    "The answer is ({}).", "Answer: {}", "I would choose {}.", "({}) is the correct answer.",
    "**{}**", "It is likely to be {}.", "The correct option is {}, since it fits.",
    "\\boxed{{\\text{{{}}}}}", "The answer is not {other} but {}.", "Therefore, ({}).",
    "({other}) is wrong, so the answer is ({}).", "\u56e0\u6b64\u7b54\u6848\u662f{}\u3002",
]  # fmt: skip


@dataclass
class Findings:
    """What was compared, and the rows to look at."""

    counts: Counter[str] = field(default_factory=Counter)
    accepted: list[tuple[str, str]] = field(default_factory=list)
    """(response, gold) of wrong answers that were accepted."""
    missed: list[tuple[str, str]] = field(default_factory=list)
    differing: list[tuple[str, str, str]] = field(default_factory=list)
    """Who accepts it, response and gold of mutated responses on which the two readers differ."""

    def read_frac(self) -> float:
        """Share of right generated answers that were read as right."""
        return self.counts["right, read"] / max(1, self.counts["right"])


def number(rng: random.Random) -> Fraction:
    """Return a number as answers have it."""
    kind = rng.randrange(6)
    value = Fraction(rng.randrange(1, 10 ** rng.randrange(1, 7)))
    if kind == 4:
        value = Fraction(rng.randrange(1, 9999), 100)
    elif kind == 5:
        value = Fraction(rng.randrange(1, 12), rng.randrange(2, 12))
    return -value if rng.random() < 0.1 else value


def shown(value: Fraction, rng: random.Random) -> str:
    """Write a number in one of its usual forms."""
    whole = value.denominator == 1
    is_decimal = 100 % value.denominator == 0
    forms: list[Callable[[], str]] = [lambda: str(value)]
    if whole:
        forms += [lambda: f"{value.numerator:,}", lambda: f"{value.numerator}.00"]
        forms += [
            lambda: f"${value.numerator:,}".replace("$-", "-$"),
            lambda: f"${value.numerator}$",
        ]
        forms += [
            lambda: str(value).translate(
                dict(zip(range(48, 58), range(0xFF10, 0xFF1A), strict=True))
            )
        ]
        forms += [lambda: str(value).replace("-", "\u2212"), lambda: f"{value.numerator}%"]
    elif is_decimal:
        forms += [lambda: f"{float(value):.2f}", lambda: f"${float(value):.2f}".replace("$-", "-$")]
    else:
        sign = "-" if value < 0 else ""
        forms = [lambda: f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"]
        forms += [lambda: str(value)]
    return rng.choice(forms)()


def filled(template: str, rng: random.Random, answer: str = "") -> str:
    """Fill a template with an answer, and with numbers that are not."""
    other = {name: str(rng.randrange(2, 99)) for name in "abc"}
    return template.format(answer, **other)


def response(value: Fraction, rng: random.Random) -> str:
    """Return a response whose answer is `value`, with a derivation of other numbers."""
    answer = shown(value, rng)
    if "frac" not in answer and (noun := rng.choice(NOUNS)):
        answer = f"{answer} {noun}"
    last = rng.choice(MARKS if rng.random() < 0.6 else CONCLUSIONS)
    if "boxed" in last:
        answer = shown(value, rng).replace("$", "").replace("%", "\\%")
    steps = [filled(rng.choice(STEPS), rng) for _ in range(rng.randrange(4))]
    return "\n".join([*steps, filled(last, rng, answer)]) + rng.choice(AFTERWORDS)


def mutated(text: str, rng: random.Random) -> str:
    """Change some characters of a text."""
    chars = list(text)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(chars) + 1)
        what = rng.choice(
            [*string.printable, "\u200b", "\uff0c", "\u2212", "\\boxed{", "}", "$", " or "]
        )
        action = rng.randrange(3)
        if action == 0:
            chars.insert(at, what)
        elif at < len(chars):
            chars[at : at + 1] = [] if action == 1 else [what]
    return "".join(chars)


def peer(text: str, gold: str, *, letters: bool = False) -> bool:
    """Return whether math-verify accepts a response."""
    kinds = [LatexExtractionConfig(), ExprExtractionConfig()]
    if letters:
        kinds = [StringExtractionConfig(strings=tuple("ABCDE"))]
    return bool(verify(parse(gold, kinds), parse(text, kinds)))


def fuzz(seconds: float, seed: int = 0) -> Findings:
    """Compare for so long; the same seed gives the same responses."""
    rng, found, end = random.Random(seed), Findings(), time.monotonic() + seconds
    while time.monotonic() < end:
        found.counts["rows"] += 1
        if rng.random() < 0.2:
            _letters(rng, found)
        else:
            _numbers(rng, found)
    return found


def _numbers(rng: random.Random, found: Findings) -> None:
    value, text = number(rng), ""
    gold = str(value) if rng.random() < 0.5 or value.denominator > 1 else f"{value.numerator:,}"
    stated = value if rng.random() < 0.6 else number(rng)
    text = response(stated, rng)
    _note(found, text, gold, stated == value, read(text, "How many?", gold).is_right)
    if rng.random() < 0.3:
        changed = mutated(text, rng)
        ours, theirs = read(changed, "How many?", gold).is_right, peer(changed, gold)
        found.counts["mutated"] += 1
        if ours != theirs:
            found.differing.append(("ours" if ours else "math-verify", changed, gold))


def _letters(rng: random.Random, found: Findings) -> None:
    labels = list("ABCDE")
    gold, stated = rng.choice(labels), rng.choice(labels)
    other = rng.choice([label for label in labels if label != stated])
    text = rng.choice(LETTERS).format(stated, other=other)
    if rng.random() < 0.5:
        text = f"Option ({other}) looks good at first.\n{text}"
    _note(found, text, gold, stated == gold, read(text, "", gold, labels=labels).is_right)


def _note(found: Findings, text: str, gold: str, is_true: bool, is_right: bool) -> None:
    if is_true:
        found.counts["right"] += 1
        found.counts["right, read"] += is_right
        if not is_right:
            found.missed.append((text, gold))
    else:
        found.counts["wrong"] += 1
        if is_right:
            found.accepted.append((text, gold))


def main() -> None:
    """Fuzz, and print what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=20)
    given = parser.parse_args()
    found = fuzz(given.seconds, given.seed)
    print(dict(found.counts), f"read {100 * found.read_frac():.2f} % of the right ones")
    print(f"{len(found.accepted)} wrong ones accepted; {len(found.differing)} mutated ones differ")
    for text, gold in found.accepted[: given.show]:
        print("ACCEPTED", repr(gold), repr(text))
    for text, gold in found.missed[: given.show]:
        print("MISSED", repr(gold), repr(text))
    for who, text, gold in found.differing[: given.show]:
        print("ONLY", who, repr(gold), repr(text))


if __name__ == "__main__":
    main()
