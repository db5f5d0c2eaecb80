"""The imitation audit against students whose gains are planted, under two judges with known faults.

python benchmarks/audit.py [--seeds 0 10] [--items 30] [--families core|hard]

Base, students and teacher are solvers of the embedded world that differ in one thing each:

    base        short explanations, half of the steps wrong
    style       the teacher's form, half of the steps wrong
    reasoning   the base's form, true steps
    both        the teacher's form, true steps
"""

import argparse
import json
import platform
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from spyhop import world
from spyhop.evaluate.audit import Audit, AuditItem, audit_items
from spyhop.world.judge import JudgeRules, prefer
from spyhop.world.solver import SolverConfig, respond
from spyhop.world.stages import draw_problems

Gain = Literal["style", "reasoning", "both"]
WEAK, STRONG = 0.5, 0.03
"""Share of steps that go wrong."""
PLANTED: dict[Gain, tuple[float, str]] = {
    "style": (WEAK, "steps"),
    "reasoning": (STRONG, "short"),
    "both": (STRONG, "steps"),
}
FAMILIES = {
    "hard": ("lift", "count", "days", "letters", "sums"),
    "core": world.CORE,
    "all": tuple(world.FAMILIES),
}
"""`hard`: a guess is right in at most one of seven cases. `core`: in up to one of two."""
JUDGES = ("style", "answers")
TEXTS = 200
"""Of the teacher, on other problems."""


@dataclass(frozen=True)
class Trial:
    """One audit whose right conclusion is known."""

    seed: int
    planted: str
    judge: str
    found: Audit


def trials(seeds: range, num_items: int, families: str) -> Iterator[Trial]:
    """Audit each planted student under each judge, with each seed."""
    for seed in seeds:
        drawn = world.ProblemsConfig(families=FAMILIES[families], num_rows=num_items, seed=seed)
        problems = list(draw_problems(drawn, "test"))
        taught = world.ProblemsConfig(families=FAMILIES[families], num_rows=TEXTS, seed=seed)
        teacher = [_ask(0.0, "steps", 0, each.text) for each in draw_problems(taught, "train")]
        for planted, (slips, style) in PLANTED.items():
            for rewards in JUDGES:
                rules = JudgeRules(rewards=rewards, seed=seed)
                items = [_item(each, slips, style, rules, seed) for each in problems]
                yield Trial(seed, planted, rewards, audit_items(items, teacher))


def _ask(slips: float, style: str, seed: int, question: str) -> str:
    return respond(SolverConfig(slip_rate=slips, seed=seed), world.BY_ID[style].text, question)


def _item(
    problem: world.Problem, slips: float, style: str, rules: JudgeRules, seed: int
) -> AuditItem:
    base = _ask(WEAK, "short", 2 * seed, problem.text)
    student = _ask(slips, style, 2 * seed + 1, problem.text)
    value = {"first": 1.0, "second": -1.0, "tie": 0.0}
    return AuditItem(
        base=base,
        student=student,
        base_right=base.endswith(f"Answer: {problem.target}"),
        student_right=student.endswith(f"Answer: {problem.target}"),
        student_first=value[prefer(rules, problem.text, student, base)],
        student_second=-value[prefer(rules, problem.text, base, student)],
    )


def main() -> None:
    """Print a table of the conclusions, and every one that is not right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 10), metavar=("FIRST", "END"))
    parser.add_argument("--items", type=int, default=30)
    parser.add_argument("--families", choices=FAMILIES, default="hard")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = list(trials(range(*given.seeds), given.items, given.families))
    if given.json:
        print(json.dumps([asdict(trial) for trial in found], indent=1))
        return
    print(f"{platform.machine()}, Python {platform.python_version()}; n = {given.items}")
    print("| planted | judge | right | cannot tell | wrong |\n|---|---|---|---|---|")
    for planted in PLANTED:
        for judge in JUDGES:
            some = [t for t in found if (t.planted, t.judge) == (planted, judge)]
            said = Counter(t.found.conclusion for t in some)
            wrong = len(some) - said[planted] - said["cannot tell"]
            print(f"| {planted} | {judge} | {said[planted]} | {said['cannot tell']} | {wrong} |")
    for trial in found:
        if trial.found.conclusion != trial.planted:
            print(f"\nseed {trial.seed}, {trial.planted}, {trial.judge}: {trial.found.sentence}")


if __name__ == "__main__":
    main()
