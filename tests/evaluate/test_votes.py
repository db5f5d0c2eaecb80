"""Votes of people: pairs, the page's file read back, agreement, screening, people and judges."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from spyhop.evaluate.votes import read_pairs, read_verdicts, read_votes, tallies
from spyhop.schema import InputError, SpyhopError, Verdict
from spyhop.statistics.agreement import krippendorff_alpha


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def _saved(folder: Path, rater: str, winners: str, screening: str = "", **changes) -> Path:
    """A file of votes: `a`, `b` or `t` for each item, `+` or `-` for each screening item."""
    names = {"a": "a", "b": "b", "t": "tie"}
    votes = [
        {"item_id": f"q{n}", "a": "ours", "b": "theirs", "order": "ab", "winner": names[winner]}
        for n, winner in enumerate(winners)
    ] + [
        {"item_id": f"s{n}", "a": "better", "b": "worse", "order": "ba", "suite": "screening",
         "winner": "a" if sign == "+" else "tie"}
        for n, sign in enumerate(screening)
    ]  # fmt: skip
    rows = [{"id": f"{vote['item_id']}/{rater}", "judge": rater, **vote} for vote in votes]
    changed = [row if row.get("suite") else {**row, **changes} for row in rows]
    return _write(folder / f"{rater}.jsonl", changed)


def test_pairs_are_matched_by_id_or_by_question(tmp_path: Path):
    ours = [{"id": f"q{n}", "question": f"ask {n}", "response": f"ours {n}"} for n in range(4)]
    theirs = [{"id": f"q{n}", "instruction": f"ask {n}", "output": f"t {n}"} for n in (3, 1, 9)]
    first, second = _write(tmp_path / "ours.jsonl", ours), _write(tmp_path / "t.jsonl", theirs)
    names, pairs = read_pairs(first, second)
    assert names == ("ours", "t") and [pair.id for pair in pairs] == ["q1", "q3"]
    messages = [{"role": "user", "content": "ask 2"}, {"role": "assistant", "content": "m"}]
    third = _write(tmp_path / "m.jsonl", [{"messages": messages}])
    (pair,) = read_pairs(first, third)[1]
    assert (pair.question, pair.a, pair.b) == ("ask 2", "ours 2", "m")


def test_models_are_named_by_their_rows_or_files(tmp_path: Path):
    row = {"id": "q", "question": "ask", "response": "one"}
    first = _write(tmp_path / "x" / "scores.jsonl", [{**row, "model": "whale"}])
    second = _write(tmp_path / "y" / "scores.jsonl", [{**row, "response": "two"}])
    third = _write(tmp_path / "z" / "scores.jsonl", [{**row, "response": "three"}])
    assert read_pairs(first, second)[0] == ("whale", "scores")
    assert read_pairs(second, third)[0] == ("y/scores", "z/scores")


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ([{"question": "other", "response": "x"}], "no question of .* is among its rows"),
        ([{"question": "ask", "response": "one"}], "all responses are equal"),
        ([{"question": "ask"}], "no 'response'"),
    ],
)
def test_files_without_a_pair_are_refused(tmp_path: Path, theirs: list, message: str):
    first = _write(tmp_path / "a.jsonl", [{"question": "ask", "response": "one"}])
    with pytest.raises(InputError, match=message):
        read_pairs(first, _write(tmp_path / "b.jsonl", theirs))


def test_screening_items_are_pairs_of_their_own(tmp_path: Path):
    row = {"question": "ask", "response": "one"}
    rows = [{"question": f"s{n}", "better": "good", "worse": "bad"} for n in range(4)]
    first = _write(tmp_path / "a.jsonl", [row])
    second = _write(tmp_path / "b.jsonl", [{**row, "response": "two"}])
    _, pairs = read_pairs(first, second, _write(tmp_path / "s.jsonl", rows))
    screening = [pair for pair in pairs if pair.suite == "screening"]
    assert [(pair.question, pair.a, pair.b) for pair in screening] == [
        (f"s{n}", "good", "bad") for n in range(4)
    ]
    with pytest.raises(InputError, match="needs question, better and worse"):
        read_pairs(first, second, _write(tmp_path / "s.jsonl", [{"question": "s"}]))


def test_votes_become_verdicts_and_shares(tmp_path: Path):
    paths = [_saved(tmp_path, "ann", "aaabt"), _saved(tmp_path, "bob", "aabbt")]
    votes = read_votes([*paths, paths[0]])
    (people,) = tallies(votes)
    assert (people.items, people.votes, len(votes.verdicts)) == (5, 10, 10)
    assert [share.value for share in people.shares] == [0.5, 0.2, 0.3]
    assert people.shares[0].low < 0.5 < people.shares[0].high
    assert {row.judge for row in votes.verdicts} == {"ann", "bob"}
    assert len({row.id for row in votes.verdicts}) == 10


def test_raters_that_fail_the_screening_are_not_counted(tmp_path: Path):
    good = _saved(tmp_path, "good", "ab", "+++++++")
    poor = _saved(tmp_path, "poor", "bb", "+++++--")
    votes = read_votes([good, poor])
    assert votes.failed == ["poor"] and votes.screened == {"good": (7, 7), "poor": (5, 7)}
    assert {row.judge for row in votes.verdicts} == {"good"}
    assert read_votes([good, poor], least_passed=0.7).failed == []
    with pytest.raises(InputError, match="no vote is left"):
        tallies(read_votes([poor]))


def test_files_that_are_no_votes_are_refused(tmp_path: Path):
    first = _saved(tmp_path, "ann", "aa")
    other = _saved(tmp_path, "bob", "aa", b="somebody else")
    with pytest.raises(InputError, match="votes on ours and somebody else, not on ours and theirs"):
        read_votes([first, other])
    changed = tmp_path / "again.jsonl"
    changed.write_text(first.read_text().replace('"winner": "a"', '"winner": "b"', 1))
    with pytest.raises(InputError, match="a second, different vote of ann on q0"):
        read_votes([first, changed])
    changed.write_text(first.read_text().replace('"winner": "a"', '"winner": null', 1))
    with pytest.raises(InputError, match="the vote of ann on q0 has no winner"):
        read_votes([changed])
    for text in ("[1]", "{}", '{"winner": "x"}', "{"):
        changed.write_text(text)
        with pytest.raises(SpyhopError, match=r"again\.jsonl"):
            read_votes([changed])


@pytest.mark.parametrize("lead", [0.2, 0.5])
def test_the_number_of_votes_that_would_settle_it_has_the_power_it_promises(
    tmp_path: Path, lead: float
):
    win, lose = 0.4 + lead / 2, 0.4 - lead / 2
    num = 200
    winners = "a" * round(win * num) + "b" * round(lose * num)
    votes = read_votes([_saved(tmp_path, "ann", winners.ljust(num, "t"))])
    (people,) = tallies(votes)
    rng, found = random.Random(0), 0
    for _ in range(400):
        drawn = rng.choices((1, -1, 0), weights=(win, lose, 1 - win - lose), k=people.needed)
        mean = sum(drawn) / len(drawn)
        spread = sum((each - mean) ** 2 for each in drawn) / len(drawn)
        found += mean > 1.96 * (spread / len(drawn)) ** 0.5
    assert 0.72 < found / 400 < 0.92


def test_a_few_equal_votes_settle_nothing(tmp_path: Path):
    (people,) = tallies(read_votes([_saved(tmp_path, "ann", "aaa")]))
    assert people.needed == 6 and people.shares[0].low < 0.5


def test_a_level_vote_names_no_number(tmp_path: Path):
    (people,) = tallies(read_votes([_saved(tmp_path, "ann", "abt")]))
    assert people.needed is None


def test_judges_stand_in_the_same_table_whichever_side_is_named_first(tmp_path: Path):
    votes = read_votes([_saved(tmp_path, "ann", "aabb")])
    rows = [
        Verdict(id=f"{n}{judge}", item_id=f"q{n}", judge=judge, a=a, b=b, winner=winner)
        for judge, a, b, winners in (
            ("same", "ours", "theirs", ("a", "a", "b", "b")),
            ("swapped", "theirs", "ours", ("a", "a", "b", None)),
        )
        for n, winner in enumerate(winners)
    ]
    path = _write(tmp_path / "v.jsonl", [row.model_dump() for row in rows])
    people, same, swapped = tallies(votes, read_verdicts(path))
    assert same.kappa.value == 1 and (same.shares[0].value, same.items) == (0.5, 4)
    assert swapped.items == 3 and swapped.shares[0].value == pytest.approx(1 / 3)
    assert people.kappa is None
    strange = [rows[0].model_copy(update={"a": "x", "b": "y"})]
    with pytest.raises(InputError, match="no verdict on ours and theirs"):
        tallies(votes, strange)


def test_alpha_of_a_published_example():
    """Krippendorff (2011), Computing Krippendorff's alpha-reliability, part C: nominal, 0.743."""
    by_rater = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    units = [[str(x) for x in unit if x is not None] for unit in zip(*by_rater, strict=True)]
    found = krippendorff_alpha(units)
    assert found.value == pytest.approx(0.743, abs=5e-4)
    assert found.low < found.value < found.high <= 1


def test_alpha_worked_out_by_pairs():
    rng = random.Random(3)
    units = [rng.choices("abt", k=rng.randint(1, 4)) for _ in range(40)]
    kept = [unit for unit in units if len(unit) > 1]
    values = [value for unit in kept for value in unit]
    observed = sum(
        sum(x != y for x, y in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in kept
    ) / len(values)
    expected = sum(x != y for x, y in itertools.permutations(values, 2))
    expected /= len(values) * (len(values) - 1)
    assert krippendorff_alpha(units).value == pytest.approx(1 - observed / expected)


@pytest.mark.parametrize("units", [[["a"], ["b"]], [["a", "a"], ["a", "a"]], []])
def test_alpha_needs_two_ratings_and_two_categories(units: list[list[str]]):
    with pytest.raises(ValueError, match="two ratings"):
        krippendorff_alpha(units)
