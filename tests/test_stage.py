import errno
import os
import pickle
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import toys
from fake import FakeModel
from spyhop.augment import AnswerConfig, Outcomes, answer
from spyhop.models import Local, Model, ModelUse, Replay, Request, Sampling
from spyhop.models.replay import Recorded
from spyhop.schema import (
    Answer,
    ArtifactError,
    InputError,
    Message,
    ModelError,
    Prompt,
    RecipeError,
)
from spyhop.stage import FOLDER, Context, Estimate, Progress, Runtime, stage, sum_estimates
from spyhop.store import Artifact, Source
from toys import Number, Numbers, Sum


@pytest.fixture
def prompts(tmp_path: Path):
    rows = [
        Prompt(id=f"p{n}", query_id=f"q{n}", collection="c", task="t", system_id="1",
               messages=[Message(role="user", content=f"question {n}")])
        for n in range(4)
    ]  # fmt: skip
    return toys.rows_artifact(tmp_path / "prompts", rows)


@stage(version=1, writes=Number)
def full_disk(ctx: Context, config: Numbers) -> Iterator[Number]:
    yield Number(id="1", value=1)
    raise OSError(config.num_rows, os.strerror(config.num_rows))


def test_three_shapes(tmp_path: Path):
    rows = toys.numbers.run(tmp_path, Numbers(num_rows=5))
    assert [row.value for row in rows.rows(Number)] == [0, 1, 2, 3, 4] and rows.num_rows == 5
    table = toys.table.run(tmp_path, Numbers(), rows=rows)
    assert table.num_rows == 5
    assert [b.column_names for b in table.batches()] == [["value"]]
    folder = toys.folder.run(tmp_path, Numbers(num_rows=2))
    assert (folder.path / "sub" / "text.txt").read_text() == "aa"
    assert folder.record.rows is None and folder.num_rows == 0


def test_the_record_tells_where_it_comes_from(tmp_path: Path):
    rows = toys.numbers.run(tmp_path, Numbers())
    made = toys.odd_only.run(tmp_path, Numbers(), rows=rows, origins={"rows": {"": "the numbers"}})
    record = made.record
    assert (record.stage, record.version) == ("toys.odd_only", 1)
    assert record.config == Numbers().model_dump(mode="json")
    (source,) = record.inputs["rows"]
    assert (source.name, source.key, source.digest) == ("the numbers", rows.key, rows.digest)
    assert record.provenance["spyhop"] and record.created


def test_counts_and_dropped_rows_are_kept_with_their_reasons(tmp_path: Path):
    rows = toys.numbers.run(tmp_path, Numbers(num_rows=5))
    made = toys.odd_only.run(tmp_path, Numbers(), rows=rows)
    assert made.record.counts == {"value/0": 3, "value/1": 2}
    assert made.record.dropped == {"even": 3} and made.num_rows == 2
    lost = pq.read_table(made.path / "dropped").to_pylist()
    assert [row["reason"] for row in lost] == ["even"] * 3
    assert [Number.model_validate_json(row["row"]).value for row in lost] == [0, 2, 4]


def test_a_rerun_is_free_and_an_edit_is_not(tmp_path: Path):
    model = toys.LoggedModel(tmp_path / "log")
    first = toys.replies.run(tmp_path, Numbers(num_rows=3), model=model)
    assert toys.replies.run(tmp_path, Numbers(num_rows=3), model=model) == first
    assert model.calls == 3
    more = toys.replies.run(tmp_path, Numbers(num_rows=5), model=model)
    assert more != first and model.calls == 5  # only what is new was asked
    assert [row.value for row in more.rows(Number)] == [0, 1, 2, 3, 4]
    assert more.record.usage == {"prompt_tokens": 10, "requests": 5, "response_tokens": 5}


def test_every_config_field_is_identity(tmp_path: Path):
    plain = AnswerConfig()
    changed = [
        *(
            AnswerConfig(sampling=Sampling.model_validate(change))
            for change in (
                {"max_new_tokens": 9}, {"temperature": 0.5}, {"top_p": 0.5}, {"seed": 1},
                {"log_probability": True}, {"json_schema": {"type": "object"}}, {"stop": ("x",)},
            )
        ),
        AnswerConfig(outcomes=Outcomes(cut="drop")),
        AnswerConfig(reasoning="drop"),
        AnswerConfig(num_samples=2),
    ]  # fmt: skip
    fields = {*AnswerConfig.model_fields, *Sampling.model_fields} - {"sampling"}
    assert len(changed) == len(fields)
    inputs = {"prompts": toys.numbers.run(tmp_path, Numbers()), "teacher": FakeModel([])}
    keys = {answer.key(config, inputs) for config in [plain, *changed]}
    assert len(keys) == len(changed) + 1
    assert answer.key(AnswerConfig(), inputs) in keys


def test_the_runtime_is_no_identity(tmp_path: Path):
    log = tmp_path / "log"
    config = Numbers(log=str(log))
    for runtime in (None, Runtime(workers=3, threads=2, device="cpu", microbatch_tokens=99)):
        toys.numbers.run(tmp_path, config, runtime=runtime)
    assert len(toys.told(log)) == 1


def test_a_new_version_runs_again(tmp_path: Path):
    def function(ctx: Context, config: Numbers) -> Iterator[Number]:
        yield Number(id="1", value=1)

    keys = {stage(version=v, writes=Number)(function).key(Numbers(), {}) for v in (1, 2)}
    assert len(keys) == 2


def test_inputs_of_other_content_run_again(tmp_path: Path):
    inputs = {str(n): toys.numbers.run(tmp_path, Numbers(num_rows=n)) for n in (1, 2)}
    log = tmp_path / "log"
    config = Sum(log=str(log))
    one = toys.added.run(tmp_path, config, parts=inputs)
    backwards = dict(reversed(inputs.items()))
    assert toys.added.run(tmp_path, config, parts=backwards) != one  # order is identity
    assert toys.added.run(tmp_path, config, parts=inputs) == one
    assert len(toys.told(log)) == 2


def test_wrong_inputs_and_configs_are_refused(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"missing: \['rows'\], unknown: \['row'\]"):
        toys.odd_only.run(tmp_path, Numbers(), row=FakeModel([]))
    with pytest.raises(RecipeError, match=r"toys\.numbers takes Numbers, not Sum"):
        toys.numbers.run(tmp_path, Sum())
    assert not list(tmp_path.iterdir())


def test_stages_are_pickled_by_name():
    assert pickle.loads(pickle.dumps(toys.numbers)) is toys.numbers
    assert pickle.loads(pickle.dumps(answer)) is answer


def test_replies_become_rows_in_order(tmp_path: Path, prompts):
    made = answer.run(
        tmp_path, AnswerConfig(), prompts=prompts, teacher=FakeModel(["one", "two", "", "four"])
    )
    rows = list(made.rows(Answer))
    assert [row.messages[-1].content for row in rows] == ["one", "two", "", "four"]
    assert [row.messages[-1].role for row in rows] == ["assistant"] * 4
    assert [row.id for row in rows] == [row.id for row in prompts.rows(Prompt)]
    assert made.record.counts == {"ending/empty": 1, "ending/whole": 3, "outcome/empty": 1}


def test_a_model_that_runs_dry_is_taken_up_again(tmp_path: Path, prompts):
    with pytest.raises(ModelError, match="only 2 replies"):
        answer.run(tmp_path, AnswerConfig(), prompts=prompts, teacher=FakeModel(["a", "b"]))
    assert not list(tmp_path.glob("augment.answer-*"))
    rest = FakeModel(["c", "d"])
    made = answer.run(tmp_path, AnswerConfig(), prompts=prompts, teacher=rest)
    assert [row.messages[-1].content for row in made.rows(Answer)] == ["a", "b", "c", "d"]
    assert rest.calls == 2


@pytest.mark.parametrize(
    ("limit", "passes"), [(0.0, False), (0.24, False), (0.25, True), (1.0, True)]
)
def test_more_failed_calls_than_allowed_fail_the_stage(
    tmp_path: Path, prompts, limit: float, passes: bool
):
    recorded = [
        Recorded(id=str(n), query=f"question {n}", response=f"answer {n}") for n in range(3)
    ]
    teacher = ModelUse(Replay(), toys.rows_artifact(tmp_path / "recorded", recorded))
    config, runtime = AnswerConfig(), Runtime(max_error_frac=limit)
    if not passes:
        with pytest.raises(ModelError, match=r"1 of 4 calls failed.*not recorded"):
            answer.run(tmp_path, config, runtime=runtime, prompts=prompts, teacher=teacher)
        assert not list(tmp_path.glob("augment.answer-*"))
        return
    made = answer.run(tmp_path, config, runtime=runtime, prompts=prompts, teacher=teacher)
    rows = list(made.rows(Answer))
    assert [row.error for row in rows] == [None, None, None, "not recorded"]
    assert rows[-1].messages == [Message(role="user", content="question 3")]
    assert made.record.counts == {"ending/failed": 1, "ending/whole": 3, "outcome/failed": 1}


def test_requests_with_equal_prompts_are_asked_once(tmp_path: Path, context: Context):
    model = FakeModel(["first", "second"])
    asked = [
        Request(id=name, messages=[Message(role="user", content=text)])
        for name, text in (("1", "same"), ("2", "same"), ("3", "other"))
    ]
    replies = list(model.open(context).generate(asked, Sampling()))
    assert [(r.id, r.text) for r in replies] == [("1", "first"), ("2", "first"), ("3", "second")]
    assert model.calls == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_clear_line(tmp_path: Path, code: int):
    with pytest.raises(ArtifactError, match=r"the disk or quota is full; .*run again"):
        full_disk.run(tmp_path, Numbers(num_rows=code))
    assert not list(tmp_path.glob("test_stage*"))


def test_other_faults_of_the_system_keep_their_trace(tmp_path: Path):
    with pytest.raises(OSError, match="Input/output error"):
        full_disk.run(tmp_path, Numbers(num_rows=errno.EIO))


def test_a_really_limited_disk_is_one_clear_line(tmp_path: Path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, before[1]))
    try:
        with pytest.raises(ArtifactError, match="the disk or quota is full"):
            toys.bytes_of.run(tmp_path, Numbers(num_rows=5))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert toys.bytes_of.run(tmp_path, Numbers(num_rows=5)).path.is_dir()


@pytest.mark.parametrize("made", ["rows", "folder", "journal"])
def test_a_really_full_disk_is_one_clear_line(small_disk: Path, tmp_path: Path, made: str):
    with pytest.raises(ArtifactError, match="the disk or quota is full"):
        if made == "rows":
            toys.noise.run(small_disk, Numbers(num_rows=3_000))
        elif made == "folder":
            toys.bytes_of.run(small_disk, Numbers(num_rows=2))
        else:
            model = FakeModel([os.urandom(10_000).hex() for _ in range(200)])
            toys.replies.run(small_disk, Numbers(num_rows=200), model=model)
    assert not list(small_disk.glob("toys.*"))


def test_progress_is_told(tmp_path: Path):
    told: list[Progress] = []
    model = FakeModel(["1", "2"])
    toys.replies.run(tmp_path, Numbers(num_rows=2), model=model, report=told.append)
    assert [(p.done, p.total, p.unit) for p in told] == [(1, 2, "rows"), (2, 2, "rows")]


def test_a_table_without_a_batch_is_refused(tmp_path: Path):
    with pytest.raises(ArtifactError, match="no record batch"):
        toys.no_table.run(tmp_path, Numbers())


@stage(version=1, writes=Number)
def edits(ctx: Context, config: Numbers, *, text: Artifact) -> Iterator[Number]:
    """Reads its input, which somebody edits meanwhile where `log` names a file."""
    yield Number(id="1", value=len(text.path.name))
    toys.tell(config.log, "an edit")


@stage(version=1, writes=FOLDER)
def edits_weights(ctx: Context, config: Numbers, *, model: Model) -> None:
    toys.tell(config.log, "an edit")


@pytest.mark.parametrize("edited", ["the file", "a file of the folder", "a new file", "the model"])
def test_a_source_that_is_edited_under_a_stage_is_refused(tmp_path: Path, edited: str):
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    file = folder / ("b.txt" if edited == "a new file" else "a.txt")
    source = Source(file if edited == "the file" else folder).open(tmp_path)
    made_by = edits_weights if edited == "the model" else edits
    inputs = {"text": source} if made_by is edits else {"model": ModelUse(Local(), source)}
    with pytest.raises(InputError, match=r"input.*: it changed while it was read; run again$"):
        made_by.run(tmp_path, Numbers(log=str(file)), **inputs)
    assert not list(tmp_path.glob("test_stage.*"))
    again = Source(source.path).open(tmp_path)
    inputs = {"text": again} if made_by is edits else {"model": ModelUse(Local(), again)}
    assert made_by.run(tmp_path, Numbers(), **inputs).path.is_dir()


def test_a_touched_source_is_not_an_edited_one(tmp_path: Path):
    file, log = tmp_path / "a.txt", tmp_path / "log"
    file.write_text("one")
    source = Source(file).open(tmp_path)
    os.utime(file, (0, 0))
    assert edits.run(tmp_path, Numbers(log=str(log)), text=source).num_rows == 1


def test_estimates_are_summed_over_those_whose_length_is_known():
    known, longer, unknown = (
        Estimate(rows=num, row_tokens=length) for num, length in ((10, 8.0), (30, 16.0), (5, 0.0))
    )
    assert sum_estimates([known, longer, unknown]) == Estimate(rows=45, row_tokens=14.0)
    assert sum_estimates([unknown]) == Estimate(rows=5)
    assert sum_estimates([]) == Estimate()


@stage(version=1, writes=Number, shows_names=True)
def labelled(ctx: Context, config: Numbers, *, parts: Mapping[str, Artifact]) -> Iterator[Number]:
    for name, part in parts.items():
        yield Number(id=name, value=part.num_rows)


def test_names_of_inputs_count_only_where_they_are_shown(tmp_path: Path):
    few, many = (toys.numbers.run(tmp_path, Numbers(num_rows=n)) for n in (1, 5))
    log = tmp_path / "log"
    for stage_, config in ((toys.added, Sum(log=str(log))), (labelled, Numbers())):
        made = [
            stage_.run(tmp_path, config, parts={name: few, "many": many})
            for name in ("few", "renamed")
        ]
        assert (made[0].key == made[1].key) is not stage_.shows_names
    assert len(toys.told(log)) == 1
    assert [row.id for row in made[1].rows(Number)] == ["renamed", "many"]
    assert [each.slot for each in made[1].record.inputs["parts"]] == ["renamed", "many"]


@stage(version=1, writes=Number)
def asked_all(ctx: Context, config: Numbers, *, judges: Mapping[str, Model]) -> Iterator[Number]:
    for name, model in judges.items():
        asked = [Request(id="q", messages=[Message(role="user", content="number 0")])]
        (reply,) = model.generate(asked, Sampling())
        yield Number(id=name, value=len(reply.text))


def test_models_in_a_mapping_are_opened(tmp_path: Path):
    folders = {
        name: toys.recorded.run(tmp_path, Numbers(num_rows=num))
        for name, num in (("first", 1), ("second", 2))
    }
    judges = {name: ModelUse(Replay(), folder) for name, folder in folders.items()}
    made = asked_all.run(tmp_path, Numbers(), judges=judges)
    assert [row.id for row in made.rows(Number)] == ["first", "second"]
