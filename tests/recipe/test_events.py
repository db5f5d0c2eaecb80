"""What a run writes down while it runs."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import spyhop
import toys
from spyhop.recipe import Recipe, resolve, run
from spyhop.recipe.events import RunEvent, RunLog, read_events
from spyhop.runtime import Runtime
from spyhop.schema import InputError
from spyhop.stage import Progress
from spyhop.store import forget, strays
from toys import Numbers


def _recipe(*, wrong: bool = False) -> Recipe:
    r = Recipe("toy")
    few = r.add("few", toys.numbers, Numbers(num_rows=3))
    r.add("odd", toys.odd_only, Numbers(), rows=few)
    if wrong:
        r.add("bad", toys.failing, Numbers())
    return r


def _events(root: Path) -> list[RunEvent]:
    return list(read_events(root / "runs/toy/events.jsonl"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_writes_its_events_and_the_watcher_receives_the_same(tmp_path: Path, workers: int):
    seen: list[RunEvent] = []
    run(resolve(_recipe(), tmp_path), Runtime(workers=workers), seen.append)
    events = _events(tmp_path)
    assert [event for event in seen if event.kind != "progress"] == [
        event for event in events if event.kind != "progress"
    ]
    steps = [(e.kind, e.step, e.rows) for e in events if e.kind.startswith("step")]
    assert steps == [
        ("step_started", "few", None), ("step_ended", "few", 3),
        ("step_started", "odd", None), ("step_ended", "odd", 1),
    ]  # fmt: skip
    assert events[0].planned_s == {"few": pytest.approx(7), "odd": 0.0}
    assert events[-1].kind == "run_ended" and events[-1].state == "done"
    again: list[RunEvent] = []
    run(resolve(_recipe(), tmp_path), Runtime(workers=workers), again.append)
    assert [e.is_reused for e in again if e.kind == "step_ended"] == [True, True]
    assert len(_events(tmp_path)) == len(events) + len(again)


def test_a_run_is_described_beside_its_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["spyhop", "run", "my file.toml"])
    states: list[str] = []
    file = tmp_path / "runs/toy/run.json"
    watch = lambda event: states.append(json.loads(file.read_text())["state"])  # noqa: E731
    with pytest.raises(InputError):
        run(resolve(_recipe(wrong=True), tmp_path), Runtime(), watch)
    told = json.loads(file.read_text())
    assert set(states[:-1]) == {"running"} and states[-1] == told["state"] == "failed"
    assert told["error"] == "bad: it fails" == _events(tmp_path)[-1].text
    assert told["command"] == "spyhop run 'my file.toml'" and told["spyhop"] == spyhop.__version__
    assert [step["name"] for step in told["steps"]] == ["few", "odd", "bad"]
    assert told["steps"][0]["config"]["num_rows"] == 3
    assert told["steps"][1]["inputs"] == {"rows": ["few"]}
    assert told["started"] <= told["ended"]


def test_the_files_of_a_run_are_no_steps(tmp_path: Path):
    run(resolve(_recipe(), tmp_path), Runtime())
    assert [link.name for link in strays(tmp_path, "toy", {"few"})] == ["odd"]
    forget(tmp_path, "toy", set())
    assert {path.name for path in (tmp_path / "runs/toy").iterdir()} == {"events.jsonl", "run.json"}


@pytest.mark.parametrize("torn", [b'{"kind": "progr', b'{"kind": "new kind"}', b"\xff\xfe", b"{}"])
def test_a_torn_or_foreign_line_costs_that_line_alone(tmp_path: Path, torn: bytes):
    run(resolve(_recipe(), tmp_path), Runtime())
    path = tmp_path / "runs/toy/events.jsonl"
    before = _events(tmp_path)
    with path.open("ab") as stream:
        stream.write(torn)
    assert _events(tmp_path) == before
    run(resolve(_recipe(), tmp_path), Runtime())
    after = _events(tmp_path)
    assert after[: len(before)] == before and after[len(before)].kind == "run_started"
    assert after[-1].state == "done"


def test_progress_never_runs_backwards_within_an_activity_and_is_written_seldom(tmp_path: Path):
    resolved = resolve(_recipe(), tmp_path)
    step = resolved.recipe.step("few")
    seen: list[RunEvent] = []
    log = RunLog(resolved, {}, seen.append)
    log.started(step)
    for done in (1, 5, 3, 4, 9):
        log.moved(step, Progress("asking", done, 10, "rows"))
    log.moved(step, Progress("writing", 2, 10, "rows"))
    log.moved(step, Progress("writing", 1, 20, "rows"))  # the next suite
    assert [e.done for e in seen if e.kind == "progress"] == [1, 5, 5, 5, 9, 2, 1]
    assert len([e for e in _events(tmp_path) if e.kind == "progress"]) == 1


def test_lines_of_two_writers_are_whole(tmp_path: Path):
    """Threads write as processes do: each line by a call of its own on a file of its own."""
    resolved = resolve(_recipe(), tmp_path)
    logs = [RunLog(resolved, {}, lambda event: None) for _ in range(2)]

    def write(log: RunLog, letter: str) -> None:
        for _ in range(200):
            note = Progress(letter * 900, 0, None, "", is_lasting=True)
            log.moved(resolved.recipe.steps[0], note)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, logs, "ab"))
    texts = [event.text for event in _events(tmp_path) if event.kind == "note"]
    assert sorted(texts) == ["a" * 900] * 200 + ["b" * 900] * 200
