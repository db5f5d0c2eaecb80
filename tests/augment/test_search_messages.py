"""The search for system messages, with a teacher of known rates and the embedded world's."""

from pathlib import Path

import numpy as np
import pytest

from spyhop import world
from spyhop.augment import SearchMessagesConfig, search_messages
from spyhop.augment.search_messages import still_best
from spyhop.collect import DrawConfig, MessageRate, PairConfig, SystemMessage, draw, pair
from spyhop.models import ModelUse
from spyhop.schema import InputError, Prompt, Query
from spyhop.store import Artifact
from toys import rows_artifact

MESSAGES = tuple(
    SystemMessage(id=name, text=text)
    for name, text in (
        ("answer", "Give only the answer."), ("short", "Reason in a few words."),
        ("steps", "Explain each step."),
    )
)  # fmt: skip


def _queries(folder: Path, num: int = 80) -> Artifact:
    config = world.ProblemsConfig(num_rows=num, families=("coin", "lift"))
    return world.draw_queries.run(folder, config)


def _search(folder: Path, queries: Artifact, **changes) -> dict[tuple[str, str], MessageRate]:
    config = SearchMessagesConfig(**{"messages": MESSAGES, **changes})
    solver = world.SolverConfig(slip_rate=0.15)
    teacher = ModelUse(world.Solver(solver=solver))
    made = search_messages.run(folder, config, queries=queries, teacher=teacher)
    return {(row.family, row.system_id): row for row in made.rows(MessageRate)}


def test_bare_answers_get_most_per_token_and_the_search_stops(tmp_path: Path):
    """All messages get the same slips; a bare answer has a tenth of the tokens."""
    found = _search(tmp_path, _queries(tmp_path))
    assert set(found) == {(f, m.id) for f in ("coin", "lift") for m in MESSAGES}
    for (_, system_id), row in found.items():
        assert row.is_best == (system_id == "answer")
        assert row.num_asked == 16  # two fifths of 40: eight queries are too few to tell
        assert len(row.query_ids) == 40


def test_equal_messages_are_all_kept_and_all_are_asked(tmp_path: Path):
    found = _search(tmp_path, _queries(tmp_path), per="query", messages=MESSAGES[1:])
    assert all(row.is_best and row.num_asked == 40 for row in found.values())


def test_prompts_follow_the_search_and_leave_its_queries_out(tmp_path: Path):
    queries = _queries(tmp_path, 120)
    some = draw.run(tmp_path, DrawConfig(num_rows=80), queries={"all": queries})
    config = SearchMessagesConfig(messages=MESSAGES)
    teacher = ModelUse(world.Solver())
    made = search_messages.run(tmp_path, config, queries=some, teacher=teacher)
    pairing = PairConfig(messages=MESSAGES, shares={"*": {"steps": 1.0}})
    prompts = list(pair.run(tmp_path, pairing, queries=queries, searched=made).rows(Prompt))
    asked = {name for row in made.rows(MessageRate) for name in row.query_ids}
    assert len(asked) == 80 and len(prompts) == 40
    assert asked.isdisjoint(prompt.query_id for prompt in prompts)
    assert {prompt.system_id for prompt in prompts} == {"answer"}
    plain = pair.run(tmp_path, pairing, queries=queries)
    assert plain.num_rows == 120 and {p.system_id for p in plain.rows(Prompt)} == {"steps"}


def _replies(rng, num: int, right: float, tokens: float):
    return np.stack([rng.random(num) < right, rng.poisson(tokens, num)], axis=1).astype(float)


def test_rates_per_token_and_per_query_differ():
    rng = np.random.default_rng(0)
    replies = {"long": _replies(rng, 300, 0.9, 100), "brief": _replies(rng, 300, 0.6, 20)}
    assert still_best(replies, "token", 0.01) == ["brief"]
    assert still_best(replies, "query", 0.01) == ["long"]
    replies["long"][:200] = np.nan  # failed calls are no wrong answers
    assert still_best(replies, "query", 0.01) == ["long"]


def test_an_equal_message_is_seldom_dropped():
    """At the level 0.05 over five looks, at most 5 % of 300 searches drop one (4 sigma)."""
    rng = np.random.default_rng(1)
    dropped = 0
    for _ in range(300):
        replies = {name: _replies(rng, 100, 0.7, 50) for name in ("a", "b")}
        looks = ({name: each[:num] for name, each in replies.items()} for num in range(20, 101, 20))
        dropped += any(len(still_best(some, "token", 0.01)) < 2 for some in looks)
    assert dropped <= 300 * 0.05 + 4 * (300 * 0.05 * 0.95) ** 0.5


def test_two_queries_decide_nothing():
    right, wrong = np.array([[1.0, 9], [1.0, 9]]), np.array([[0.0, 9], [0.0, 9]])
    assert still_best({"a": right, "b": wrong}, "query", 0.01) == ["a", "b"]
    many = {"a": np.repeat(right, 10, axis=0), "b": np.repeat(wrong, 10, axis=0)}
    assert still_best(many, "query", 0.01) == ["a"]


def test_queries_without_gold_answers_cannot_be_searched(tmp_path: Path):
    rows = [Query(id="q", collection="c", task="t", query="Why?", target="")]
    with pytest.raises(InputError, match="no query has a gold answer"):
        _search(tmp_path, rows_artifact(tmp_path / "q", rows))
