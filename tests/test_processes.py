import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from spyhop import processes
from spyhop.processes import ProcessDied, Service, WorkerProcess, WorkItem, cause_of_death, ready


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("exit", "exit code 3"),
        ("SIGKILL", "killed by SIGKILL (the machine may be out of memory)"),
        ("SIGSEGV", "killed by SIGSEGV"),
    ],
)
def test_a_death_is_one_line_that_says_how(how: str, said: str):
    worker = WorkerProcess("support.child:end")
    worker.send(how)
    with pytest.raises(ProcessDied) as error:
        worker.receive()
    assert str(error.value) == said


def test_messages_come_back_and_prints_are_none_of_them():
    worker = WorkerProcess("support.child:read_standard_input")
    try:
        worker.send("go")
        assert worker.receive() == ""  # its standard input is empty, and no message was read there
    finally:
        worker.kill()


def test_a_worker_is_killed_at_its_time_cap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "START_S", 20.0)
    worker = WorkerProcess("support.child:sleep")
    worker.send(WorkItem(time_s=0.3))
    child = psutil.Process(worker.receive())
    started = time.monotonic()
    with pytest.raises(ProcessDied, match="killed at its time cap"):
        worker.receive()
    assert 0.2 < time.monotonic() - started < 5 and not child.is_running()


def test_a_worker_keeps_to_its_memory_cap():
    worker = WorkerProcess("support.child:allocate", OMP_NUM_THREADS="1")
    try:
        worker.send(WorkItem(memory_bytes=1 << 30))
        assert worker.receive() == "memory"
    finally:
        worker.kill()


def test_a_service_keeps_its_worker_and_replaces_a_dead_one():
    service = Service("support.child:number", WorkItem(time_s=30))
    try:
        first = service.ask("go")
        assert service.ask("go") == first != os.getpid()
        with pytest.raises(ProcessDied, match="exit code 0"):
            service.ask("end")
        second = service.ask("go")
        assert second != first and not psutil.pid_exists(first)
    finally:
        service.close()
    assert not psutil.pid_exists(second)


def test_ready_returns_the_workers_with_news():
    workers = [WorkerProcess("support.child:echo") for _ in range(2)]
    try:
        workers[1].send("hello")
        assert ready(workers, 30) == [workers[1]] and workers[1].receive() == "hello"
        assert ready(workers, 0) == [] == ready([])
    finally:
        for worker in workers:
            worker.kill()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_dies_with_its_parent(how: int):
    code = (
        "import time\nfrom spyhop.processes import WorkerProcess\n"
        "worker = WorkerProcess('support.child:sleep')\nworker.send(1)\n"
        "print(worker.receive(), flush=True)\ntime.sleep(60)"
    )
    path = os.pathsep.join(part for part in sys.path if part)
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(how)
    _, alive = psutil.wait_procs([child], timeout=10)
    assert not alive


def test_causes_of_death():
    assert cause_of_death(0) == "exit code 0" and cause_of_death(-15) == "killed by SIGTERM"


def test_a_worker_that_is_left_ends_with_python_and_without_a_warning():
    code = (
        "from spyhop.processes import WorkerProcess\n"
        "worker = WorkerProcess('support.child:echo')\nworker.send(1)\nprint(worker.receive())"
    )
    path = os.pathsep.join(part for part in sys.path if part)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
