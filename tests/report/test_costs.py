"""Cost of a point, against regressions and counts written out by hand."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from spyhop import world
from spyhop.augment import (
    AnswerConfig,
    FilterAnswersConfig,
    PickConfig,
    answer,
    filter_answers,
    pick_answers,
)
from spyhop.collect import PairConfig, SubsetConfig, SystemMessage, draw_subset, pair
from spyhop.models import ModelUse, Sampling
from spyhop.report.costs import (
    CostedStudent,
    item_slopes,
    mean_student,
    point_cost_section,
    ranking,
    teacher_cost,
)
from spyhop.report.page import ReportConfig, _cost_sections
from spyhop.schema import Answer, Score
from spyhop.store import Artifact, Record
from toys import rows_artifact


def _student(
    gains, *, read: float = 0, written: float = 0, usd: float = 0, trained: float = 0
) -> CostedStudent:
    cost = Counter({"prompt_tokens": read, "response_tokens": written, "usd": usd})
    return CostedStudent(np.asarray(gains, dtype=float), cost, trained)


def test_slopes_are_least_squares_through_the_base():
    sizes = [_student([0.1, 0.3], usd=1), _student([0.5, 0.1], usd=2), _student([0.6, 0.9], usd=4)]
    for place in range(2):
        x, y = np.array([[1.0], [2.0], [4.0]]), [each.gains[place] for each in sizes]
        expected = np.linalg.lstsq(x, np.array(y), rcond=None)[0][0]
        assert item_slopes(sizes, "usd")[place] == pytest.approx(expected)
    assert item_slopes(sizes[:1], "usd") == pytest.approx([0.1, 0.3])
    assert _student([0], read=3e6, written=2e6).usd == pytest.approx(3 + 8)


def test_a_ranking_is_resolved_by_what_items_show():
    rng = np.random.default_rng(0)
    good = [_student(rng.random(400) < 0.6, usd=size) for size in (1, 2)]
    poor = [_student(rng.random(400) < 0.3, usd=size) for size in (1, 2)]
    assert ranking({"poor": poor, "good": good}, looks=3) == (["good", "poor"], True)
    same = [_student(rng.random(400) < 0.6, usd=size) for size in (1, 2)]
    assert not ranking({"same": same, "good": good, "poor": poor}, looks=3)[1]
    dear = [_student(each.gains, usd=4 * each.usd) for each in good]
    assert ranking({"dear": dear, "poor": poor}, looks=1)[0] == ["poor", "dear"]


def test_false_resolutions_keep_to_the_level():
    """Two equal arms, ranked at three sizes: at most 5 % of 400 pilots resolve (4 sigma)."""
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(400):
        grown: dict[str, list[CostedStudent]] = {"a": [], "b": []}
        is_resolved = False
        for size in (1, 2, 4):
            for some in grown.values():
                some.append(_student(rng.random(100) < 0.3, usd=size))
            is_resolved = is_resolved or ranking(grown, looks=3)[1]
        found += is_resolved
    assert found <= 400 * 0.05 + 4 * (400 * 0.05 * 0.95) ** 0.5


def test_the_cost_of_answers_is_what_their_teacher_read_and_wrote(tmp_path: Path):
    queries = world.draw_queries.run(tmp_path, world.ProblemsConfig(num_rows=40))
    told = SystemMessage(id="steps", text="Explain each step.")
    pairing = PairConfig(messages=(told,), shares={"*": {"steps": 1.0}})
    prompts = pair.run(tmp_path, pairing, queries=queries)
    teacher = ModelUse(world.Solver(solver=world.SolverConfig(slip_rate=0.2)))
    how = AnswerConfig(num_samples=2, sampling=Sampling(temperature=1.0))
    answers = answer.run(tmp_path, how, prompts=prompts, teacher=teacher)
    rows = list(answers.rows(Answer))
    whole = sum(row.response_tokens for row in rows)
    assert teacher_cost(tmp_path, answers)["response_tokens"] == whole
    picked = pick_answers.run(tmp_path, PickConfig(keep="verified"), answers=answers)
    assert picked.num_rows < len(rows)  # dropped answers were paid for
    assert teacher_cost(tmp_path, picked)["response_tokens"] == whole
    part = filter_answers.run(tmp_path, FilterAnswersConfig(num_rows=20), answers=answers)
    assert teacher_cost(tmp_path, part)["response_tokens"] == pytest.approx(whole / 4)
    few = draw_subset.run(tmp_path, SubsetConfig(num_rows=10), prompts=prompts)
    again = answer.run(tmp_path, how, prompts=few, teacher=teacher)  # every reply is journaled
    shared = sum(row.response_tokens for row in again.rows(Answer))
    assert teacher_cost(tmp_path, again)["response_tokens"] == shared > 0


def test_the_table_ranks_paid_arms_then_lists_the_others_and_needs_two():
    arms = {"free": [_student([1, 1], trained=2e6)], "base": [_student([0, 0])]}
    assert point_cost_section(arms, "the base") == []
    arms |= {name: [_student(gains, written=10, trained=1e6)] for name, gains in
             {"a": [0, 1], "b": [1, 1]}.items()}  # fmt: skip
    (made,) = point_cost_section(arms, "the base")
    text = "".join(made.blocks)
    assert text.index("<td>b") < text.index("<td>a") < text.index("<td>free")
    assert "<td>base" not in text and text.count("+100.0") >= 2  # 1 point an item per million
    (alone,) = point_cost_section({"x": arms["free"], "y": arms["free"]}, "guessing")
    assert "dollars" not in "".join(alone.blocks).split("</table>")[0].split("<table")[1]


def test_seeds_count_by_their_mean():
    seeds = [_student([0, 1], written=10, trained=1), _student([1, 1], written=30, trained=3)]
    found = mean_student(seeds)
    assert found.gains.tolist() == [0.5, 1.0] and found.tokens == 20 and found.trained == 2


def test_rounds_and_further_bases_gain_over_their_own_base(tmp_path: Path):
    right = {"base": 0, "student": 2, "round-1": 4, "base-neox": 4, "student-neox": 5}
    scores = {
        name: rows_artifact(tmp_path / name, [
            Score(id=f"i{n}", suite="s", task="t", response="", target="x", extracted="x",
                  correct=n < num, chance=0, finish_reason="stop", response_tokens=1)
            for n in range(10)
        ])
        for name, num in right.items()
    }  # fmt: skip
    usage = {"prompt_tokens": 10.0, "response_tokens": 10.0}
    record = Record(
        key="k", stage="train.tune", version=1, config={}, inputs={}, digest="d", usage=usage
    )
    config = ReportConfig(title="t", phases={n: (n,) for n in right if not n.startswith("base")})
    students = {
        name: Artifact(tmp_path, record.model_copy(update={"key": name})) for name in config.phases
    }
    (tmp_path / "metrics.json").write_text('{"tokens": 1000}')
    (made,) = _cost_sections(tmp_path, config, students, scores)
    gains = re.findall(r"<td[^>]*>(\+\d+\.\d) \[", "".join(made.blocks))[::4]
    assert gains == ["+40.0", "+20.0", "+10.0"]
