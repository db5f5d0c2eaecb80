"""Runs as they are now: their events, read once and then from where the last reading ended.

A file of events may be large, grow while it is read, end in the middle of a line, and contain the
events of two runs at once. It is read in blocks of whole lines; of a step's progress, only the last
report in a block is parsed.
"""

import json
import os
import re
import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from time import time
from typing import Any

from pydantic import ValidationError

from spyhop.recipe.events import EVENTS, RUN, RunEvent

BLOCK = 8 << 20
MOST_READ = 128 << 20
"""Bytes that one look reads at most; a page says that it is still reading."""
MOST_NOTES = 40
_KIND = re.compile(rb'^.*?"kind":"(progress|[a-z_]+)"(?:,"step":"([^"]*)")?', re.MULTILINE)


@dataclass(slots=True)
class StepState:
    """A step of the last run."""

    name: str
    state: str = "waiting"
    started: str = ""
    event: RunEvent | None = None
    """Its last progress, or its end."""
    recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=12))
    """Time and amount of its last reports."""

    @property
    def frac(self) -> float:
        """Share of its current activity that is done."""
        if self.state in ("done", "reused"):
            return 1.0
        is_known = self.event is not None and self.event.total and self.state != "waiting"
        return min(1.0, self.event.done / self.event.total) if is_known else 0.0  # type: ignore[union-attr, operator]

    @property
    def rate(self) -> float | None:
        """Amount a second, over its last reports."""
        if self.state != "running" or len(self.recent) < 2:
            return None
        (first, before), (last, now) = self.recent[0], self.recent[-1]
        return (now - before) / (last - first) if last > first and now >= before else None


@dataclass(slots=True)
class RunState:
    """The last run that a folder of `runs` describes, up to the events that were read."""

    folder: Path
    steps: dict[str, StepState] = field(default_factory=dict)
    planned_s: dict[str, float] = field(default_factory=dict)
    notes: deque[RunEvent] = field(default_factory=lambda: deque(maxlen=MOST_NOTES))
    ended: RunEvent | None = None
    last_time: str = ""
    offset: int = 0
    size: int = 0
    described: dict[str, Any] = field(default_factory=dict)
    """What `run.json` says."""
    _file: tuple[int, int] = (0, 0)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def describe(self) -> "RunState":
        """Read `run.json`."""
        try:
            found = json.loads((self.folder / RUN).read_bytes())
        except (OSError, ValueError, RecursionError):
            found = {}
        self.described = found if isinstance(found, dict) else {}
        return self

    def look(self) -> "RunState":
        """Read what was written since the last look."""
        with self._lock:
            self.describe()
            try:
                with (self.folder / EVENTS).open("rb") as stream:
                    self._read(stream)
            except OSError:
                self.size = 0
        return self

    def seconds_left(self) -> float | None:
        """Return the expected time to the end; None while too little is known."""
        ended = [s for s in self.steps.values() if s.state == "done" and s.event]
        planned = sum(self.planned_s.get(each.name, 0.0) for each in ended)
        took = sum(each.event.seconds for each in ended if each.event)
        factor = took / planned if planned else 1.0
        running = [each for each in self.steps.values() if each.state == "running"]
        lefts = [_left(each, factor * self.planned_s.get(each.name, 0.0)) for each in running]
        if self.state != "running" or not (planned or any(each.frac > 0.02 for each in running)):
            return None
        waiting = sum(
            self.planned_s.get(s.name, 0.0) for s in self.steps.values() if s.state == "waiting"
        )
        return max(lefts, default=0.0) + factor * waiting / max(1, len(running))

    @property
    def state(self) -> str:
        """State of the run: running, done, failed or stopped."""
        told = (
            self.ended.state if self.ended is not None else self.described.get("state", "running")
        )
        return (
            "stopped"
            if told == "running" and not _is_alive(self.described.get("pid"))
            else str(told)
        )

    def _read(self, stream: Any) -> None:  # noqa: ANN401 (a file)
        stat = os.fstat(stream.fileno())
        if (stat.st_dev, stat.st_ino) != self._file or stat.st_size < self.offset:
            self._file, self.offset = (stat.st_dev, stat.st_ino), 0
            self._begin(RunEvent(kind="run_started"))
        self.size, stop = stat.st_size, min(stat.st_size, self.offset + MOST_READ)
        stream.seek(self.offset)
        while self.offset < stop and (block := stream.read(BLOCK)):
            whole = block.rfind(b"\n") + 1
            if not whole and len(block) < BLOCK:
                break  # a line that is still written, or was cut
            self._take_block(block[: whole or len(block)])
            self.offset += whole or len(block)
            stream.seek(self.offset)

    def _take_block(self, block: bytes) -> None:
        """Take in the lines of a block; progress that a later report replaces is skipped."""
        last: dict[bytes, list[bytes]] = {}
        for found in _KIND.finditer(block):
            end = block.find(b"\n", found.end())
            line = block[found.start() : end if end >= 0 else len(block)]
            if found[1] == b"progress":
                last.setdefault(found[2] or b"", []).append(line)
                continue
            self._take_progress(last)
            self._take(line)
        self._take_progress(last)

    def _take_progress(self, lines: dict[bytes, list[bytes]]) -> None:
        for some in lines.values():
            for line in some[-12:]:
                self._take(line)
        lines.clear()

    def _take(self, line: bytes) -> None:
        try:
            event = RunEvent.model_validate_json(line)
        except ValidationError:
            return  # cut by a kill, or of a later version
        self.last_time = event.time or self.last_time
        step = self.steps.setdefault(event.step, StepState(event.step)) if event.step else None
        if event.kind == "run_started":
            self._begin(event)
        elif event.kind == "run_ended":
            self.ended = event
            for each in self.steps.values():
                each.state = event.state if each.state == "running" else each.state
        elif event.kind == "note":
            self.notes.append(event)
        elif step and event.kind == "step_started":
            step.state, step.started, step.event = "running", event.time, None
            step.recent.clear()
        elif step and event.kind == "step_ended":
            step.state, step.event = "reused" if event.is_reused else "done", event
        elif step and event.kind == "progress":
            if step.event is None or step.event.text != event.text:
                step.recent.clear()
            step.recent.append((_seconds(event.time), event.done))
            step.event = event

    def _begin(self, event: RunEvent) -> None:
        self.steps = {name: StepState(name) for name in event.planned_s}
        self.planned_s, self.ended = dict(event.planned_s), None
        self.notes.clear()


def _left(step: StepState, planned_s: float) -> float:
    elapsed = time() - _seconds(step.started)
    if step.frac > 0.02:
        return elapsed * (1 - step.frac) / step.frac
    return max(0.0, planned_s - elapsed)


def _seconds(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _is_alive(pid: object) -> bool:
    """Tell whether a process of this number runs on this machine."""
    try:
        os.kill(int(str(pid)), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return True
