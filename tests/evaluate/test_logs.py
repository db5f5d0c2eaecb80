"""Readers of anybody's logs."""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

import toys
import written
from spyhop.evaluate.logs import Log, LogRow, read_log
from spyhop.schema import InputError, Score


def _rows(log: Log) -> list[LogRow]:
    places = log.table.column("place").to_pylist()
    found = log.rows(places)
    return [found[place] for place in places]


def _values(log: Log) -> list[float | None]:
    return log.table.column("value").to_pylist()


def test_rows_of_spyhop_are_read_from_a_file_or_its_folder(tmp_path: Path):
    file = written.spyhop_log(tmp_path / "scores-m.jsonl", [1, 0, 0.5])
    for path in (file, tmp_path):
        log = read_log(path)
        assert (log.kind, log.model, _values(log)) == ("spyhop", "m", [1, 0, 0.5])
    assert _values(read_log(file, metric="strict")) == [1, 1, 1]
    assert _rows(log)[1].question == "How much is 1 + 1?"
    written.spyhop_log(tmp_path / "scores-n.jsonl", [1])
    with pytest.raises(InputError, match=r"several models or files: scores-m.jsonl, scores-n"):
        read_log(tmp_path)


def test_scores_of_a_recipe_are_read_from_the_step_or_the_only_one_of_a_run(tmp_path: Path):
    def step(name: str, num: int) -> Path:
        rows = [
            Score.model_validate(
                {key: value for key, value in written.spyhop_row(n, 1).items()
                 if key in Score.model_fields}
            )
            for n in range(num)
        ]  # fmt: skip
        made = toys.rows_artifact(tmp_path / name, rows)
        (made.path / "record.json").write_text(made.record.model_dump_json())
        return made.path

    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text('{"command": "spyhop eval", "steps": {"eval": {}}}')
    (run / "events.jsonl").write_text('{"time": 0, "kind": "run_started"}\n')
    (run / "student").symlink_to(step("a", 3))
    for path in (run, run / "student"):
        assert _values(read_log(path)) == [1, 1, 1]
    (run / "base").symlink_to(step("b", 2))
    with pytest.raises(InputError, match="several models or files: base, student"):
        read_log(run)


def test_a_failed_call_is_missing(tmp_path: Path):
    rows = [written.spyhop_row(0, 1), written.spyhop_row(1, 0, ending="failed")]
    assert _values(read_log(written.lines(tmp_path / "scores-m.jsonl", rows))) == [1, None]


def test_lm_eval_choices_have_the_text_of_the_likeliest_option(tmp_path: Path):
    rows = [written.lm_eval_choice(0, [-1.0, -2.0]), written.lm_eval_choice(1, [-3.0, -2.0])]
    log = read_log(written.lines(tmp_path / "samples_sums_2026-11-26T07-51-11.628212.jsonl", rows))
    assert log.metrics == {"sums": "acc"} and list(log.offered["sums"]) == ["acc", "acc_norm"]
    assert _values(log) == [1, 0]
    assert [(row.answer, row.gold, row.topic) for row in _rows(log)] == [
        ("x", "x", "sums"),
        ("y", "x", "sums"),
    ]
    assert _values(read_log(log.path, metric="acc_norm")) == [0, 1]


def test_lm_eval_filters_are_metrics_of_their_own(tmp_path: Path):
    rows = [
        written.lm_eval_text(n, str(3 * n), chosen)
        for chosen in ("strict", "flexible")
        for n in range(4)
    ]
    path = written.lines(tmp_path / "samples_mult_2026-11-26T07-51-11.628212.jsonl", rows)
    assert _values(read_log(path)) == [0] * 4  # the first filter only
    log = read_log(path, metric="exact_match,flexible")
    assert _values(log) == [1] * 4 and _rows(log)[2].answer == "6"
    assert _values(read_log(path, metric="exact_match")) == [0] * 4
    assert _rows(read_log(path))[2].answer is None  # what a pattern did not find


def test_lm_eval_of_older_versions_lists_arguments_and_names_no_metrics(tmp_path: Path):
    row = written.lm_eval_choice(0, [-1.0, -2.0])
    row["arguments"] = [["Q", " x"], ["Q", " y"]]
    for name in ("metrics", "filter", "doc_hash", "prompt_hash"):
        del row[name]
    log = read_log(written.lines(tmp_path / "renamed.jsonl", [row]))
    assert log.metrics == {"": "acc"} and _rows(log)[0].answer == "x"


def test_of_two_runs_of_a_task_in_one_folder_the_newest_is_read(tmp_path: Path):
    for day, right in (("25", [-2.0, -1.0]), ("26", [-1.0, -2.0])):
        name = f"samples_sums_2026-11-{day}T07-51-11.628212.jsonl"
        written.lines(tmp_path / "model" / name, [written.lm_eval_choice(0, right)])
    assert _values(read_log(tmp_path)) == [1]
    rows = [written.lm_eval_choice(0, [-2.0, -1.0])]
    written.lines(tmp_path / "other" / name, rows)
    with pytest.raises(InputError, match="rows of model, other; name the file or folder of one"):
        read_log(tmp_path)


SAMPLES = [
    written.inspect_sample(1, "C"),
    written.inspect_sample(2, "I"),
    written.inspect_sample(3, "P"),
    written.inspect_sample(4, "N"),
    written.inspect_sample(5, True),
    written.inspect_sample(6, 0.25),
    written.inspect_sample(7, None),
    written.inspect_sample(8, float("nan")),
    written.inspect_sample(9, "C", scores={}),
]


@pytest.mark.parametrize("shape", ["zstd", "chunks", "json"])
def test_inspect_logs_of_every_shape_are_the_same_rows(tmp_path: Path, shape: str):
    path = tmp_path / f"log.{'json' if shape == 'json' else 'eval'}"
    if shape == "json":
        written.inspect_json(path, SAMPLES)
    else:
        written.inspect_eval(path, SAMPLES, chunks=shape == "chunks")
    log = read_log(path)
    assert (log.kind, log.model, log.metrics) == ("inspect", "mock/a", {"mc": "choice"})
    assert _values(log) == [1, 0, 0.5, 0, 1, 0.25, None, None, None]
    assert [row.topic for row in _rows(log)][:2] == ["odd", "even"]
    assert _values(read_log(path, metric="other/x")) == [1] * 8 + [None]
    whole = read_log(written.inspect_json(tmp_path / "whole.json", SAMPLES))
    assert _rows(log) == _rows(whole)  # also digests of items and prompts


def test_inspect_logs_packed_by_deflate_and_read_from_a_folder(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "log.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_journal/start.json", json.dumps(written.HEADER))  # not finished
        archive.writestr("samples/1_epoch_1.json", json.dumps(SAMPLES[0]))
    assert _values(read_log(tmp_path)) == [1]


def test_inspect_texts_that_are_attached_are_resolved(tmp_path: Path):
    attached = {"input": "attachment://ab", "attachments": {"ab": "1?"}}
    parts = {"input": [{"role": "user", "content": [{"type": "text", "text": "1?"}]}]}
    samples = [written.inspect_sample(1, "C", **more) for more in ({}, attached, parts)]
    log = read_log(written.inspect_json(tmp_path / "log.json", samples))
    assert {row.item for row in _rows(log)} == {_rows(log)[0].item}


def test_alpaca_draws_are_half_a_point_and_missing_ones_missing(tmp_path: Path):
    path = written.alpaca(tmp_path / "judge" / "annotations.json", [1, 2, 0, 1.5, None, 1.25])
    log = read_log(tmp_path)
    assert (log.kind, log.model) == ("AlpacaEval", "mine")
    assert _values(log) == [0, 1, 0.5, 0.5, None, 0.25]
    written.alpaca(path, [1, 3])
    with pytest.raises(InputError, match="preference = 3 is neither 0 nor from 1 to 2"):
        read_log(path)


@pytest.mark.parametrize(
    ("model", "win_rate", "num"),
    [("alpaca-7b", 26.46, 805), ("vicuna-13b", 70.43, 805), ("gpt-3.5-turbo-0301", 89.37, 804)],
)
def test_published_win_rates_come_out(data_dir: Path, model: str, win_rate: float, num: int):
    values = [v for v in _values(read_log(data_dir / "alpaca_eval" / model)) if v is not None]
    assert len(values) == num and round(100 * sum(values) / num, 2) == win_rate


def test_arena_points_are_of_both_orders(tmp_path: Path):
    rows = [
        written.arena(0, "A>>B", "A>B"),  # lost, then won
        written.arena(1, "B>A", "A>B"),
        written.arena(2, "A=B", "B>>A"),
        written.arena(3, "", "A>B"),
        written.arena(4, None, "A>B"),
        written.arena(5, "B>A"),
    ]
    log = read_log(written.lines(tmp_path / "mine.jsonl", rows))
    assert (log.kind, log.model) == ("arena-hard", "mine")
    assert _values(log) == [0.5, 1, 0.25, None, None, None]
    assert (_rows(log)[0].question, _rows(log)[0].response) == ("Why?", "mine")
    old = {"question_id": "q", "model": "mine", "judge": "j", "games": [
        {"user_prompt": "<|User Prompt|>\nOld?\n\n<|The Start of Assistant A's Answer|>", "score":
         "B>>A"}, {"user_prompt": "", "score": "A>B"}]}  # fmt: skip
    log = read_log(written.lines(tmp_path / "old.jsonl", [old]))
    assert _rows(log)[0].question == "Old?" and _values(log) == [1]
    with pytest.raises(InputError, match="line 1: unknown label 'A>C'"):
        read_log(written.lines(tmp_path / "odd.jsonl", [written.arena(0, "A>C", "A>B")]))


def _broken_line(folder: Path) -> Path:
    path = written.spyhop_log(folder / "a.jsonl", [1, 0])
    path.write_text(path.read_text() + '{"id": 1, "suite"\n')
    return path


def _not_utf8(folder: Path) -> Path:
    path = written.spyhop_log(folder / "a.jsonl", [1, 0])
    path.write_bytes(path.read_bytes() + b'{"id": "\xff"}\n')
    return path


def _row_without(name: str, **more: Any) -> Any:
    def write(folder: Path) -> Path:
        row = written.spyhop_row(1, 1, **more)
        if not more:
            del row[name]
        return written.lines(folder / "a.jsonl", [written.spyhop_row(0, 1), row])

    return write


def _truncated(folder: Path) -> Path:
    path = written.inspect_eval(folder / "a.eval", SAMPLES)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def _flipped(folder: Path) -> Path:
    path = written.inspect_eval(folder / "a.eval", SAMPLES)
    data = bytearray(path.read_bytes())
    place = data.index(b"samples/3_epoch_1.json") + 60
    data[place] ^= 255
    path.write_bytes(data)
    return path


def _named(member: str) -> Any:
    def write(folder: Path) -> Path:
        members = {"header.json": json.dumps(written.HEADER).encode(), member: b"{}"}
        return written.zstd_zip(folder / "a.eval", members)

    return write


def _bomb(folder: Path) -> Path:
    big = b" " * (20 << 20)
    members = {f"samples/{n}_epoch_1.json": big for n in range(14)}
    return written.zstd_zip(folder / "a.eval", members)


def _huge(folder: Path) -> Path:
    path = written.inspect_eval(folder / "a.eval", SAMPLES[:1])
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("samples/1_epoch_1.json").file_size
    path.write_bytes(data.replace(size.to_bytes(4, "little"), (200 << 20).to_bytes(4, "little")))
    return path


def _overlapping(folder: Path) -> Path:
    path = _named("samples/1_epoch_1.json")(folder)
    data = path.read_bytes()
    start = data.index(b"PK\1\2")
    end = data.index(b"PK\5\6")
    entry = data[start : data.index(b"PK\1\2", start + 4)]
    directory = entry * 200
    tail = bytearray(data[end:])
    tail[8:12] = (200).to_bytes(2, "little") * 2
    tail[12:16] = len(directory).to_bytes(4, "little")
    path.write_bytes(data[:start] + directory + bytes(tail))
    return path


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_broken_line, r"a\.jsonl: line 3: not JSON"),
        (_not_utf8, r"a\.jsonl: line 3: not UTF-8"),
        (_row_without("suite"), r"line 2: no 'suite'; found"),
        (_row_without("value", value=float("nan")), r"line 2: accuracy = nan is not a finite"),
        (_row_without("value", value="yes"), r"line 2: accuracy = 'yes' is not a finite number"),
        (_row_without("response", response=None), r"line 2: 'response' is no str: None"),
        (_truncated, r"a\.eval: not a whole zip archive"),
        (_flipped, r"samples/3_epoch_1\.json: damaged"),
        (_named("/etc/passwd"), r"a member with the path '/etc/passwd'"),
        (_named("samples/../../x.json"), r"a member with the path 'samples/\.\./"),
        (_named("samples\\..\\x.json"), r"a member with the path"),
        (_named("other.json"), r"a\.eval: no rows"),
        (_named("samples/1_epoch_1.json/sample.json"), r"a\.eval: no rows"),
        (_bomb, r"refused as a zip bomb"),
        (_huge, r"unpacks to 210 MB; at most 134 MB"),
        (_overlapping, r"members overlap"),
        (lambda folder: written.zstd_zip(folder / "a.eval", {"x": b"1"}), "not a log of inspect"),
        (lambda folder: written.lines(folder / "a.jsonl", [{"prompt": "x"}]),
         "not a log of spyhop, lm-eval, AlpacaEval, arena-hard or inspect; .*: prompt"),
        (lambda folder: written.lines(folder / "a.jsonl", []), r"a\.jsonl: no rows"),
        (lambda folder: folder, "a folder without a log of"),
        (lambda folder: folder / "nothing", "no such file or folder"),
    ],
)  # fmt: skip
def test_a_broken_log_is_one_line(tmp_path: Path, write: Any, message: str):
    with pytest.raises(InputError) as raised:
        read_log(write(tmp_path))
    assert re.search(message, str(raised.value)) and "\n" not in str(raised.value)


def test_what_is_not_in_a_log_is_listed(tmp_path: Path):
    path = written.spyhop_log(tmp_path / "a.jsonl", [1])
    with pytest.raises(InputError, match=r"no task mmlu_\*; it has sums add"):
        read_log(path, ["mmlu_*"])
    with pytest.raises(InputError, match="no metric 'acc'; it has accuracy, strict"):
        read_log(path, metric="acc")
