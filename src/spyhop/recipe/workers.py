"""Processes that make artifacts. They exit with the run; finished artifacts are kept."""

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
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


News = Progress | Artifact | Exception
"""Progress of a step, or its end with an artifact or an error."""


class Workers:
    """Processes of which each makes one step at a time and keeps its imports warm."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._idle: list[WorkerProcess] = []
        self.busy: dict[WorkerProcess, StepItem] = {}

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
        self.busy[worker] = item

    def news(self) -> Iterator[tuple[str, News]]:
        """Wait for news of the running steps and yield them by step, if any step runs."""
        for worker in ready(list(self.busy)):
            step = self.busy[worker].step
            try:
                news: News = worker.receive()
            except ProcessDied as error:
                text = f"{step}: worker process died ({error}); rerun to resume"
                news = ArtifactError(text)
                del self.busy[worker]
            if not isinstance(news, Progress) and self.busy.pop(worker, None):
                self._idle.append(worker)
            yield step, news

    def close(self) -> None:
        """End all processes, whatever they are doing: their work can be resumed.

        Those that ask served models first wait for the replies in flight.
        """
        asking = [worker for worker, item in self.busy.items() if item.served]
        for worker in asking:
            worker.terminate()
        for worker in asking:
            worker.kill(GRACE_S)
        for worker in [*self._idle, *self.busy]:
            worker.kill()


def serve(receive: Callable[[], Any], send: Callable[[News], None]) -> None:
    """Make one step after the other; the first message is the store."""
    for number in STOPPING:
        signal.signal(number, _stop)
    root: Path = receive()
    last_s = 0.0

    def report(progress: Progress) -> None:
        """Send progress to the run, seldom enough to cost nothing."""
        nonlocal last_s
        now = monotonic()
        if progress.is_lasting or now - last_s >= REPORT_S:
            last_s = now
            send(progress)

    with suppress(KeyboardInterrupt):  # told to stop: the replies in flight are in the journal now
        while True:
            item: StepItem = receive()
            last_s = 0.0
            try:
                send(item.make(root, report))
            except SpyhopError as error:
                send(error)
            except Exception:  # noqa: BLE001 (the edge of a process: the traceback crosses as text)
                send(RuntimeError(f"{item.step}:\n{traceback.format_exc()}"))


def _stop(number: int, frame: object) -> None:
    """Unwind the work in progress, as Ctrl-C does in a run of one process."""
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt
