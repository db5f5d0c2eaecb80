from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from scipy import stats

import toys
from spyhop.collect import (
    PairConfig,
    SubsetConfig,
    SystemMessage,
    draw_subset,
    orca_messages,
    orca_shares,
    pair,
)
from spyhop.collect.prompts import PromptQueriesConfig, prompt_queries
from spyhop.schema import InputError, Message, Prompt, Query, RecipeError
from spyhop.store import Artifact

A, B = SystemMessage(id="a", text="Explain."), SystemMessage(id="b", text="")
MC = SystemMessage(id="mc", text="Choose.", is_multiple_choice_only=True)
ORCA = PairConfig(messages=orca_messages(), shares=orca_shares())


def _queries(folder: Path, num: int, **changes: Any) -> Artifact:
    return toys.rows_artifact(folder, [toys.query(place, **changes) for place in range(num)])


def _paired(root: Path, config: PairConfig, queries: Artifact) -> list[Prompt]:
    return list(pair.run(root, config, queries=queries).rows(Prompt))


def _within(counts: Counter[str], shares: dict[str, float]) -> None:
    """Every count lies where it would with a chance of 0.999."""
    num, total = sum(counts.values()), sum(shares.values())
    for name, share in shares.items():
        low, high = stats.binom.interval(0.999, num, share / total)
        assert low <= counts[name] <= high, (name, counts[name], low, high)
    assert set(counts) == set(shares)


def test_prompts_keep_what_the_query_says(tmp_path: Path):
    config = PairConfig(messages=(A,), shares={"cot": {"a": 1}})
    (prompt,) = _paired(tmp_path, config, _queries(tmp_path / "q", 1))
    assert prompt.messages == [
        Message(role="system", content="Explain."),
        Message(role="user", content="Question 0?"),
    ]
    assert (prompt.query_id, prompt.target, prompt.system_id) == ("q0", "0", "a")


def test_an_empty_message_has_no_turn(tmp_path: Path):
    config = PairConfig(messages=(B,), shares={"*": {"b": 1}})
    (prompt,) = _paired(tmp_path, config, _queries(tmp_path / "q", 1))
    assert [turn.role for turn in prompt.messages] == ["user"]


def test_more_rows_change_no_other_row(tmp_path: Path):
    few = _paired(tmp_path, ORCA, _queries(tmp_path / "few", 50))
    many = _paired(tmp_path, ORCA, _queries(tmp_path / "many", 200))
    assert many[:50] == few
    assert len({row.id for row in many}) == 200


def test_the_seed_changes_the_choice(tmp_path: Path):
    queries = _queries(tmp_path / "q", 200)
    other = ORCA.model_copy(update={"seed": 1})
    one, two = (_paired(tmp_path, config, queries) for config in (ORCA, other))
    same = sum(a.system_id == b.system_id for a, b in zip(one, two, strict=True))
    assert 30 < same < 110


@pytest.mark.parametrize("collection", ["cot", "niv2"])
def test_shares_are_met(tmp_path: Path, collection: str):
    rows = _paired(tmp_path, ORCA, _queries(tmp_path / "q", 4_000, collection=collection))
    _within(Counter(row.system_id for row in rows), orca_shares()[collection])


def test_flan_2021_at_half_multiple_choice(tmp_path: Path):
    rows = [toys.query(n, collection="flan2021", multiple_choice=n % 2 == 0) for n in range(6_000)]
    paired = _paired(tmp_path, ORCA, toys.rows_artifact(tmp_path / "q", rows))
    shares = {"8": 10.0, "10": 10.0, "3": 26.7, "4": 26.7, "7": 26.7}
    _within(Counter(row.system_id for row in paired), shares)


def test_multiple_choice_messages_are_for_multiple_choice_only(tmp_path: Path):
    config = PairConfig(messages=(A, MC), shares={"*": {"a": 1, "mc": 99}})
    for is_choice in (True, False):
        queries = _queries(tmp_path / f"q{is_choice}", 100, multiple_choice=is_choice)
        given = {row.system_id for row in _paired(tmp_path, config, queries)}
        assert ("mc" in given) == is_choice and (is_choice or given == {"a"})


def test_a_weight_of_zero_is_never_drawn(tmp_path: Path):
    config = PairConfig(messages=(A, B), shares={"*": {"a": 1, "b": 0}})
    assert {r.system_id for r in _paired(tmp_path, config, _queries(tmp_path / "q", 50))} == {"a"}


@pytest.mark.parametrize(
    ("messages", "shares", "line"),
    [
        ((A,), {"cot": {"a": 1, "x": 1, "y": 0}}, r"'cot' name the system messages \['x', 'y'\]"),
        ((A, A), {"*": {"a": 1}}, r"two system messages have the same id"),
    ],
)
def test_shares_of_unknown_messages_are_refused_before_anything_runs(messages, shares, line: str):
    with pytest.raises(ValidationError, match=line):
        PairConfig(messages=messages, shares=shares)


@pytest.mark.parametrize(
    ("messages", "shares", "line"),
    [
        ((A,), {"niv2": {"a": 1}}, r"no shares of system messages for collection 'cot'"),
        ((MC,), {"*": {"mc": 1}}, r"'cot' has no system message for q0"),
    ],
)
def test_shares_that_do_not_fit_the_queries_are_refused(
    tmp_path: Path, messages, shares, line: str
):
    config = PairConfig(messages=messages, shares=shares)
    with pytest.raises(RecipeError, match=line):
        _paired(tmp_path, config, _queries(tmp_path / "q", 1))


def test_the_sixteen_messages():
    messages = orca_messages()
    assert [message.id for message in messages] == [str(n) for n in range(1, 17)]
    assert len({message.text for message in messages}) == 16 and messages[0].text == ""
    assert [m.id for m in messages if m.is_multiple_choice_only] == ["8", "10"]
    used = {name for shares in orca_shares().values() for name in shares}
    assert used == {message.id for message in messages}
    assert set(orca_shares()) == {"cot", "niv2", "t0", "flan2021"}
    for shares in orca_shares().values():
        assert all(share > 0 for share in shares.values())


@pytest.fixture
def prompts(tmp_path: Path) -> Artifact:
    return pair.run(tmp_path, ORCA, queries=_queries(tmp_path / "q", 300))


def _ids(root: Path, prompts: Artifact, num: int, seed: int = 0) -> list[str]:
    config = SubsetConfig(num_rows=num, seed=seed)
    return [row.id for row in draw_subset.run(root, config, prompts=prompts).rows(Prompt)]


def test_subsets_are_nested_and_keep_the_order(tmp_path: Path, prompts: Artifact):
    whole = [row.id for row in prompts.rows(Prompt)]
    sizes = (1, 10, 100, 299)
    drawn = [_ids(tmp_path, prompts, num) for num in sizes]
    assert [len(each) for each in drawn] == list(sizes)
    for small, large in pairwise(drawn):
        assert set(small) < set(large)
        assert large == [name for name in whole if name in set(large)]
    assert _ids(tmp_path, prompts, 500) == whole
    assert set(_ids(tmp_path, prompts, 100, seed=1)) != set(drawn[2])


def test_a_subset_does_not_depend_on_the_order(tmp_path: Path, prompts: Artifact):
    turned = toys.rows_artifact(tmp_path / "turned", list(prompts.rows(Prompt))[::-1])
    assert sorted(_ids(tmp_path, turned, 50)) == sorted(_ids(tmp_path, prompts, 50))


def test_a_subset_is_uniform(tmp_path: Path, prompts: Artifact):
    places = {row.id: place for place, row in enumerate(prompts.rows(Prompt))}
    drawn = [places[name] for seed in range(20) for name in _ids(tmp_path, prompts, 30, seed)]
    assert stats.kstest(drawn, stats.uniform(0, 300).cdf).pvalue > 1e-3


def test_queries_of_unknown_collections_use_the_star(tmp_path: Path):
    config = PairConfig(messages=(A, B), shares={"cot": {"a": 1}, "*": {"b": 1}})
    rows = [toys.query(1), toys.query(2, collection="world")]
    queries = toys.rows_artifact(tmp_path / "q", rows)
    assert [row.system_id for row in _paired(tmp_path, config, queries)] == ["a", "b"]
    assert all(isinstance(row, Query) for row in rows)


def test_the_other_reading_of_the_multiple_choice_rule(tmp_path: Path):
    num = 10_000
    rows = [toys.query(n, collection="flan2021", multiple_choice=n % 5 == 0) for n in range(num)]
    config = ORCA.model_copy(update={"choice_rule": "always"})
    made = pair.run(tmp_path, config, queries=toys.rows_artifact(tmp_path / "q", rows))
    counts = Counter(row.system_id for row in made.rows(Prompt))
    _within(counts, {"3": 80 / 3, "4": 80 / 3, "7": 80 / 3, "8": 10, "10": 10})
    assert counts["8"] + counts["10"] == num // 5
    assert made.record.counts["multiple_choice/flan2021"] == num // 5


def test_without_messages_of_its_own_multiple_choice_is_like_the_rest(tmp_path: Path):
    config = ORCA.model_copy(update={"choice_rule": "always"})
    prompts = _paired(tmp_path, config, _queries(tmp_path / "q", 30, multiple_choice=True))
    assert {prompt.system_id for prompt in prompts} == {"6", "11", "16"}


def _own(folder: Path, *prompts: Prompt) -> Artifact:
    return toys.rows_artifact(folder, list(prompts))


def _prompt(name: str, *turns: tuple[str, str]) -> Prompt:
    messages = [Message(role=role, content=text) for role, text in turns]  # type: ignore[arg-type]
    system = "given" if turns[0][0] == "system" else "none"
    return Prompt(
        id=name, query_id=name, collection="prompts", task="t", system_id=system,
        messages=messages, target="gold",
    )  # fmt: skip


def test_own_prompts_keep_their_turns_and_their_system_message(tmp_path: Path):
    with_system = _prompt("s", ("system", "Be kind."), ("user", "Hi"))
    turns = _prompt("t", ("user", "One?"), ("assistant", "1"), ("user", "Two?"))
    own = _own(tmp_path / "own", with_system, turns)
    read = prompt_queries.run(tmp_path, PromptQueriesConfig(collection="mine"), prompts=own)
    texts = {row.id: row.query for row in read.rows(Query)}
    assert texts == {"s": "Be kind.\n\nHi", "t": "One?\n\n1\n\nTwo?"}
    mixed = toys.rows_artifact(tmp_path / "q", [*read.rows(Query), toys.query(0)])
    config = PairConfig(messages=(A,), shares={"*": {"a": 1}})
    found = pair.run(tmp_path, config, queries=mixed, own={"mine": own})
    rows = {row.query_id: row for row in found.rows(Prompt)}
    assert rows["s"].messages == with_system.messages and rows["s"].system_id == "given"
    assert rows["t"].messages == [Message(role="system", content="Explain."), *turns.messages]
    assert [turn.content for turn in rows["q0"].messages] == ["Explain.", "Question 0?"]
    assert {rows[name].collection for name in "st"} == {"mine"}
    assert {rows[name].target for name in "st"} == {"gold"}
    assert len({row.id for row in rows.values()}) == 3
    assert list(pair.run(tmp_path, config, queries=_queries(tmp_path / "r", 1)).rows(Prompt)) == [
        rows["q0"]
    ]


def test_two_own_prompts_of_one_id_are_refused(tmp_path: Path):
    both = {n: _own(tmp_path / n, _prompt("1", ("user", n))) for n in ("a", "b")}
    config = PairConfig(messages=(A,), shares={"*": {"a": 1}})
    with pytest.raises(
        InputError, match="two collections have a prompt with the id '1'; remove ids"
    ):
        pair.run(tmp_path, config, queries=_queries(tmp_path / "q", 1), own=both)
