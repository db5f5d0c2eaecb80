"""One training in several processes.

Either a run starts them, with torchrun and this module; or torchrun (or any launcher that sets its
variables) has started the same command several times: then the first process runs the recipe, and
the others take part in its trainings.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from spyhop.lazy import dist
from spyhop.processes import exit_with_parent
from spyhop.schema import InputError, ModelError, RecipeError, SpyhopError, TrainingError
from spyhop.stage import Progress
from spyhop.train.distributed import joined
from spyhop.train.engine import TrainingResult
from spyhop.train.loop import Report, TrainingJob, train

MARK = "spyhop-news "
"""Opens a line of a rank's output that is meant for the process that started it."""
LOG = "processes.log"
"""All else that the processes of a training said, beside its job."""
END_S, POLL_S = 5.0, 0.2
ERRORS = {kind.__name__: kind for kind in (InputError, ModelError, RecipeError, TrainingError)}
"""Errors that another process may report by name; any other is the system's."""
_REASON = re.compile(r"^(?:\[rank\d+\]: )?((?:\w+\.)*\w*(?:Error|Exception): .*|.*Signal \d+ .*)")
"""Opens the last line of a traceback; or torchrun's report of a process that was killed."""
_SIGNAL = re.compile(r"Signal (\d+) ")


def train_together(job: TrainingJob, report: Report) -> TrainingResult:
    """Train in `runtime.gpus` processes, and pass on their reports.

    The processes end when this one does, however it ends: their standard input closes.

    Raises:
        TrainingError: If a process fails without having reported an error.
    """
    path, log = _write(job), job.state / LOG
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={job.runtime.gpus}"]
    process = subprocess.Popen(
        [sys.executable, *torchrun, "--standalone", "-m", "spyhop.train.rank", str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(job.runtime.threads)},
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    outcome = None
    try:
        with log.open("w") as stream:
            for line in process.stdout:
                if not line.startswith(MARK):
                    stream.write(line)
                    stream.flush()
                    continue
                news = json.loads(line.removeprefix(MARK))
                if "progress" in news:
                    report(Progress(**news["progress"]))
                elif "outcome" in news:
                    outcome = TrainingResult(**news["outcome"])
                elif kind := ERRORS.get(news["error"]):
                    raise kind(news["text"])
                else:
                    raise OSError(*([news["errno"]] if news["errno"] else []), news["text"])
        code = abs(process.wait())
    finally:
        process.stdin.close()
        process.stdout.close()
        process.terminate()
        process.wait()
    if code:
        raise _failure(log, code)
    if outcome is None:
        raise TrainingError("the training processes ended without a result; run again to resume")
    return outcome


def main(path: str) -> None:
    """Take part in a training; the first process reports progress on its standard output.

    Ends the process without Python's own ending: threads of gloo may still hold tensors then, and
    abort on freeing them without an interpreter.
    """
    exit_with_parent()
    job = _read(path)
    with joined(job.runtime) as group:
        try:
            outcome = train(job, group, _report if group.rank == 0 else lambda progress: None)
        except (SpyhopError, OSError) as error:
            number = getattr(error, "errno", None)
            text = str(error) if number is None else os.strerror(number)
            _tell(error=type(error).__name__, text=text, errno=number)
            os._exit(1)  # the others wait for a word that will not come
        if group.rank == 0:
            _tell(outcome=asdict(outcome))
    os._exit(0)


def launched() -> tuple[int, int]:
    """Return this process's rank, and how many a launcher has started; 0 and 1 without one."""
    is_launched = {"RANK", "WORLD_SIZE"} <= os.environ.keys()
    return (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if is_launched else (0, 1)


def train_with_peers(job: TrainingJob, report: Report) -> TrainingResult:
    """Train in the first process, together with those that `help_train`."""
    path, number = _write(job), _store().add("trainings", 1)
    _store().set(f"training-{number}", str(path))
    with joined(job.runtime, dist.PrefixStore(f"group-{number}", _store())) as group:
        return train(job, group, report)


def help_train() -> None:
    """Take part in every training of the first process, until it ends."""
    number = 0
    while path := _next_job(number := number + 1):
        job = _read(path)
        with joined(job.runtime, dist.PrefixStore(f"group-{number}", _store())) as group:
            try:
                train(job, group, lambda progress: None)
            except (SpyhopError, OSError) as error:
                print(f"spyhop: process {group.rank}: {error}", file=sys.stderr)  # noqa: T201
                time.sleep(END_S)  # an error of all is reported by the first process
                os._exit(1)  # the others wait for a word that will not come


def dismiss_helpers() -> None:
    """Let the other processes end, as the first one does."""
    _store().set(f"training-{_store().add('trainings', 1)}", "")


@cache
def _store() -> Any:  # noqa: ANN401 (torch's store)
    """Return the table of values that all processes see; torchrun keeps it, or the first one."""
    return next(dist.rendezvous("env://"))[0]


def _next_job(number: int) -> str:
    """Wait for a training of the first process; empty when there will be no more."""
    try:
        while not _store().check([f"training-{number}"]):
            time.sleep(POLL_S)
        return str(_store().get(f"training-{number}").decode())
    except (RuntimeError, OSError):  # the first process has ended
        return ""


def _write(job: TrainingJob) -> Path:
    """Write what the other processes need to know; they read the rows from their files."""
    path = job.state / "job.pickle"
    maps = [job.rows.ids.filename, job.rows.is_supervised.filename]  # type: ignore[attr-defined]
    bare = replace(job.rows, ids=np.empty(0, np.int32), is_supervised=np.empty(0, np.bool_))
    path.write_bytes(pickle.dumps((replace(job, rows=bare), *map(str, maps))))
    return path


def _read(path: str | Path) -> TrainingJob:
    job, ids, is_supervised = pickle.loads(Path(path).read_bytes())
    rows = replace(
        job.rows,
        ids=np.memmap(ids, dtype=np.int32, mode="r"),
        is_supervised=np.memmap(is_supervised, dtype=np.bool_, mode="r"),
    )
    found: TrainingJob = replace(job, rows=rows)
    return found


def _report(progress: Progress) -> None:
    _tell(progress=asdict(progress))


def _tell(**news: object) -> None:
    sys.stdout.write(f"{MARK}{json.dumps(news)}\n")
    sys.stdout.flush()


def _failure(log: Path, code: int) -> TrainingError:
    """Return the first reason that the processes gave, with all they said as a note."""
    text = log.read_text(errors="replace")
    reasons = [found[1] for line in text.splitlines() if (found := _REASON.match(line))]
    signals = [each for each in reasons if (found := _SIGNAL.search(each)) and found[1] != "15"]
    reason = (signals or reasons or [f"exit code {code}"])[0].strip()  # 15: ended with the others
    error = TrainingError(f"a process of the training failed: {reason:.300} (all it said: {log})")
    error.add_note(text)
    return error


if __name__ == "__main__":
    main(sys.argv[1])
