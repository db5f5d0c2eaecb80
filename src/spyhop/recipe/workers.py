"""Processes that make artifacts. They exit with the run; finished artifacts are kept."""

import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from spyhop.processes import ProcessDied, WorkerProcess, WorkItem, ready
from spyhop.runtime import Runtime, Shard
from spyhop.schema import ArtifactError, Config, SpyhopError
from spyhop.stage import REPORT_S, Progress, Stage, StageInput
from spyhop.store import Artifact

STOPPING = (signal.SIGTERM, signal.SIGHUP)
GRACE_S = 35.0
"""A little more than a served model waits for answers on their way."""


@dataclass(frozen=True, slots=True)
class StepItem(WorkItem):
    """One step to make."""

    step: str
    stage: Stage
    config: Config
    inputs: dict[str, StageInput]
    runtime: Runtime
    origins: dict[str, dict[str, str]]
    served: frozenset[str] = frozenset()
    """Served models that it asks, and may have paid."""
    force: bool = False
    """Made even if it is there."""
    shard: Shard | None = None

    def make(self, root: Path, report: Callable[[Progress], None]) -> Artifact:
        """Make the step's artifact in this process; an error names the step."""
        try:
            return self.stage.run(
                root, self.config, runtime=self.runtime, report=report, origins=self.origins,
                force=self.force, shard=self.shard, **self.inputs,
            )  # fmt: skip
        except SpyhopError as error:
            raise type(error)(f"{self.step}: {error}") from None


@dataclass(frozen=True, slots=True)
class Event:
    """News of a step: progress, or its end with an artifact or an error."""

    step: str
    progress: Progress | None = None
    artifact: Artifact | None = None
    error: Exception | None = None


class Workers:
    """A fixed number of processes; each makes one step at a time and keeps its imports warm."""

    def __init__(self, root: Path, num_workers: int) -> None:
        self._root = root
        self._num_workers = num_workers
        self._idle: list[WorkerProcess] = []
        self._busy: dict[WorkerProcess, StepItem] = {}

    def has_room(self) -> bool:
        """Return whether another step can start now."""
        return len(self._busy) < self._num_workers

    def is_busy(self) -> bool:
        """Return whether any step is being made."""
        return bool(self._busy)

    def served(self) -> frozenset[str]:
        """Return the served models that running steps ask."""
        return frozenset(model for item in self._busy.values() for model in item.served)

    def start(self, item: StepItem) -> None:
        """Send a step to an idle worker, or to a new process."""
        if "__main__" in (item.stage.function.__module__, type(item.config).__module__):
            raise ArtifactError(
                f"{item.step}: its stage is defined in the script that runs, so worker processes "
                "cannot import it; move it to a module, or set workers = 1"
            )
        if self._idle:
            worker = self._idle.pop()
        else:
            worker = WorkerProcess("spyhop.recipe.workers:serve")
            worker.send(self._root)
        worker.send(item)
        self._busy[worker] = item

    def events(self) -> list[Event]:
        """Wait for news of the running steps; the list is empty when nothing runs."""
        news = []
        for worker in ready(list(self._busy)):
            item = self._busy[worker]
            try:
                event: Event = worker.receive()
            except ProcessDied as error:
                text = f"{item.step}: worker process died ({error}); rerun to resume"
                event = Event(item.step, error=ArtifactError(text))
                del self._busy[worker]
            if event.artifact or (event.error and worker in self._busy):
                del self._busy[worker]
                self._idle.append(worker)
            news.append(event)
        return news

    def close(self) -> None:
        """End all processes, whatever they are doing: their work can be resumed.

        Those that ask served models first wait for the replies in flight.
        """
        asking = [worker for worker, item in self._busy.items() if item.served]
        for worker in asking:
            worker.terminate()
        for worker in asking:
            worker.kill(GRACE_S)
        for worker in [*self._idle, *self._busy]:
            worker.kill()


def serve(receive: Callable[[], Any], send: Callable[[Event], None]) -> None:
    """Make one step after the other; the first message is the store."""
    for number in STOPPING:
        signal.signal(number, _stop)
    root: Path = receive()
    try:
        while True:
            item: StepItem = receive()
            send(_make(item, root, send))
    except KeyboardInterrupt:  # told to stop: the replies in flight are in the journal now
        return


def _make(item: StepItem, root: Path, send: Callable[[Event], None]) -> Event:
    last_s = 0.0

    def report(progress: Progress) -> None:
        """Send progress to the run, seldom enough to cost nothing."""
        nonlocal last_s
        now = monotonic()
        if progress.is_lasting or now - last_s >= REPORT_S:
            last_s = now
            send(Event(item.step, progress=progress))

    try:
        return Event(item.step, artifact=item.make(root, report))
    except SpyhopError as error:
        return Event(item.step, error=error)
    except Exception:  # noqa: BLE001 (the edge of a process: the traceback crosses as text)
        return Event(item.step, error=RuntimeError(f"{item.step}:\n{traceback.format_exc()}"))


def _stop(number: int, frame: object) -> None:
    """Unwind what is going on, as Ctrl-C does in a run of one process."""
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt
