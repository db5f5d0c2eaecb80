"""Processes that make artifacts: a worker dies with its run, and takes nothing finished along."""

import multiprocessing
import os
import signal
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic
from typing import Any

from spyhop.runtime import Runtime
from spyhop.schema import ArtifactError, Config, SpyhopError
from spyhop.stage import REPORT_S, Progress, Stage, StageInput
from spyhop.store import Artifact

GRACE_S = 35.0
"""A little more than a served model waits for answers on their way."""


@dataclass(frozen=True, slots=True)
class Job:
    """One node to make."""

    node: str
    stage: Stage
    config: Config
    inputs: dict[str, StageInput]
    runtime: Runtime
    names: dict[str, list[str]]
    served: frozenset[str] = frozenset()
    """Served models that it asks, and may have paid."""
    is_again: bool = False
    """Made even if it is there."""


@dataclass(frozen=True, slots=True)
class Event:
    """News of a job: progress, or its end with an artifact or an error."""

    node: str
    progress: Progress | None = None
    artifact: Artifact | None = None
    error: Exception | None = None


class Workers:
    """A fixed number of processes; each makes one node at a time and keeps its imports warm."""

    def __init__(self, root: Path, num_workers: int) -> None:
        self._root = root
        self._num_workers = num_workers
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, tuple[_Worker, Job]] = {}

    def has_room(self) -> bool:
        """Tell whether another job can start now."""
        return len(self._busy) < self._num_workers

    def is_busy(self) -> bool:
        """Tell whether any job is going on."""
        return bool(self._busy)

    def served(self) -> frozenset[str]:
        """Return the served models that running jobs ask."""
        return frozenset(model for _, job in self._busy.values() for model in job.served)

    def start(self, job: Job) -> None:
        """Hand a job to a free worker, or to a new process."""
        worker = self._idle.pop() if self._idle else _Worker(self._root)
        worker.pipe.send(job)
        self._busy[worker.pipe] = (worker, job)

    def events(self) -> list[Event]:
        """Wait for news of the running jobs; none when nothing runs."""
        news = []
        for pipe in wait(list(self._busy)) if self._busy else []:
            assert isinstance(pipe, Connection)
            worker, job = self._busy[pipe]
            try:
                event: Event = pipe.recv()
            except (EOFError, ConnectionResetError):
                worker.process.join()
                code = worker.process.exitcode
                error = ArtifactError(
                    f"{job.node}: its process ended without a word (exit code {code}; "
                    "-9 is often a lack of memory); run again to go on"
                )
                event = Event(job.node, error=error)
                del self._busy[pipe]
            if event.artifact or (event.error and pipe in self._busy):
                del self._busy[pipe]
                self._idle.append(worker)
            news.append(event)
        return news

    def close(self) -> None:
        """End all processes, whatever they are doing: their work can be taken up again.

        Those that ask served models first take in the answers on their way.
        """
        asking = [worker for worker, job in self._busy.values() if job.served]
        workers = self._idle + [worker for worker, _ in self._busy.values()]
        for worker in asking:
            worker.process.terminate()
        for worker in asking:
            worker.process.join(GRACE_S)
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.pipe.close()


class _Worker:
    def __init__(self, root: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, root), daemon=True)
        self.process.start()
        theirs.close()


def _serve(pipe: Connection, root: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run decides; it ends its workers itself
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        while True:
            job: Job = pipe.recv()
            pipe.send(_make(job, root, _Reporter(pipe, job.node)))
    except KeyboardInterrupt:  # told to stop: what was on its way is in the journal now
        return


def _make(job: Job, root: Path, report: "_Reporter") -> Event:
    try:
        artifact = job.stage.run(
            root, job.config, runtime=job.runtime, report=report, names=job.names,
            is_again=job.is_again, **job.inputs,
        )  # fmt: skip
    except SpyhopError as error:
        return Event(job.node, error=type(error)(f"{job.node}: {error}"))
    except Exception:  # noqa: BLE001 (the edge of a process: the traceback crosses as text)
        return Event(job.node, error=RuntimeError(f"{job.node}:\n{traceback.format_exc()}"))
    return Event(job.node, artifact=artifact)


def _stop(number: int, frame: object) -> None:
    """Unwind what is going on, as Ctrl-C does in a run of one process."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


class _Reporter:
    """Sends progress to the run, seldom enough to cost nothing."""

    def __init__(self, pipe: Connection, node: str) -> None:
        self._pipe = pipe
        self._node = node
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        now = monotonic()
        if progress.is_lasting or now - self._last >= REPORT_S:
            self._last = now
            self._pipe.send(Event(self._node, progress=progress))


def _die_with_parent() -> None:
    parent: Any = multiprocessing.parent_process()
    parent.join()
    os._exit(1)
