"""Events of a run: what `runs/<name>/events.jsonl` contains, line by line, and how to read it.

`runs/<name>/run.json` describes the last run: its steps, command, version, date and state. Events
of several runs follow one another in the file; each run begins with `run_started`.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from spyhop import __version__
from spyhop.recipe.graph import RecipeStep
from spyhop.recipe.resolve import Resolved
from spyhop.schema import ArtifactError
from spyhop.stage import Progress
from spyhop.store import RUNS, Artifact, atomic_write

EVENTS, RUN = "events.jsonl", "run.json"
FAILED = "failed_attempts/"
LEAST_S, LEAST_FRAC = 1.0, 0.002
"""Progress of a step is written at most once a second, later once in 0.2 % of the time it took."""

State = Literal["running", "done", "stopped", "failed"]


class RunEvent(BaseModel):
    """One line of `events.jsonl`; fields with their default value are not written."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    time: str = ""
    """When it was logged, in UTC."""
    kind: Literal["run_started", "step_started", "progress", "note", "step_ended", "run_ended"]
    step: str = ""
    text: str = ""
    """Progress: the current activity. Note: the message. End of a run: the error, if any."""
    done: float = 0.0
    total: float | None = None
    """Amount at which the activity ends; absent if unknown."""
    unit: str = ""
    detail: str = ""
    """Progress: rates, costs and failures as one line for people."""
    rows: int | None = None
    usage: dict[str, float] = {}
    """Requests, tokens, dollars: of the activity so far, or of the whole step when it has ended."""
    errors: dict[str, int] = {}
    """Failed attempts by kind."""
    dropped: dict[str, int] = {}
    """Dropped rows by reason."""
    seconds: float = 0.0
    is_reused: bool = False
    """The step was finished by an earlier run."""
    state: State = "running"
    """Of the run, when it has ended."""
    planned_s: dict[str, float] = {}
    """Start of a run: planned seconds of each step, in the order of the recipe."""


Watch = Callable[[RunEvent], None]


def read_events(path: Path) -> Iterator[RunEvent]:
    """Yield the events of a file; lines that a kill cut or a later version wrote are skipped."""
    with path.open("rb") as lines:
        for line in lines:
            try:
                event = RunEvent.model_validate_json(line)
            except ValidationError:
                continue
            yield event


class RunLog:
    """Writes the events of one run, and passes each to a watcher."""

    def __init__(
        self, resolved: Resolved, planned_s: Mapping[str, float], watch: Watch, part: str = ""
    ) -> None:
        self._folder = resolved.root / RUNS / resolved.recipe.name / part
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"{resolved.root}: cannot be written ({error.strerror})") from None
        self._watch = watch
        self._last: dict[str, RunEvent] = {}
        self._written: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._run = _describe(resolved)
        self._write_run()
        self._emit(RunEvent(kind="run_started", planned_s=dict(planned_s)))

    def started(self, step: RecipeStep) -> None:
        """Log that a step has started."""
        self._started[step.name] = monotonic()
        self._emit(RunEvent(kind="step_started", step=step.name))

    def moved(self, step: RecipeStep, progress: Progress) -> None:
        """Log progress of a step, or a note; within one activity, progress never decreases."""
        if progress.is_lasting:
            self._emit(RunEvent(kind="note", step=step.name, text=progress.doing))
            return
        last = self._last.get(step.name)
        done = progress.done
        if last and (last.text, last.total) == (progress.doing, progress.total):
            done = max(done, last.done)
        event = RunEvent(
            kind="progress", step=step.name, text=progress.doing, done=done, total=progress.total,
            unit=progress.unit, detail=progress.note, usage=dict(progress.usage),
            errors=dict(progress.errors),
        )  # fmt: skip
        self._last[step.name] = event
        now, elapsed = monotonic(), monotonic() - self._started[step.name]
        if now - self._written.get(step.name, 0.0) >= max(LEAST_S, LEAST_FRAC * elapsed):
            self._written[step.name] = now
            self._append(event)
        self._watch(event)

    def ended(self, step: RecipeStep, artifact: Artifact, *, is_hit: bool) -> None:
        """Log that a step has ended, or was finished by an earlier run."""
        record, used = artifact.record, artifact.record.usage
        failed = {k.removeprefix(FAILED): int(v) for k, v in used.items() if k.startswith(FAILED)}
        self._emit(RunEvent(
            kind="step_ended", step=step.name, rows=record.rows, dropped=record.dropped,
            usage={k: v for k, v in used.items() if not k.startswith(FAILED)},
            errors=failed, seconds=record.seconds, is_reused=is_hit,
        ))  # fmt: skip

    def close(self, error: BaseException | None) -> None:
        """Log the end of the run: done, stopped by a signal, or failed."""
        state: State = "done"
        if error is not None:
            state = "failed" if isinstance(error, Exception) else "stopped"
        self._run |= {"state": state, "ended": _now(), "error": str(error or "")}
        self._write_run()
        self._emit(RunEvent(kind="run_ended", text=str(error or ""), state=state))

    def _emit(self, event: RunEvent) -> None:
        self._watch(self._append(event))

    def _append(self, event: RunEvent) -> RunEvent:
        """Append one whole line by one write, after a line that a kill may have cut."""
        path = self._folder / EVENTS
        event = event.model_copy(update={"time": _now()})
        line = event.model_dump_json(exclude_defaults=True).encode() + b"\n"
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line
            os.write(file, line)
        finally:
            os.close(file)
        return event

    def _write_run(self) -> None:
        with atomic_write(self._folder / RUN) as temporary:
            text = json.dumps(self._run, indent=1, ensure_ascii=False, default=str)
            temporary.write_text(f"{text}\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _describe(resolved: Resolved) -> dict[str, Any]:
    """Return what `run.json` says of a run that has just started."""
    file = resolved.recipe.file
    program = Path(sys.argv[0])  # a script that runs a recipe, or the command however started
    named = "spyhop" if program.stem in ("spyhop", "__main__") else str(program)
    steps = [
        {
            "name": step.name,
            "stage": step.stage.name,
            "version": step.stage.version,
            "key": resolved.keys[step.name],
            "config": step.config.model_dump(mode="json"),
            "inputs": {name: list(each.values()) for name, each in resolved.labels(step).items()},
        }
        for step in resolved.recipe.steps
    ]
    return {
        "recipe": resolved.recipe.name,
        "settings": file.tables() if file else None,
        "settings_folder": str(file.path.absolute().parent) if file else None,
        "state": "running",
        "command": shlex.join([named, *sys.argv[1:]]),
        "folder": str(Path.cwd()),
        "spyhop": __version__,
        "pid": os.getpid(),
        "started": _now(),
        "steps": steps,
    }


def when(event: RunEvent) -> float:
    """Return the time of an event, in seconds since 1970; of one without, the present."""
    try:
        return datetime.fromisoformat(event.time).timestamp()
    except ValueError:
        return time()


MIN_FRAC = 0.02
"""Part of a step's activity, or of a plan, that has to be done before time is extrapolated."""


class Outlook:
    """Overall progress of a run, computed from its events as they come or from a file."""

    def __init__(self) -> None:
        self.num_steps = self.num_done = 0
        self._planned_s: dict[str, float] = {}
        self._running: dict[str, tuple[float, float]] = {}
        """When a step started, and the fraction of its activity that is done."""
        self._planned_done_s = self._seconds_done = 0.0

    def take(self, event: RunEvent) -> None:
        """Account for an event."""
        if event.kind == "run_started":
            self._planned_s = dict(event.planned_s)
            self.num_steps = len(event.planned_s)
        elif event.kind == "step_started":
            self._running[event.step] = (when(event), 0.0)
        elif event.kind == "progress" and event.total and event.step in self._running:
            started, _ = self._running[event.step]
            self._running[event.step] = (started, min(1.0, event.done / event.total))
        elif event.kind == "step_ended":
            self.num_done += 1
            planned_s = self._planned_s.pop(event.step, 0.0)
            if self._running.pop(event.step, None):
                self._planned_done_s += planned_s
                self._seconds_done += event.seconds

    def seconds_left(self) -> float | None:
        """Return the expected time to the end; None while too little is known.

        Running steps are extrapolated from their progress. Waiting steps take as long as planned,
        corrected by how far the finished and the running ones differ from their plan.
        """
        if self.num_done >= self.num_steps:
            return None
        planned, taken = self._planned_done_s, self._seconds_done
        for name, (started, frac) in self._running.items():
            if frac > MIN_FRAC:
                planned += self._planned_s.get(name, 0.0) * frac
                taken += time() - started
        if not taken or planned < MIN_FRAC * (self._planned_done_s + sum(self._planned_s.values())):
            return None  # short steps tell little about long ones
        factor, left = taken / planned if planned else 1.0, 0.0
        for name, (started, frac) in self._running.items():
            elapsed = time() - started
            by_plan = self._planned_s.get(name, 0.0) * factor - elapsed
            left = max(left, elapsed * (1 - frac) / frac if frac > MIN_FRAC else by_plan)
        waiting = sum(s for name, s in self._planned_s.items() if name not in self._running)
        return left + waiting * factor / max(1, len(self._running))
