"""Child processes: they end with their parent, respect time and memory caps, and report deaths.

A worker runs `module:function` of this package in a separate process. The function receives a
callable that returns the next message and one that sends a message back:

    def serve(receive: Callable[[], Any], send: Callable[[Any], None]) -> None:
        while True:
            send(work_on(receive()))
"""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as _wait
from queue import SimpleQueue
from time import monotonic
from typing import Any, TypeVar

from spyhop.schema import SpyhopError

START_S = 60.0
"""Extra time until a process's first message: it may be importing on a busy machine."""
END_S = 5.0
"""Time for a process that closed its stream to exit by itself."""
_START = "import sys; sys.path[:] = sys.argv[2:]; from spyhop.processes import main; main()"
_PR_SET_PDEATHSIG = 1  # Linux sends a signal when the thread that started this process ends


class ProcessDied(SpyhopError):
    """A worker process died; the message says how (`killed by SIGKILL`, `exit code 1`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """A unit of work with its caps; each room's items add what their workers need."""

    time_s: float | None = None
    """Longest silence of a worker on this item; it may be killed afterwards."""
    memory_bytes: int | None = None
    """Address space of the worker process while it works on this item."""


class WorkerProcess:
    """A process that exchanges messages with this one, until it is killed or its parent ends.

    The thread that starts it must outlive it: on Linux the kernel kills the worker with it.
    """

    def __init__(self, serve: str, **env: str) -> None:
        """Start a process that calls `serve`, given as `module:function`."""
        self.item: WorkItem | None = None
        self._has_replied = False
        self._last = monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, serve, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **env},
            start_new_session=True,  # Ctrl-C reaches the parent alone; it ends its workers
        )
        weakref.finalize(self, _end, self._process)
        assert self._process.stdin and self._process.stdout
        self._inbox = Connection(os.dup(self._process.stdin.fileno()), readable=False)
        self._outbox = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self._process.stdin.close()
        self._process.stdout.close()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a message or the end arrives."""
        return self._outbox.fileno()

    def send(self, message: object) -> None:
        """Send a message; a `WorkItem` becomes the current item and sets its caps."""
        if isinstance(message, WorkItem):
            self.item = message
        self._last = monotonic()
        with suppress(BrokenPipeError):  # the process died; `receive` reports it
            self._inbox.send(message)

    def receive(self) -> Any:  # noqa: ANN401 (whatever the worker sends)
        """Wait for the next message, at most until the current item's time cap.

        Raises:
            ProcessDied: If the process has died, or was killed here at its time cap.
        """
        try:
            if not self._outbox.poll(self.time_left_s()):
                self.kill()
                raise ProcessDied("killed at its time cap")
            message = self._outbox.recv()
        except (EOFError, OSError):
            self.kill(END_S)
            raise ProcessDied(cause_of_death(self._process.returncode)) from None
        self._last, self._has_replied = monotonic(), True
        return message

    def has_message(self) -> bool:
        """Return whether `receive` would return at once (also with an error)."""
        return self._outbox.poll()

    def time_left_s(self) -> float | None:
        """Return the seconds until the current item's time cap; None without a cap."""
        if self.item is None or self.item.time_s is None:
            return None
        end = self._last + self.item.time_s + (0.0 if self._has_replied else START_S)
        return max(0.0, end - monotonic())

    def terminate(self) -> None:
        """Ask the process to stop (SIGTERM)."""
        self._process.terminate()

    def kill(self, grace_s: float = 0.0) -> None:
        """End the process, after waiting for it to exit by itself for up to `grace_s`."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self._process.kill()
        self._process.wait()
        self._inbox.close()
        self._outbox.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process whose owner is gone, at the latest when Python exits."""
    process.kill()
    process.wait()


class Service:
    """A worker that is started by the first request, and by the first one after its death.

    Each request is a `WorkItem` and a message. `first` is one that is made before any other:
    imports must not count towards a request's time cap.
    """

    def __init__(self, serve: str, *first: object) -> None:
        self._serve, self._first = serve, first
        self._worker: WorkerProcess | None = None
        self._lock = threading.Lock()

    def ask(self, *messages: object) -> Any:  # noqa: ANN401 (whatever the worker sends)
        """Send messages and return the reply, one caller after another.

        Raises:
            ProcessDied: If the worker dies, or exceeds the time cap of the item that was sent.
        """
        with self._lock:
            try:
                first = () if self._worker else self._first
                self._worker = self._worker or WorkerProcess(self._serve)
                for request in filter(None, (first, messages)):
                    for message in request:
                        self._worker.send(message)
                    reply = self._worker.receive()
                return reply
            except (ProcessDied, OSError):
                self._worker = None
                raise

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None


AnyWorker = TypeVar("AnyWorker", bound=WorkerProcess)


def ready(workers: Sequence[AnyWorker], timeout_s: float | None = None) -> list[AnyWorker]:
    """Wait until a worker has a message or has died; return all of which that is true."""
    if not workers:
        return []
    found = {worker.fileno(): worker for worker in workers}
    return [found[number] for number in _wait(list(found), timeout_s)]  # type: ignore[index]


def cause_of_death(code: int) -> str:
    """Say how a process ended, from its return code."""
    if code >= 0:
        return f"exit code {code}"
    hint = " (the machine may be out of memory)" if code == -signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{hint}"


def exit_with_parent(descriptor: int = 0) -> None:
    """Exit this process when a stream that its parent holds open ends."""

    def wait() -> None:
        while os.read(descriptor, 1024):  # no buffered reader: it holds a lock when Python ends
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Serve messages on the standard streams; the function to call is the first argument."""
    if sys.platform == "linux":  # a page may hold the interpreter's lock for long
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    inbox, outbox = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # output of libraries is not a message
    messages: SimpleQueue[Any] = SimpleQueue()

    def receive() -> Any:  # noqa: ANN401 (whatever the parent sends)
        message = messages.get()
        if isinstance(message, WorkItem) and message.memory_bytes is not None:
            most = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (message.memory_bytes, most))
        return message

    def read() -> None:
        try:
            while True:
                messages.put(inbox.recv())
        except EOFError:  # the parent has ended: drop the work in progress
            os._exit(0)
        except Exception:  # noqa: BLE001 (the edge of a process: a message that cannot be read)
            sys.excepthook(*sys.exc_info())
            os._exit(1)

    with suppress(BrokenPipeError):  # the parent has ended
        module, _, name = sys.argv[1].partition(":")
        serve = getattr(import_module(module), name)
        threading.Thread(target=read, daemon=True).start()
        serve(receive, outbox.send)
