"""Processes that share the parts of a corpus. No page can hang or take them along.

A worker tells which page it begins. One that is silent for longer than a page may take is killed;
its page is given up with a reason, and a new worker goes on with the rest of the part.
"""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic

from spyhop.corpus.read import Part
from spyhop.corpus.work import SegmentConfig
from spyhop.corpus.worker import Job, Step, is_done
from spyhop.schema import ArtifactError

POLL_S = 0.2
START_S = 60.0
"""Patience with a process that has not said anything yet: it may be importing on a busy machine."""
MAX_DEATHS = 3
"""Times that a worker may die over one page, or between pages, of its own accord."""


class Pool:
    """Worker processes over the parts of a corpus."""

    def __init__(
        self,
        parts: Sequence[Part],
        config: SegmentConfig,
        folder: Path,
        num_workers: int,
        tell: Callable[[int, Counter[str]], None] = lambda number, tally: None,
    ) -> None:
        """Let finished parts and chunks in `folder` stand; `tell` hears of each new chunk."""
        self._config = config
        self._tell = tell
        self._waiting = [
            Job(number, part, config, folder)
            for number, part in enumerate(parts)
            if not is_done(folder, number)
        ]
        self._num_workers = min(num_workers, len(self._waiting))
        self._workers: list[_Worker] = []

    def run(self) -> Iterator[int]:
        """Yield the number of each part as it is finished, in any order.

        Raises:
            ArtifactError: If workers die again and again without working on any page.
        """
        try:
            self._workers = [_Worker() for _ in range(self._num_workers)]
            while self._waiting or any(worker.job for worker in self._workers):
                for worker in self._workers:
                    if worker.job is None and self._waiting:
                        worker.start(self._waiting.pop(0))
                ready = wait([worker.news for worker in self._workers if worker.job], POLL_S)
                for worker in self._workers:
                    if worker.news in ready:
                        yield from self._hear(worker)
                    elif worker.job and worker.silence_s() > self._patience(worker):
                        self._replace(worker, "time_cap")
        finally:
            self.close()

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        for worker in self._workers:
            worker.kill()

    def _patience(self, worker: "_Worker") -> float:
        return self._config.page_s + (0.0 if worker.has_spoken else START_S)

    def _hear(self, worker: "_Worker") -> Iterator[int]:
        job = worker.job
        assert job
        try:
            steps = worker.hear()
        except (EOFError, OSError):
            self._replace(worker, "crash")
            return
        for step in steps:
            if step.tally:
                self._tell(job.number, step.tally)
            if step.kind == "done":
                worker.job = None
                yield job.number

    def _replace(self, worker: "_Worker", reason: str) -> None:
        """Put a new process in a dead one's place, and its part first in the queue."""
        job, step = worker.job, worker.step
        assert job
        worker.kill()
        worker.deaths[job.number, step.kind, step.page] += 1
        deaths = worker.deaths[job.number, step.kind, step.page]
        self._waiting.insert(0, _after(job, step, reason, deaths))
        fresh = _Worker()
        fresh.deaths = worker.deaths
        self._workers[self._workers.index(worker)] = fresh


def _after(job: Job, step: Step, reason: str, deaths: int) -> Job:
    """Return the job that goes on after a worker's death.

    A page that takes too long is given up at once. A death by other hands (a kill, no memory left)
    is first taken for an accident, then for the page's doing.
    """
    if reason == "crash" and deaths < MAX_DEATHS:
        return job
    if step.kind == "working" and step.page not in job.given_up:
        return replace(job, given_up={**job.given_up, step.page: reason})
    if step.kind == "reading" and reason == "time_cap":
        return replace(job, unread=step.page)
    raise ArtifactError(
        f"{job.part.files[0][1]}: its workers died {deaths} times "
        f"{'over a page given up' if step.kind == 'working' else 'between pages'}; "
        "memory may be short: use fewer workers, and run again to go on"
    )


@dataclass(eq=False)
class _Worker:
    """A process, its job and its last step."""

    job: Job | None = None
    step: Step = field(default_factory=lambda: Step("starting"))
    deaths: Counter[tuple[int, str, int]] = field(default_factory=Counter)
    has_spoken: bool = False
    _since: float = field(default_factory=monotonic)

    def __post_init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from spyhop.corpus.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is the run's; it ends its workers itself
        )
        assert self._process.stdin and self._process.stdout
        self._jobs = Connection(os.dup(self._process.stdin.fileno()), readable=False)
        self.news = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self._process.stdin.close()
        self._process.stdout.close()

    def start(self, job: Job) -> None:
        self.job, self.step = job, Step("starting")
        self._since = monotonic()
        with suppress(BrokenPipeError):  # it died; the next look at it tells
            self._jobs.send(job)

    def hear(self) -> list[Step]:
        steps = []
        while self.news.poll():
            try:
                steps.append(self.news.recv())
            except EOFError:
                if not steps:
                    raise
                break
        self.step, self._since, self.has_spoken = steps[-1], monotonic(), True
        return steps

    def silence_s(self) -> float:
        return monotonic() - self._since

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._jobs.close()
        self.news.close()
