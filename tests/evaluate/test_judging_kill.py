"""Ten thousand judgements by a served judge, killed on the way."""

import os
from collections import Counter
from pathlib import Path

import pytest

import toys
from asking import KEY_ENV, REMOTE, SPAWN, service, until
from server import KEY, Server
from spyhop.evaluate.judging import JudgeConfig, judge
from spyhop.models import ModelUse
from spyhop.schema import Question, Response, Verdict
from spyhop.store import Artifact

NUM, CONCURRENCY = 4_550, 64


def _inputs(root: Path) -> tuple[Artifact, dict[str, Artifact]]:
    names = [f"q{n}" for n in range(NUM)]
    asked = [Question(id=name, suite="toy", turns=[f"What is {name}?"]) for name in names]
    answers = {
        model: [Response(id=name, turns=[f"{model}: {name}"]) for name in names] for model in "xy"
    }
    return toys.rows_artifact(root / "asked", asked), {
        model: toys.rows_artifact(root / model, rows) for model, rows in answers.items()
    }


def _judge(root: str, url: str) -> None:
    os.environ[KEY_ENV] = KEY
    questions, answers = _inputs(Path(root) / "inputs")
    use = ModelUse(REMOTE, service=service(url, concurrency=CONCURRENCY))
    judge.run(Path(root), JudgeConfig(), questions=questions, answers=answers, judge=use)


@pytest.mark.slow
def test_ten_thousand_judgements_resume_after_kills_with_none_asked_again(tmp_path: Path):
    root = str(tmp_path)
    with Server(answer=lambda call: "It is better.\nVerdict: A") as server:
        for num in (1_000, 4_000, 7_000):
            process = SPAWN.Process(target=_judge, args=(root, server.url))
            process.start()
            until(lambda num=num: sum(server.billed().values()) >= num, 60)
            process.kill()
            process.join()
        process = SPAWN.Process(target=_judge, args=(root, server.url))
        process.start()
        process.join(120)
        assert process.exitcode == 0
        billed = Counter(server.billed().values())
    questions, answers = _inputs(tmp_path / "inputs")
    use = ModelUse(REMOTE, service=service(server.url, concurrency=CONCURRENCY))
    found = judge.find(
        tmp_path, JudgeConfig(), {"questions": questions, "answers": answers, "judge": use}
    )
    assert found is not None
    rows = list(found.rows(Verdict))
    assert len(rows) == 2 * (NUM + 455) == 10_010
    assert Counter(row.winner for row in rows) == {"a": 5_005, "b": 5_005}
    assert sum(billed.values()) == 10_010, "every judgement is asked for"
    again = sum((times - 1) * num for times, num in billed.items())
    assert again <= 3 * CONCURRENCY, "only what was in flight at a kill"
