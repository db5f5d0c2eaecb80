"""Two logs, pair by pair."""

import json
import random
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import written
from command import Command
from spyhop.evaluate.comparison import ComparedLogs, compare_logs, paired_result
from spyhop.evaluate.logs import read_log
from spyhop.schema import InputError


def _compare(first: Path, second: Path, **more: Any) -> ComparedLogs:
    options = {key: more.pop(key) for key in ("tasks", "metric") if key in more}
    return compare_logs(*(read_log(path, **options) for path in (first, second)), **more)


def _logs(folder: Path, first: list[float], second: list[float]) -> tuple[Path, Path]:
    return written.spyhop_log(folder / "a.jsonl", first), written.spyhop_log(
        folder / "b.jsonl", second, model="n"
    )


def test_right_and_wrong_are_paired_by_content_whatever_the_order(tmp_path: Path):
    a, b = _logs(tmp_path, [1, 1, 0, 0, 1, 0], [1, 0, 1, 1, 1, 1])
    rows = b.read_text().splitlines()
    b.write_text("\n".join(random.Random(1).sample(rows, len(rows))))
    found = _compare(a, b).overall
    assert (found.n, found.gained, found.lost, found.method) == (6, 3, 1, "McNemar")
    assert found.difference == pytest.approx(2 / 6)
    assert found.p_value == pytest.approx(2 * stats.binom.cdf(1, 4, 0.5))


def test_the_same_log_and_a_single_item_are_defined(tmp_path: Path):
    a, _ = _logs(tmp_path, [1, 0, 1], [1, 0, 1])
    same = _compare(a, a)
    assert (same.overall.p_value, same.overall.difference, same.disagreements) == (1.0, 0.0, [])
    assert same.overall.low < 0 < same.overall.high and same.overall.detectable is None
    assert same.names[0] != same.names[1]
    one, two = _logs(tmp_path, [1], [0])
    assert _compare(one, two).overall.p_value == 1.0
    one, two = _logs(tmp_path, [0.3], [0.8])
    found = _compare(one, two).overall
    assert (found.low, found.p_value, found.method) == (None, None, "no spread")
    one, two = _logs(tmp_path, [0.3, 0.4], [0.3, 0.4])
    assert _compare(one, two).overall.p_value == 1.0


def test_samples_of_an_item_are_averaged_and_duplicates_counted(tmp_path: Path):
    rows = [written.spyhop_row(n, value, sample_index=k) for n in range(3)
            for k, value in enumerate((1, 0, 0, 1))]  # fmt: skip
    a = written.lines(tmp_path / "a.jsonl", [*rows, rows[0]])
    b = written.spyhop_log(tmp_path / "b.jsonl", [1, 0, 1])
    found = _compare(a, b)
    assert found.counts["first"] == {
        "rows": 13, "items": 3, "unmatched": 0, "duplicates": 1, "missing": 0
    }  # fmt: skip
    assert found.overall.first == pytest.approx((3 / 5 + 1 / 2 + 1 / 2) / 3)


def test_a_failed_call_leaves_the_pair_out_and_is_counted(tmp_path: Path):
    a = written.spyhop_log(tmp_path / "a.jsonl", [1, 1, 0])
    rows = [written.spyhop_row(n, 1, ending="failed" if n == 2 else "whole") for n in range(3)]
    b = written.lines(tmp_path / "b.jsonl", rows)
    found = _compare(a, b)
    assert (found.overall.n, found.missing) == (2, 1)
    assert found.counts["second"]["missing"] == 1
    rows = [written.spyhop_row(n, 1, ending="failed") for n in range(3)]
    with pytest.raises(InputError, match="of 3 common items a score is missing"):
        _compare(a, written.lines(tmp_path / "b.jsonl", rows))


def test_small_overlap_and_other_prompts_are_refused_unless_asked_for(tmp_path: Path):
    a, b = _logs(tmp_path, [1, 0] * 5, [1, 0])
    with pytest.raises(InputError, match=r"2 of 10 items are common \(20%\)"):
        _compare(a, b)
    assert _compare(a, b, is_anyway=True).counts["first"]["unmatched"] == 8
    rows = [written.spyhop_row(n, 1, prompt_digest="ab" * 32) for n in range(10)]
    other = written.lines(tmp_path / "c.jsonl", rows)
    with pytest.raises(InputError, match="the prompts of 10 of 10 common items differ"):
        _compare(a, other)
    assert _compare(a, other, is_anyway=True).other_prompts == 10
    rows = [written.spyhop_row(n + 100, 1) for n in range(10)]
    with pytest.raises(InputError, match="no common item"):
        _compare(a, written.lines(tmp_path / "c.jsonl", rows), is_anyway=True)


def test_small_overlap_of_one_task_among_others_is_refused(tmp_path: Path):
    def log(name: str, num: int) -> Path:
        rows = [written.spyhop_row(n, 1) for n in range(100)]
        rows += [written.spyhop_row(n, 1, task="few") for n in range(num)]
        return written.lines(tmp_path / name, rows)

    a, b = log("a.jsonl", 30), log("b.jsonl", 3)
    with pytest.raises(InputError, match="task sums few: 3 of 30 items are common"):
        _compare(a, b)
    assert _compare(a, b, tasks=["*add"]).overall.n == 100


def test_logs_of_two_tools_or_two_metrics_are_refused(tmp_path: Path):
    a = written.spyhop_log(tmp_path / "a.jsonl", [1, 0])
    with pytest.raises(InputError, match=r"is a log of spyhop, .* of AlpacaEval"):
        _compare(a, written.alpaca(tmp_path / "annotations.json", [1, 2]))
    rows = [written.spyhop_row(n, 1, metric="f1", metrics={"accuracy": 0.0}) for n in range(2)]
    b = written.lines(tmp_path / "b.jsonl", rows)
    with pytest.raises(InputError, match=r"metric accuracy, the second f1; .* --metric: accuracy"):
        _compare(a, b)
    assert _compare(a, b, metric="accuracy").overall.difference == -0.5


def test_files_of_one_task_may_have_any_names(tmp_path: Path):
    rows = [written.lm_eval_choice(n, [-1.0, -2.0]) for n in range(4)]
    a = written.lines(tmp_path / "samples_old_2026-11-26T07-51-11.628212.jsonl", rows)
    b = written.lines(tmp_path / "mine.jsonl", rows)
    assert _compare(a, b).by_task[0].group == "old" and _compare(b, a).overall.n == 4


def test_tasks_are_corrected_by_holm_and_disagreements_are_of_both_sides(tmp_path: Path):
    def log(name: str, flip: bool) -> Path:
        rows = [
            written.spyhop_row(n, float((n % 3 == 0) ^ (flip and n % 5 == 0 and task != "c")),
                               task=task, topic="ab"[n % 2])
            for task, n in product("abc", range(60))
        ]  # fmt: skip
        return written.lines(tmp_path / name, rows)

    found = _compare(log("a.jsonl", False), log("b.jsonl", True), num_rows=2)
    assert [each.group for each in found.by_task] == ["sums a", "sums b", "sums c"]
    p = [each.p_value for each in found.by_task]
    assert [each.adjusted for each in found.by_task] == [min(1, 3 * p[0])] * 2 + [1.0]
    assert [each.group for each in found.by_topic] == ["a", "b"]
    sides = [(each.task, each.second_value) for each in found.disagreements]
    assert sides == [("sums a", 1.0)] * 2 + [("sums a", 0.0)] * 2 + [
        ("sums b", 1.0)] * 2 + [("sums b", 0.0)] * 2  # fmt: skip
    assert all(each.first.question == each.second.question for each in found.disagreements)
    assert sum(each.n for each in found.by_length) == 180


def test_items_that_share_a_passage_are_not_independent():
    rng = np.random.default_rng(0)
    passages = [f"p{n // 8}" for n in range(200)]
    shift = np.repeat(rng.integers(0, 2, 25), 8)
    a, b = np.zeros(200), shift.astype(float)
    alone, shared = paired_result("x", a, b), paired_result("x", a, b, passages)
    assert (alone.method, shared.method) == ("McNemar", "clusters")
    assert shared.high - shared.low > 2 * (alone.high - alone.low)
    assert shared.p_value == pytest.approx(2 * stats.norm.sf(np.sqrt(shift.sum() / 8)))
    assert paired_result("x", a, b, [""] * 200).method == "McNemar"
    assert paired_result("x", a, b, [f"q{n}" for n in range(200)]).method == "McNemar"


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1))
def test_swapping_the_models_turns_the_sign(pairs: list[tuple[float, float]]):
    a, b = zip(*pairs, strict=True)
    one, two = paired_result("x", a, b), paired_result("x", b, a)
    assert one.difference == pytest.approx(-two.difference) and one.p_value == two.p_value
    assert one.low == pytest.approx(-two.high, abs=1e-9) and one.low <= one.difference <= one.high
    assert (one.gained, one.lost) == (two.lost, two.gained)


def test_real_annotations_of_two_models(data_dir: Path):
    folder = data_dir / "alpaca_eval"
    found = _compare(folder / "alpaca-7b", folder / "gpt-3.5-turbo-0301")
    assert found.overall.n == 804 and found.missing == 1
    assert len(found.by_topic) == 5 and sum(each.n for each in found.by_topic) == 804


def test_the_command_prints_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    command = Command(monkeypatch, capsys)
    a, b = _logs(tmp_path, [1, 0, 0, 0], [1, 1, 1, 0])
    page = tmp_path / "out" / "page.html"
    done = command("compare", a, b, "--html", page, "--by", "length")
    assert done.code == 0, done.stderr
    assert "n minus m: +50.0 points" in done.stdout and "4 common items" in done.stdout
    found = json.loads(command("compare", a, b, "--json").stdout)
    assert found["overall"]["gained"] == 2 and len(found["disagreements"]) == 2
    assert found["disagreements"][0]["second"]["answer"] == "A"
    assert "n is better" in page.read_text() and "<script" not in page.read_text()
    done = command("compare", a, tmp_path / "none.jsonl")
    assert (done.code, done.stderr.count("\n")) == (2, 1)
    done = command("compare", a, b, "--html", tmp_path)
    assert done.code == 2 and "Traceback" not in done.stderr
