from pathlib import Path

import pytest
from pydantic import ValidationError

import toys
from scripted import Scripted, failed, last, prompt, prompts, reply
from spyhop.augment import ExplainConfig, explain
from spyhop.runtime import Runtime
from spyhop.schema import Answer, InputError, ModelError, Pair

CONFIG = {
    "check": "CHECK {instruction} | {answer} | {text}",
    "revise": "REVISE {text} | {finding}",
}
FIRST = {
    "fine": "Whales are mammals.",
    "silent": "Whales sing.",
    "wrong": "Whales are fish.",
    "stubborn": "Whales are stones.",
    "mumbled": "Whales are {text}.",
    "cut": reply("Whales", "length"),
    "refused": failed("403 refused"),
}
CHECKS = {
    "Whales are mammals.": "They agree.\nVERDICT: SUPPORTED",
    "Whales sing.": "Nothing on that.\n**Verdict:** silent.",
    "Whales are fish.": "It speaks against it.\nVERDICT: CONTRADICTED",
    "Whales are stones.": "No.\nVERDICT: SUPPORTED\nVERDICT: CONTRADICTED",
    "Whales are {text}.": "Hm.",
    "They nurse their young.": "Yes.\nVERDICT: SUPPORTED",
    "They are still stones.": "VERDICT: CONTRADICTED",
}


def _say(request, sampling):
    asked = last(request)
    if asked.startswith("CHECK"):
        return CHECKS[asked.split(" | ")[1]]
    if asked.startswith("REVISE"):
        said = request.messages[-2].content
        assert "page on whales" in asked
        return "They nurse their young." if "fish" in said else "They are still stones."
    return FIRST[asked]


def _pairs(folder: Path) -> toys.Artifact:
    rows = [
        Pair(id=f"q-{name}", instruction=name, response="page on whales", tag="web",
             collection="web")
        for name in FIRST
    ]  # fmt: skip
    return toys.rows_artifact(folder / "pairs", rows)


def _run(tmp_path: Path, teacher=None, max_error_frac=0.2, **changes):
    rows = [prompt(name, name, system="Explain.") for name in FIRST]
    asked = prompts(tmp_path / "prompts", rows)
    config = ExplainConfig(**{**CONFIG, **changes})
    return explain.run(
        tmp_path, config, runtime=Runtime(max_error_frac=max_error_frac), prompts=asked,
        pairs=_pairs(tmp_path), teacher=teacher or Scripted(_say),
    )  # fmt: skip


def test_explanations_are_checked_and_revised(tmp_path: Path):
    made = _run(tmp_path)
    rows = {row.id: row for row in made.rows(Answer)}
    assert {name: row.outcome for name, row in rows.items()} == {
        "fine": "supported", "silent": "silent", "wrong": "revised", "mumbled": "unparsed",
        "refused": "",
    }  # fmt: skip
    assert made.record.dropped == {"contradicted": 1, "cut": 1}
    assert last(rows["wrong"]) == "They nurse their young."
    for row in rows.values():  # the text is evidence and nothing that a student reads
        assert "page on whales" not in str(row.messages)
        assert [turn.role for turn in row.messages][:2] == ["system", "user"]
    assert made.record.counts["first/contradicted"] == 2


@pytest.mark.parametrize(
    ("changes", "dropped"),
    [
        ({"contradicted": "drop"}, {"contradicted": 2, "cut": 1}),
        ({"contradicted": "keep"}, {"cut": 1}),
        ({"unparsed": "drop"}, {"contradicted": 1, "cut": 1, "unparsed": 1}),
    ],
)
def test_what_becomes_of_answers_that_the_text_does_not_bear_out(tmp_path: Path, changes, dropped):
    assert _run(tmp_path, **changes).record.dropped == dropped


def test_too_many_failed_calls_end_the_stage(tmp_path: Path):
    with pytest.raises(ModelError, match="1 of 7 calls failed"):
        _run(tmp_path, max_error_frac=0.1)


def test_a_prompt_without_its_text_is_refused(tmp_path: Path):
    asked = prompts(tmp_path / "prompts", [prompt("other", "other")])
    with pytest.raises(InputError, match="query q-other not found in `pairs`"):
        explain.run(
            tmp_path,
            ExplainConfig(**CONFIG),
            prompts=asked,
            pairs=_pairs(tmp_path),
            teacher=Scripted(_say),
        )


def test_a_cut_check_says_nothing(tmp_path: Path):
    def say(request, sampling):
        said = _say(request, sampling)
        is_check = last(request).startswith("CHECK")
        return reply(f"{said}\nBut then again", "length") if is_check else said

    rows = list(_run(tmp_path, Scripted(say)).rows(Answer))
    assert {row.outcome for row in rows if row.error is None} == {"unparsed"}


@pytest.mark.parametrize("checked", ["Whales are mammals.", "They nurse their young."])
def test_a_failed_check_is_a_failed_row(tmp_path: Path, checked: str):
    def say(request, sampling):
        is_failed = last(request).startswith("CHECK") and f"| {checked} |" in last(request)
        return failed("400 too long") if is_failed else _say(request, sampling)

    rows = {row.id: row for row in _run(tmp_path, Scripted(say), max_error_frac=0.3).rows(Answer)}
    row = rows["fine" if "mammals" in checked else "wrong"]
    assert (row.error, row.outcome) == ("400 too long", "")
    assert row.messages[-1].role == "user"
    with pytest.raises(ModelError, match="2 of 7 calls failed"):
        _run(tmp_path / "again", Scripted(say))


def test_a_check_needs_its_places():
    with pytest.raises(ValidationError, match=r"it has no \{text\}"):
        ExplainConfig(check="{instruction} {answer}")
