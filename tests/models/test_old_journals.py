"""Replies that earlier versions paid for still answer: no key of an endpoint request changes.

`golden/endpoint_journal.sql` was written by commit 270d617 against the tests' own server.
"""

import sqlite3
from pathlib import Path

import pytest

from asking import KEY_ENV, REMOTE, opened, requests, service
from spyhop.models import ModelUse, Request, Sampling
from spyhop.models.endpoint import Remote
from spyhop.schema import Message

DUMP = Path(__file__).parents[1] / "golden" / "endpoint_journal.sql"
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
WEIGHED = [
    Request(
        id="c0",
        messages=[
            Message(role="system", content="Judge."),
            Message(role="user", content="Which é?"),
        ],
        options=("A", "B", "C"),
    ),
    Request(
        id="c1",
        messages=[Message(role="user", content="Which?")],
        options=("A", "B", "C"),
        continuation="Verdict: ",
    ),
]

DRAWN = Sampling(max_new_tokens=40, temperature=0.7, top_p=0.9)


def test_a_journal_of_270d617_answers_and_nothing_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, "no server knows it")
    identity, dump = DUMP.read_text().removeprefix("-- ").split("\n", 1)
    (tmp_path / ".journal").mkdir()
    db = sqlite3.connect(tmp_path / ".journal" / f"{identity}.sqlite")
    db.executescript(dump)
    db.close()
    answered = [each for each in requests(8) if each.id != "r3"]  # the fourth was rejected
    nowhere = service("http://127.0.0.1:1/v1", at_all={"max_attempts": 1})
    with opened(tmp_path, nowhere) as (model, ctx):
        replies = list(model.generate(answered, Sampling(max_new_tokens=40)))
        drawn = list(model.generate(requests(3, samples=3), DRAWN))
        shaped = Sampling(max_new_tokens=40, log_probability=True, json_schema=SCHEMA)
        (as_json,) = model.generate(requests(1), shaped)
        choices = list(model.choose(WEIGHED))
    assert [each.finish_reason for each in replies] == [
        "stop", "stop", "stop", "content_filter", "length", "stop", "stop",
    ]  # fmt: skip
    assert [each.text for each in replies[:3]] == ["re: number 0", "re: number 1", "re: number 2"]
    assert replies[2].reasoning == "because"
    assert [each.id for each in drawn] == [
        f"r{n}.{sample}" for n in range(3) for sample in range(3)
    ]
    assert as_json.log_probability == pytest.approx(-2.266, abs=1e-3)
    assert all(each.probabilities[1] == pytest.approx(0.9, abs=1e-3) for each in choices)
    assert "failed_attempts/lost" not in ctx.usage


def test_the_identity_of_a_served_model_is_as_it_was() -> None:
    dated = Remote(
        model="gpt-4o", revision="2024-08-06", extra={"reasoning_effort": "low"}, omit=("seed",)
    )
    assert ModelUse(REMOTE).digest == "21e50d4a9912293c"
    assert ModelUse(dated).digest == "1133a7b2ec432394"
