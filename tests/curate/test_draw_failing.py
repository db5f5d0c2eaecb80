"""Draws by measured error, against weighted sampling written out by hand."""

from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from spyhop.collect import Stratum
from spyhop.curate import DrawFailingConfig, draw_failing, join_rows
from spyhop.schema import Answer, InputError, Message, NoConfig, Prompt
from spyhop.store import Artifact
from toys import rows_artifact


def _prompt(n: int, task: str, words: int = 3) -> Prompt:
    text = " ".join(["word"] * words)
    messages = [Message(role="system", content="Be brief."), Message(role="user", content=text)]
    return Prompt(
        id=f"p{n}", query_id=f"q{n}", collection="c", task=task, system_id="s", messages=messages,
        target="7",
    )  # fmt: skip


def _answer(n: int, task: str, *, right: bool, words: int = 3, target: str = "7") -> Answer:
    asked = _prompt(n, task, words)
    said = Message(role="assistant", content="Answer: 7" if right else "Answer: 8")
    return Answer(
        id=asked.id, query_id=asked.query_id, collection="c", task=task, system_id="s",
        messages=[*asked.messages, said], target=target, model="student", finish_reason="stop",
    )  # fmt: skip


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """1,000 prompts of an easy and as many of a hard task, one half of each of them long."""
    rows = [_prompt(n, ("easy", "hard")[n % 2], (3, 30)[n // 2 % 2]) for n in range(2000)]
    return rows_artifact(tmp_path_factory.mktemp("pool"), rows)


def _drawn(folder: Path, pool: Artifact, num: int, **inputs) -> tuple[Artifact, list[Prompt]]:
    strata = (Stratum(by="length", edges=(10,)),)
    made = draw_failing.run(
        folder, DrawFailingConfig(num_rows=num, strata=strata), prompts=pool, **inputs
    )
    return made, list(made.rows(Prompt))


def test_queries_are_drawn_as_often_as_their_stratum_fails(tmp_path: Path, pool: Artifact):
    """Wrong: 1 of 20 easy, 3 of 4 hard and long; hard and short was not asked."""
    answers = [_answer(n, "easy", right=n > 0, words=(3, 30)[n % 2]) for n in range(20)]
    answers += [_answer(n, "hard", right=n % 4 == 0, words=30) for n in range(20, 40)]
    made, rows = _drawn(tmp_path, pool, 250, answers=rows_artifact(tmp_path / "answers", answers))
    found = Counter((row.task, len(row.messages[-1].content) > 50) for row in rows)
    overall = 16 / 40
    weights = {
        ("easy", False): (1 + overall) / 11, ("easy", True): (0 + overall) / 11,
        ("hard", True): (15 + overall) / 21, ("hard", False): overall,
    }  # fmt: skip
    assert len(rows) == 250
    for stratum, weight in weights.items():
        share = weight / sum(weights.values())
        assert found[stratum] == pytest.approx(250 * share, abs=4 * (250 * share) ** 0.5), stratum
    counts = made.record.counts
    assert counts["dev/hard, length from 10"] == 20 and counts["wrong/hard, length from 10"] == 15
    assert counts["left/easy, length below 10"] == 500
    assert counts["drawn/hard, length below 10"] == found["hard", False]


def test_known_queries_are_never_drawn_and_draws_are_nested(tmp_path: Path, pool: Artifact):
    first, dev = _drawn(tmp_path, pool, 500)
    small, _ = _drawn(tmp_path, pool, 300, known={"dev": first})
    _, large = _drawn(tmp_path, pool, 1000, known={"dev": first})
    ids = {row.id for row in large}
    assert {row.id for row in small.rows(Prompt)} < ids and ids.isdisjoint(row.id for row in dev)
    assert [row.id for row in large] == sorted(ids, key=lambda name: int(name[1:]))
    both = join_rows.run(tmp_path, NoConfig(), rows={"old": first, "new": small})
    _, rest = _drawn(tmp_path, pool, 9000, known={"taken": both})
    assert len(rest) == 2000 - 800
    tasks = Counter(row.task for row in dev)
    assert abs(tasks["hard"] - 250) < 4 * 500**0.5 / 2


def test_answers_that_cannot_be_checked_are_one_line(tmp_path: Path, pool: Artifact):
    answers = rows_artifact(tmp_path / "a", [_answer(1, "easy", right=True, target="")])
    with pytest.raises(InputError, match="no answer can be checked; development prompts need gold"):
        _drawn(tmp_path, pool, 10, answers=answers)
    with pytest.raises(ValidationError, match="measured here"):
        DrawFailingConfig(num_rows=1, strata=(Stratum(by="difficulty", edges=(0.5,)),))


def test_a_student_without_errors_draws_from_all_strata(tmp_path: Path, pool: Artifact):
    answers = [_answer(n, "easy", right=True) for n in range(3)]
    _, rows = _drawn(tmp_path, pool, 50, answers=rows_artifact(tmp_path / "a", answers))
    assert {row.task for row in rows} == {"easy", "hard"}
