"""Which of several answers to a prompt are kept, against rules written out by hand."""

from collections import Counter
from pathlib import Path

import pytest

from spyhop import world
from spyhop.augment import AnswerConfig, PickConfig, answer, keep_chosen, pick_answers
from spyhop.collect import PairConfig, SystemMessage, pair
from spyhop.curate import PreferConfig, prefer
from spyhop.models import ModelUse, Sampling
from spyhop.schema import Answer, InputError, NoConfig, Preference
from spyhop.store import Artifact

NUM, SAMPLES = 40, 5


def _answers(folder: Path, *, scored: bool = True, **flaws: object) -> Artifact:
    drawn = world.ProblemsConfig(num_rows=NUM)
    queries = world.draw_queries.run(folder, drawn)
    told = SystemMessage(id="steps", text="Explain each step.")
    prompts = pair.run(
        folder, PairConfig(messages=(told,), shares={"*": {"steps": 1.0}}), queries=queries
    )
    sampling = Sampling(temperature=1.0, log_probability=scored)
    teacher = ModelUse(world.Solver(solver=world.SolverConfig(**flaws)))
    how = AnswerConfig(num_samples=SAMPLES, sampling=sampling)
    return answer.run(folder, how, prompts=prompts, teacher=teacher)


def _said(row: Answer) -> str:
    return row.messages[-1].content.rpartition("Answer: ")[2]


def _groups(artifact: Artifact) -> dict[str, list[Answer]]:
    groups: dict[str, list[Answer]] = {}
    for row in artifact.rows(Answer):
        groups.setdefault(row.query_id, []).append(row)
    return groups


@pytest.fixture(scope="module")
def slipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact]:
    folder = tmp_path_factory.mktemp("slipped")
    return folder, _answers(folder, slip_rate=0.2)


def test_samples_of_a_slipping_teacher_differ_and_greedy_ones_do_not(slipped):
    groups = _groups(slipped[1])
    assert all(len(rows) == SAMPLES for rows in groups.values())
    assert any(len({_said(row) for row in rows}) > 1 for rows in groups.values())
    assert world.respond(world.SolverConfig(slip_rate=0.2), "", "x") == world.UNKNOWN
    first = next(iter(groups.values()))[0]
    query = first.messages[-2].content
    alone = world.respond(world.SolverConfig(slip_rate=0.2), "Explain each step.", query)
    assert first.messages[-1].content == alone


@pytest.mark.parametrize("keep", ["all", "verified", "majority", "shortest", "likely"])
def test_each_rule_keeps_what_it_says(slipped, keep: str):
    folder, answers = slipped
    kept = pick_answers.run(folder, PickConfig(keep=keep), answers=answers)
    expected = []
    for rows in _groups(answers).values():
        right = [row for row in rows if _said(row) == row.target]
        votes = Counter(_said(row) for row in rows)
        first = {said: n for n, said in reversed(list(enumerate(map(_said, rows))))}
        most = min(votes, key=lambda said: (-votes[said], first[said]))
        expected += {
            "all": rows,
            "verified": right,
            "majority": [row for row in rows if _said(row) == most],
            "shortest": sorted(right, key=lambda row: len(row.messages[-1].content))[:1],
            "likely": sorted(rows, key=lambda row: -(row.log_probability or 0.0))[:1],
        }[keep]
    assert [row.id for row in kept.rows(Answer)] == [row.id for row in expected]
    counts = kept.record.counts
    assert counts["prompts"] == NUM
    assert counts["right"] == sum(_said(row) == row.target for row in expected)
    assert kept.num_rows + sum(kept.record.dropped.values()) == answers.num_rows


def test_fixed_misconceptions_pass_every_filter_but_the_gold_answer(tmp_path: Path):
    """Samples agree with one another, right or wrong: a vote cannot find what they share."""
    answers = _answers(tmp_path, misconceptions=True)
    found = {}
    for keep in ("all", "majority", "verified"):
        counts = pick_answers.run(tmp_path, PickConfig(keep=keep), answers=answers).record.counts
        found[keep] = counts["right"] / counts["checked"]
    assert found["majority"] == found["all"] < 0.8 and found["verified"] == 1.0


def test_the_most_likely_needs_log_probabilities(tmp_path: Path):
    answers = _answers(tmp_path, scored=False)
    with pytest.raises(InputError, match=r"set sampling\.log_probability = true"):
        pick_answers.run(tmp_path, PickConfig(keep="likely"), answers=answers)


def test_the_chosen_answers_of_pairs_are_the_first_right_ones_of_mixed_groups(slipped):
    """Pairs of a slipping teacher's own answers: outcomes follow from the gold answers."""
    folder, answers = slipped
    pairs = prefer.run(folder, PreferConfig(), chosen={"answers": answers})
    kept = keep_chosen.run(folder, NoConfig(), answers=answers, pairs=pairs)
    wanted = []
    for rows in _groups(answers).values():
        right = [row for row in rows if _said(row) == row.target]
        wrong = [row for row in rows if _said(row) != row.target]
        wanted += [(right[0], wrong[0])] if right and wrong else []
    assert 0 < len(wanted) < NUM
    assert list(kept.rows(Answer)) == [row for row, _ in wanted]
    assert [(row.chosen, row.rejected, row.reason) for row in pairs.rows(Preference)] == [
        (right.messages[-1].content, wrong.messages[-1].content, "right > wrong")
        for right, wrong in wanted
    ]
    counts = kept.record.counts
    assert counts["prompts"] == NUM and counts["prompts/kept"] == counts["right"] == len(wanted)
    assert kept.record.dropped == {"not_chosen": NUM * SAMPLES - len(wanted)}
    assert counts["asked/response_tokens"] == sum(r.response_tokens for r in answers.rows(Answer))
