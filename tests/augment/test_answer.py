from pathlib import Path

import pytest
from pydantic import ValidationError

from scripted import Scripted, failed, last, prompt, prompts, reply
from spyhop.augment import AnswerConfig, Outcomes, answer
from spyhop.augment.answer import json_check
from spyhop.models import Sampling
from spyhop.runtime import Runtime
from spyhop.schema import Answer, ModelError, RecipeError
from spyhop.stage import Estimate
from spyhop.store import Artifact

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
KINDS = ("refused", "cut", "empty", "unparsable", "failed")
FIRST = {
    "refused": reply("", "content_filter"),
    "cut": reply('{"n": 1', "length"),
    "empty": reply(" \n\t"),
    "unparsable": reply("n is 1"),
    "failed": failed(),
    "fine": reply('{"n": 1}', reasoning="one", log_probability=-1.5, response_tokens=4),
}

LENIENT = Runtime(max_error_frac=0.5)


def _prompts(root: Path) -> Artifact:
    return prompts(root / "prompts", [prompt(name, name) for name in FIRST])


def _teacher(second=None, **options) -> Scripted:
    """Says at first what the prompt names, and `second` when asked again."""

    def say(request, sampling):
        is_first = request.sample_index == 0 and sampling.max_new_tokens == 100
        first = FIRST[request.messages[-1].content]
        return first if is_first or second is None else second

    return Scripted(say, **options)


def _config(**policies) -> AnswerConfig:
    return AnswerConfig(
        sampling=Sampling(max_new_tokens=100, json_schema=SCHEMA, temperature=0.5),
        outcomes=Outcomes(**policies),
    )


def test_every_outcome_is_kept_and_flagged_by_default(tmp_path: Path):
    made = answer.run(
        tmp_path, _config(), runtime=LENIENT, prompts=_prompts(tmp_path), teacher=_teacher()
    )
    rows = {row.id: row for row in made.rows(Answer)}
    assert list(rows) == list(FIRST)
    assert {name: row.outcome for name, row in rows.items()} == {
        **{k: k for k in KINDS},
        "fine": "",
    }
    assert made.record.counts == {
        "ending/whole": 2, **{f"ending/{kind}": 1 for kind in KINDS if kind != "unparsable"},
        **{f"outcome/{kind}": 1 for kind in KINDS},
    }  # fmt: skip
    assert made.record.dropped == {}
    fine = rows["fine"]
    assert (fine.reasoning, fine.log_probability, fine.response_tokens) == ("one", -1.5, 4)
    assert len(rows["failed"].messages) == 1 and rows["failed"].error == "400 bad request"


@pytest.mark.parametrize("kind", KINDS)
def test_one_outcome_is_dropped_and_counted(tmp_path: Path, kind: str):
    config = _config(**{kind: "drop"})
    made = answer.run(
        tmp_path, config, runtime=LENIENT, prompts=_prompts(tmp_path), teacher=_teacher()
    )
    assert [row.id for row in made.rows(Answer)] == [name for name in FIRST if name != kind]
    assert made.record.dropped == {kind: 1} and made.record.counts[f"outcome/{kind}"] == 1


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("cut", ("cut", 0, 250)),
        ("empty", ("empty", 1, 100)),
        ("unparsable", ("unparsable", 1, 100)),
    ],
)
def test_a_retry_mends(tmp_path: Path, kind: str, asked: tuple[str, int, int]):
    teacher = _teacher(reply('{"n": 2}'))
    config = _config(**{kind: "retry"}, more_room=2.5)
    made = answer.run(
        tmp_path, config, runtime=LENIENT, prompts=_prompts(tmp_path), teacher=teacher
    )
    assert teacher.asked[len(FIRST) :] == [asked]
    row = next(row for row in made.rows(Answer) if row.id == kind)
    assert (last(row), row.outcome, row.sample_index) == ('{"n": 2}', "mended", 0)
    counts = made.record.counts
    assert (counts[f"retried/{kind}"], counts[f"retried/{kind}/mended"]) == (1, 1)
    assert counts["outcome/mended"] == 1 and f"outcome/{kind}" not in counts


RETRIES = {"cut": "retry", "empty": "retry", "unparsable": "retry"}


@pytest.mark.parametrize("second", ["cut", "empty", "unparsable", "refused"])
def test_what_comes_after_a_retry_is_kept_and_flagged(tmp_path: Path, second: str):
    teacher = _teacher(FIRST[second])
    made = answer.run(
        tmp_path, _config(**RETRIES), runtime=LENIENT, prompts=_prompts(tmp_path), teacher=teacher
    )
    assert len(teacher.asked) == len(FIRST) + 3
    rows = {row.id: row for row in made.rows(Answer)}
    assert [rows[kind].outcome for kind in RETRIES] == [second] * 3
    assert [made.record.counts[f"retried/{kind}/mended"] for kind in RETRIES] == [0] * 3


def test_what_comes_after_a_retry_may_be_dropped(tmp_path: Path):
    teacher = _teacher(FIRST["refused"])
    config = _config(**RETRIES, refused="drop")
    made = answer.run(
        tmp_path, config, runtime=LENIENT, prompts=_prompts(tmp_path), teacher=teacher
    )
    assert [row.id for row in made.rows(Answer)] == ["failed", "fine"]
    assert made.record.dropped == {"refused": 4}


def test_the_first_reply_stands_where_the_retry_fails(tmp_path: Path):
    teacher = _teacher(failed("too many tokens"))
    made = answer.run(
        tmp_path, _config(**RETRIES), runtime=LENIENT, prompts=_prompts(tmp_path), teacher=teacher
    )
    rows = {row.id: row for row in made.rows(Answer)}
    assert [(rows[kind].outcome, rows[kind].error) for kind in RETRIES] == [
        (kind, None) for kind in RETRIES
    ]
    assert last(rows["cut"]) == '{"n": 1'


def test_samples_of_a_prompt_follow_each_other(tmp_path: Path):
    asked = prompts(tmp_path / "p", [prompt(name, name) for name in "ab"])
    teacher = Scripted(lambda r, s: "" if r.sample_index == 1 else f"{last(r)}{r.sample_index}")
    config = AnswerConfig(num_samples=3, outcomes=Outcomes(empty="retry"))
    made = answer.run(tmp_path, config, runtime=LENIENT, prompts=asked, teacher=teacher)
    rows = list(made.rows(Answer))
    assert [row.id for row in rows] == ["a", "a.1", "a.2", "b", "b.1", "b.2"]
    assert [row.sample_index for row in rows] == [0, 1, 2] * 2
    assert [last(row) for row in rows] == ["a0", "a4", "a2", "b0", "b4", "b2"]
    assert [row.query_id for row in rows] == ["q-a"] * 3 + ["q-b"] * 3


def test_reasoning_may_be_left_out(tmp_path: Path):
    asked, teacher = _prompts(tmp_path), _teacher()
    config = _config().model_copy(update={"reasoning": "drop"})
    rows = list(
        answer.run(tmp_path, config, runtime=LENIENT, prompts=asked, teacher=teacher).rows(Answer)
    )
    assert {row.reasoning for row in rows} == {""}


@pytest.mark.parametrize("policy", ["keep", "drop"])
def test_failed_calls_alone_are_measured_at_the_gate(tmp_path: Path, policy: str):
    asked, teacher = _prompts(tmp_path), _teacher()
    for limit, passes in ((1 / 6, True), (0.16, False)):
        config, runtime = _config(failed=policy), Runtime(max_error_frac=limit)
        if passes:
            (made,) = [
                answer.run(tmp_path / "a", config, runtime=runtime, prompts=asked, teacher=teacher)
            ]
            assert made.num_rows
            continue
        with pytest.raises(ModelError, match=r"1 of 6 calls failed.*0\.16.*400 bad request"):
            answer.run(tmp_path / "b", config, runtime=runtime, prompts=asked, teacher=teacher)


@pytest.mark.parametrize(
    "text",
    ["", "[" * 100_000, '{"n": 1} and more', '{"n": "1"}', '{"n": NaN}', "{'n': 1}", '{"n": 1e400}',
     "9" * 5000, '```json\n{"n": 1}\n```', "\x00", "\ud800"],
)  # fmt: skip
def test_garbage_is_not_json_of_the_schema(text: str):
    assert not json_check(SCHEMA)(text)
    assert json_check(SCHEMA)(' {"n": 1}\n') and json_check(None)(text)


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]"])
def test_what_only_python_takes_for_json_is_none(text: str):
    assert not json_check({})(text)


def test_schemas_are_never_fetched(monkeypatch: pytest.MonkeyPatch):
    fetched = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **options: fetched.append(args))
    with pytest.raises(RecipeError):
        json_check({"$ref": "https://example.org/schema.json"})("{}")
    assert fetched == []


def test_a_schema_that_refers_to_itself_has_a_floor():
    schema = {"type": "array", "items": {"$ref": "#"}}
    assert json_check(schema)("[[], [[]]]") and not json_check(schema)("[[1]]")
    assert not json_check(schema)("[" * 900 + "1" + "]" * 900)


@pytest.mark.parametrize(
    ("schema", "line"),
    [
        ({"type": "objekt"}, r"json_schema is not a JSON schema: 'objekt'"),
        ({"$ref": "https://example.org/schema.json"}, r"json_schema: .*example\.org"),
    ],
)
def test_schemas_that_cannot_be_checked_are_refused(tmp_path: Path, schema: dict, line: str):
    config = AnswerConfig(sampling=Sampling(json_schema=schema))
    asked = prompts(tmp_path / "p", [prompt("a", "a")])
    with pytest.raises(RecipeError, match=line):
        answer.run(
            tmp_path, config, runtime=LENIENT, prompts=asked, teacher=Scripted(lambda r, s: "{}")
        )


def test_a_cut_response_needs_more_room():
    with pytest.raises(ValidationError, match="more_room"):
        Outcomes(more_room=1.0)


@pytest.mark.parametrize("lives", [0, 1, 3, 6, 8])
def test_a_killed_stage_asks_nothing_twice(tmp_path: Path, lives: int):
    asked, config = _prompts(tmp_path), _config(**RETRIES)
    second = reply('{"n": 3}')
    whole = answer.run(
        tmp_path / "whole", config, runtime=LENIENT, prompts=asked, teacher=_teacher(second)
    )
    dying, living = _teacher(second, lives=lives), _teacher(second)
    with pytest.raises(ModelError, match="killed"):
        answer.run(tmp_path, config, runtime=LENIENT, prompts=asked, teacher=dying)
    made = answer.run(tmp_path, config, runtime=LENIENT, prompts=asked, teacher=living)
    both = [*dying.asked, *living.asked]
    failed_calls = [each for each in both if each[0] == "failed"]  # never replayed
    assert len(both) - len(failed_calls) == len(set(both)) - 1 == len(FIRST) + 3 - 1
    assert (made.digest, made.record.counts) == (whole.digest, whole.record.counts)


def test_the_plan_counts_samples_and_retries():
    known = Estimate(rows=1000, row_tokens=80.0)
    plain = answer.plan(AnswerConfig(), known, Estimate())
    calls = plain.calls["teacher"]
    assert (plain.rows, calls.requests, calls.prompt_tokens) == (1000, 1000, 80_000)
    assert calls.response_tokens == 150_000 and calls.most_response_tokens == 512_000
    assert plain.row_tokens == 230
    config = AnswerConfig(num_samples=2, outcomes=Outcomes(cut="retry"))
    more = answer.plan(config, known, Estimate())
    assert (more.rows, more.calls["teacher"].requests) == (2000, 2040)
    calls = more.calls["teacher"]
    assert calls.most_response_tokens == 2000 * (512 + 1024)
    assert calls.prompt_tokens + calls.further_prompt_tokens == 4000 * 80
    unknown = answer.plan(AnswerConfig(), Estimate(rows=10), Estimate())
    assert unknown.calls["teacher"].prompt_tokens == 1500
