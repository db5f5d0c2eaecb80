"""Pairs from responses that exist: every kind of evidence, against a plain loop; and their file."""

import json
import random
from pathlib import Path
from typing import Any

import datasets
import pytest

from spyhop.collect import MessagesConfig, read_conversations, read_preferences
from spyhop.curate.prefer import FILE, PreferConfig, export_pairs, prefer
from spyhop.schema import InputError, NoConfig, Preference
from spyhop.store import Artifact, Source


def _file(folder: Path, name: str, rows: list[dict[str, Any]]) -> Artifact:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return Source(path).open(folder / "store")


def _row(query: str, response: str, system: str = "", **known: Any) -> dict[str, Any]:
    turns = [("system", system)] if system else []
    turns += [("user", query), ("assistant", response)]
    return {"messages": [{"role": role, "content": text} for role, text in turns], **known}


def _made(folder: Path, chosen: Any, rejected: Any = None, **config: Any) -> Artifact:
    sides = {"chosen": {"a": _file(folder, "a", chosen)}}
    if rejected is not None:
        sides["rejected"] = {"b": _file(folder, "b", rejected)}
    return prefer.run(folder / "store", PreferConfig(**config), **sides)


def _texts(made: Artifact) -> list[tuple[str, str]]:
    return [(row.chosen, row.rejected) for row in made.rows(Preference)]


def test_a_teacher_is_preferred_to_its_assistant_on_the_prompts_of_both(tmp_path: Path):
    """The teacher answered a subset; prompts are the same only with their system message."""
    assistant = [_row(f"q{n}", f"short {n}", "Explain.", model="ta") for n in range(6)]
    teacher = [
        _row("q4", "long 4", "Explain.", model="big", licence="mit"),
        _row("q1", "long 1", "Explain.", model="big"),
        _row("q2", "long 2", model="big"),
        _row("q3", "short 3", "Explain.", model="big"),
        _row("q5", "half", "Explain.", model="big", finish_reason="length"),
    ]
    made = _made(tmp_path, teacher, assistant)
    assert _texts(made) == [("long 4", "short 4"), ("long 1", "short 1")]
    first = next(made.rows(Preference))
    assert [turn.content for turn in first.messages] == ["Explain.", "q4"]
    assert (first.chosen_origin, first.rejected_origin, first.licence) == ("big", "ta", "mit")
    counts = made.record.counts
    assert (counts["chosen"], counts["rejected"], counts["ending/cut"]) == (4, 6, 1)


def test_gold_answers_decide_where_no_outcome_is_stated(tmp_path: Path):
    """Also against the side that a response comes from; a stated outcome is kept."""
    teacher = [
        _row("2+2?", "Answer: 4", target="4"),
        _row("2+3?", "Answer: 6", target="5"),
        _row("2+4?", "Answer: 6", target="6"),
        _row("2+5?", "Answer: 8", target="7", outcome="right"),
        _row("2+6?", "no gold answer"),
    ]
    assistant = [
        _row("2+2?", "Answer: 5", target="4"),
        _row("2+3?", "Answer: 7", target="5"),
        _row("2+4?", "So it is 6. Answer: 6", target="6"),
        _row("2+5?", "Answer: 9", target="7"),
        _row("2+6?", "nor here"),
    ]
    found = ["Answer: 4", "Answer: 8", "no gold answer"]
    assert [chosen for chosen, _ in _texts(_made(tmp_path, teacher, assistant))] == found
    mixed = [_row("2+2?", f"Answer: {said}", target="4", sample_index=n)
             for n, said in enumerate((5, 4, 3))]  # fmt: skip
    assert _texts(_made(tmp_path, mixed)) == [("Answer: 4", "Answer: 5")]


@pytest.mark.parametrize("seed", range(4))
def test_outcomes_and_ratings_decide_as_a_plain_loop_would(tmp_path: Path, seed: int):
    source = random.Random(seed)
    rows = []
    for number in range(60):
        known: dict[str, Any] = {"sample_index": source.randrange(3)}
        kind = source.random()
        if kind < 0.5:
            known["outcome"] = source.choice(["right", "told", "wrong", "unparsed", ""])
        elif kind < 0.9:
            known["rating" if kind < 0.7 else "score"] = source.choice([1, 2, 3, 4, 5, None])
            if "rating" in known:
                known["rating"] = {"score": known["rating"], "value": None}
        text = source.choice(["same", f"r{number}"])
        rows.append(_row(f"q{source.randrange(12)}", text, **known))

    def score(row: dict[str, Any]) -> float | None:
        rating = row.get("rating")
        found = rating["score"] if rating else row.get("score")
        return None if found is None else float(found)

    wanted = []
    for query in dict.fromkeys(row["messages"][0]["content"] for row in rows):
        mine = [(n, row) for n, row in enumerate(rows) if row["messages"][0]["content"] == query]
        good = [(-(score(r) or 0), r["sample_index"], n, r) for n, r in mine
                if r.get("outcome") in ("right", "told") or score(r) == 5]  # fmt: skip
        bad = [(score(r) or 9, r["sample_index"], n, r) for n, r in mine
               if r.get("outcome") == "wrong" or (score(r) or 9) <= 2]  # fmt: skip
        if good:
            best = min(good, key=lambda each: each[:3])
            text = best[3]["messages"][-1]["content"]
            others = [each for each in bad if each[3]["messages"][-1]["content"] != text]
            if others:
                worst = min(others, key=lambda each: each[:3])
                wanted.append((best[2], text, worst[3]["messages"][-1]["content"]))
    assert wanted and _texts(_made(tmp_path, rows)) == [each[1:] for each in sorted(wanted)]


def test_evidence_to_the_contrary_keeps_a_response_from_its_side(tmp_path: Path):
    teacher = [_row("a", "T a", outcome="wrong"), _row("b", "T b", score=5), _row("c", "T c")]
    first = [_row("a", "S a"), _row("b", "S b", score=2), _row("c", "S c", outcome="right")]
    made = _made(tmp_path, teacher, first)
    assert _texts(made) == [("T b", "S b")] and made.record.counts["no_evidence"] == 2
    assert next(made.rows(Preference)).reason == "5 > 2"


def test_corrections_and_rated_pairs_of_other_shapes(tmp_path: Path):
    rows = [
        {"instruction": "i", "response": "good", "rating": {"score": 5.0}},
        {"instruction": "i", "response": "bad", "rating": {"score": 1.0}},
        {"prompt": "p", "response": "mended", "outcome": "corrected"},
        {"prompt": "p", "response": "first", "outcome": "wrong"},
        _row("q", "5 + 5 = 10", transcript=[{"role": "assistant", "content": "5 + 5 = 11"}]),
        _row("r", "as before", transcript=[{"role": "assistant", "content": "as before"}]),
    ]
    made = _made(tmp_path, rows)
    first_try = ("5 + 5 = 10", "5 + 5 = 11")
    assert _texts(made) == [("good", "bad"), ("mended", "first"), first_try]
    assert made.record.counts["no_evidence"] == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([_row("a", "x", outcome="right"), _row("b", "y", outcome="wrong")], "no prompt has"),
        ([_row("a", "x"), _row("a", "y")], r"choose \(0 in all\)"),
        ([_row("a", "x", score="five")], r"a.jsonl:1: score = 'five' is not a number"),
    ],
)
def test_rows_without_pairs_are_one_clear_line(tmp_path: Path, rows: Any, message: str):
    with pytest.raises(InputError, match=message):
        _made(tmp_path, rows)


def test_the_file_is_read_by_other_tools_and_by_training(tmp_path: Path):
    """The conversational form of TRL: lists of turns, of which chosen and rejected are the last."""
    rows = [_row(f"q{n}", text, "Be brief.", outcome=outcome, model=model, licence="mit")
            for n in range(3) for text, outcome, model in
            ((f"yes {n} é", "right", "one"), (f"no {n}", "wrong", "two"))]  # fmt: skip
    made = _made(tmp_path, rows)
    out = export_pairs.run(tmp_path / "store", NoConfig(), pairs=made)
    table = datasets.load_dataset(
        "json", data_files=str(out.file(FILE)), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert table[1]["prompt"][-1] == {"role": "user", "content": "q1"}
    assert table[1]["chosen"] == [{"role": "assistant", "content": "yes 1 é"}]
    assert table[1]["rejected"][0]["content"] == "no 1" and table[1]["reason"] == "right > wrong"
    file = Source(out.file(FILE)).open(tmp_path / "store")
    again = read_preferences.run(tmp_path / "store", MessagesConfig(), file=file)
    assert list(again.rows(Preference)) == list(made.rows(Preference))
    chosen = read_conversations.run(tmp_path / "store", MessagesConfig(), file=file)
    assert chosen.num_rows == 3


@pytest.mark.parametrize(
    ("row", "dropped"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, ""),
        ({"system": "S", "question": "q", "chosen": "a", "rejected": "b"}, ""),
        ({"chosen": _row("q", "a")["messages"], "rejected": _row("q", "b")["messages"]}, ""),
        ({"input": {"messages": _row("q", "")["messages"][:1]},
          "preferred_output": [{"role": "assistant", "content": "a"}],
          "non_preferred_output": [{"role": "assistant", "content": "b"}]}, ""),
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "same"),
        ({"chosen": _row("q", "a")["messages"], "rejected": _row("r", "b")["messages"]},
         "prompts_differ"),
    ],
)  # fmt: skip
def test_published_forms_of_pairs_are_read(tmp_path: Path, row: dict[str, Any], dropped: str):
    more = {"prompt": "other", "chosen": "c", "rejected": "d"}
    made = read_preferences.run(
        tmp_path / "store", MessagesConfig(), file=_file(tmp_path, "x", [row, more])
    )
    assert made.record.dropped == ({dropped: 1} if dropped else {})
    first = next(made.rows(Preference))
    if not dropped:
        turns = [turn.content for turn in first.messages]
        assert turns == (["S", "q"] if "system" in row else ["q"])
        assert (first.chosen, first.rejected) == ("a", "b")


def test_a_thought_stays_before_its_response(tmp_path: Path):
    side = [{"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}]
    row = {"prompt": "q", "chosen": side, "rejected": "5"}
    made = read_preferences.run(
        tmp_path / "store", MessagesConfig(), file=_file(tmp_path, "x", [row])
    )
    assert next(made.rows(Preference)).chosen == "<think>\n2 + 2\n</think>\n\n4"


def test_rows_without_a_rejected_response_are_one_clear_line(tmp_path: Path):
    with pytest.raises(InputError, match=r"x.jsonl:1: no preference: it needs chosen and rejected"):
        read_preferences.run(
            tmp_path / "store", MessagesConfig(), file=_file(tmp_path, "x", [_row("q", "a")])
        )
