"""What a person sees while a recipe runs."""

import io
import re

import pytest
from rich.console import Console

from spyhop.recipe.events import Outlook, RunEvent
from spyhop.recipe.watch import Display

NOTE = (
    "5.6/s, $12.34 of about $150.00, lost 3, overloaded 12, throttled 7, "
    "requests 14%, tokens 99%, 16 of 64 in flight"
)
ASKING = RunEvent(
    kind="progress", step="answers", text="asking gpt-4o", done=43, total=300, unit="rows",
    detail=NOTE,
)  # fmt: skip


def _shown(width: int, *events: RunEvent, is_terminal: bool = True) -> list[str]:
    """The lines that a run draws or prints, without colours."""
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=is_terminal, width=width, highlight=False, soft_wrap=True
    )
    with Display(console) as display:
        display(RunEvent(kind="run_started", planned_s={"prompts": 60, "answers": 60, "rate": 90}))
        display(RunEvent(kind="step_ended", step="prompts", rows=3, is_reused=True))
        display(RunEvent(kind="step_started", step="answers"))
        for event in events:
            display(event)
        display._bars.refresh()
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).replace("\r", "\n").split("\n")


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_nothing_of_a_note_is_cut(width):
    lines = _shown(width, ASKING)
    assert max(len(line) for line in lines) <= width
    assert NOTE in " ".join(" ".join(lines).split())
    if width >= 80:
        assert any("answers" in line and "43/300 rows" in line for line in lines)
    assert any(line.startswith("1 of 3 steps done, about ") for line in lines)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_note_is_printed_on_terminals_and_elsewhere(is_terminal):
    said = "another run is making it; waiting for that one"
    note = RunEvent(kind="note", step="answers", text=said)
    assert f"note answers: {said}" in _shown(80, note, is_terminal=is_terminal)


def test_an_ended_step_is_a_line_and_a_reused_one_is_counted():
    ended = RunEvent(kind="step_ended", step="answers", rows=1200, dropped={"cut": 7}, seconds=2.5)
    lines = _shown(80, ASKING, ended, is_terminal=False)
    assert "done answers 1,200 rows, 7 dropped 2.5 s" in [" ".join(line.split()) for line in lines]
    assert re.fullmatch(r"done in \d+\.\d s: 1 steps run, 1 reused", lines[-2])


def test_the_time_left_follows_the_plan_corrected_by_what_has_ended(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("spyhop.recipe.events.time", lambda: clock[0])
    outlook = Outlook()
    outlook.take(RunEvent(kind="run_started", planned_s={"a": 10, "b": 30, "c": 50}))
    outlook.take(RunEvent(kind="step_started", step="a"))
    assert outlook.seconds_left() is None  # nothing is known of this machine
    clock[0] += 20
    outlook.take(RunEvent(kind="step_ended", step="a", seconds=20))  # twice as slow as planned
    assert outlook.seconds_left() == pytest.approx(2 * (30 + 50))
    outlook.take(RunEvent(kind="step_started", step="b"))
    clock[0] += 15
    assert outlook.seconds_left() == pytest.approx(2 * 30 - 15 + 2 * 50)
    outlook.take(RunEvent(kind="progress", step="b", text="x", done=25, total=100))
    assert outlook.seconds_left() == pytest.approx(3 * 15 + 2 * 50)
    outlook.take(RunEvent(kind="step_ended", step="b", seconds=60))
    outlook.take(RunEvent(kind="step_ended", step="c", is_reused=True))
    assert outlook.seconds_left() is None and outlook.num_done == outlook.num_steps == 3


def test_short_steps_that_took_longer_than_planned_do_not_decide_the_time_left(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("spyhop.recipe.events.time", lambda: clock[0])
    outlook = Outlook()
    outlook.take(RunEvent(kind="run_started", planned_s={"read": 0.1, "train": 100, "ask": 100}))
    outlook.take(RunEvent(kind="step_started", step="read"))
    outlook.take(RunEvent(kind="step_ended", step="read", seconds=10))
    outlook.take(RunEvent(kind="step_started", step="train"))
    assert outlook.seconds_left() is None
    clock[0] += 30
    outlook.take(RunEvent(kind="progress", step="train", text="x", done=60, total=100))
    factor = (10 + 30) / (0.1 + 60)
    assert outlook.seconds_left() == pytest.approx(20 + 100 * factor)
