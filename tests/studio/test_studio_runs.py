"""Runs in the studio: events are read once, in any state that a file of events may be in."""

import os
import time
from pathlib import Path

import pytest
from stores import artifact, client, line, run

from spyhop.studio import pages_runs as runs
from spyhop.studio.pages_runs import RunState

START = line(time="2026-11-26T10:00:00+00:00", kind="run_started", planned_s={"a": 5, "b": 9})


def _begun(step: str) -> str:
    return line(time="2026-11-26T10:00:01+00:00", kind="step_started", step=step)


def _moved(step: str, done: int, second: int = 2, **more) -> str:
    when = f"2026-11-26T10:00:{second:02d}+00:00"
    more |= {"text": "asking", "done": done, "total": 100, "unit": "rows"}
    return line(time=when, kind="progress", step=step, **more)


ENDED = line(kind="step_ended", step="a", rows=3, seconds=4.0, dropped={"empty": 1})


def _folder(tmp_path: Path, text: str, **described) -> Path:
    folder = run(tmp_path, "trial", {}, **{"state": "running", "pid": os.getpid(), **described})
    (folder / "events.jsonl").write_text(text)
    return folder


def _states(state: RunState) -> dict[str, str]:
    return {name: step.state for name, step in state.steps.items()}


def test_only_what_was_added_is_read(tmp_path: Path):
    folder = _folder(tmp_path, START + _begun("a") + _moved("a", 10))
    state = RunState(folder).look()
    assert _states(state) == {"a": "running", "b": "waiting"} and state.steps["a"].frac == 0.1
    first = state.offset
    with (folder / "events.jsonl").open("a") as stream:
        stream.write(ENDED + _begun("b")[:20])
        stream.flush()
        assert _states(state.look()) == {"a": "done", "b": "waiting"}
        assert state.offset == first + len(ENDED)
        stream.write(_begun("b")[20:])
    assert _states(state.look()) == {"a": "done", "b": "running"}
    (folder / "events.jsonl").write_text(START)  # replaced by a shorter one
    assert _states(state.look()) == {"a": "waiting", "b": "waiting"}


@pytest.mark.parametrize("size", [300, 8 << 20])
def test_blocks_of_any_size_give_the_same(tmp_path: Path, monkeypatch, size: int):
    monkeypatch.setattr(runs, "BLOCK", size)
    torn = _moved("a", 50)[:31] + "\n"
    noise = "\n\n" + "x" * 500 + "\n" + '{"kind":"future","step":"a"}\n'
    text = (
        START + _begun("a") + torn + _moved("a", 20) + noise + ENDED + _begun("b") + _moved("b", 7)
    )
    folder = _folder(tmp_path, text + line(kind="run_ended", state="failed", text="b: no money"))
    state = RunState(folder).look()
    assert _states(state) == {"a": "done", "b": "failed"}
    assert state.state == "failed" and state.ended.text == "b: no money"


def test_two_writers_and_a_second_run(tmp_path: Path):
    mixed = [_moved(step, n, n % 60) for n in range(40) for step in ("a", "b")]
    folder = _folder(tmp_path, START + _begun("a") + _begun("b") + "".join(mixed))
    state = RunState(folder).look()
    assert {s.event.done for s in state.steps.values()} == {39.0}
    with (folder / "events.jsonl").open("a") as stream:
        stream.write(START + line(kind="step_ended", step="a", is_reused=True))
    assert _states(state.look()) == {"a": "reused", "b": "waiting"}
    assert state.state == "running" and state.outlook.num_done == 1


def test_a_run_whose_process_is_gone_is_stopped(tmp_path: Path):
    folder = _folder(tmp_path, START + _begun("a"), pid=2**22 + 1)
    assert RunState(folder).look().state == "stopped"
    (folder / "run.json").write_text('{"steps": [[[')
    assert RunState(folder).look().described.steps == []


def test_a_large_file_is_read_in_looks_of_bounded_size(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(runs, "MOST_READ", 1 << 20)
    monkeypatch.setattr(runs, "BLOCK", 1 << 18)
    progress = "".join(_moved("a", n % 100, note="x" * 60) for n in range(20_000))
    folder = _folder(tmp_path, START + _begun("a") + progress + _moved("a", 99))
    state, looks = RunState(folder), 0
    began = time.monotonic()
    while state.look().offset < state.size:
        looks += 1
    assert looks >= 2 and state.steps["a"].event.done == 99
    assert time.monotonic() - began < 20


def test_pages_of_runs(tmp_path: Path):
    store = tmp_path / "out"
    store.mkdir()
    get = client(store)
    assert "spyhop quickstart" in get.get("/").text
    made = artifact(store, "a.rows", [{"id": "1"}])
    usage = {"usd": 1.5, "requests": 30, "prompt_tokens": 500}
    detail = "3.0/s, $1.50, requests/min 40%, 3 of 8 in flight"
    second = {"name": "b", "inputs": {"rows": ["a"], "model": ["m (a)"]}}
    listed = [{"name": "a"}, second]
    folder = run(store, "trial", {"a": made}, state="running", pid=os.getpid(), listed=listed)
    moved = [_moved("b", 25, s, detail=detail, usage=usage, errors={"timeout": 2}) for s in (2, 6)]
    text = START + _begun("a") + ENDED + _begun("b") + "".join(moved)
    (folder / "events.jsonl").write_text(text + line(kind="note", step="b", text="<i>slow</i>"))
    html = get.get("/runs/out/trial").text
    for shown in ("$1.50", "$6.00", "40 % of the limit of requests/min", "2 failed: timeout", "500",
                  "&lt;i&gt;slow", f"/rows/out/{made.name}", "left", "25 / 100"):  # fmt: skip
        assert shown in html, shown
    assert html.count('class="edge"') == 1
    assert get.get("/runs/out/other").status_code == 404
    assert "file is not found" in get.get("/runs/out/trial/edit").text
