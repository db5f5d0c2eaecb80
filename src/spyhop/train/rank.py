"""One process of a training that is spread over several; torchrun starts it with a job's file."""

from __future__ import annotations

import json
import os
import pickle
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from spyhop.processes import exit_with_parent
from spyhop.schema import SpyhopError
from spyhop.stage import Progress
from spyhop.train.distributed import MARK, joined
from spyhop.train.loop import TrainingJob, train


def write_job(path: Path, job: TrainingJob) -> None:
    """Write a job for `main`; the rows' memory maps travel by name."""
    names = [str(job.rows.ids.filename), str(job.rows.is_supervised.filename)]  # type: ignore[attr-defined]
    bare = replace(job.rows, ids=np.empty(0, np.int32), is_supervised=np.empty(0, np.bool_))
    path.write_bytes(pickle.dumps((replace(job, rows=bare), names)))


def main(path: str) -> None:
    """Take part in a training; the first process reports progress on its standard output.

    Ends the process without Python's own ending: threads of gloo may still hold tensors then, and
    abort on freeing them without an interpreter.
    """
    exit_with_parent()
    job, (ids, is_supervised) = pickle.loads(Path(path).read_bytes())
    rows = replace(
        job.rows,
        ids=np.memmap(ids, dtype=np.int32, mode="r"),
        is_supervised=np.memmap(is_supervised, dtype=np.bool_, mode="r"),
    )
    with joined(job.runtime) as group:
        is_first = group.rank == 0

        def report(progress: Progress) -> None:
            if is_first:
                _tell({"progress": asdict(progress)})

        try:
            outcome = train(replace(job, rows=rows), group, report)
        except (SpyhopError, OSError) as error:
            number = getattr(error, "errno", None)
            text = str(error) if number is None else os.strerror(number)
            _tell({"error": type(error).__name__, "text": text, "errno": number})
            os._exit(1)  # the others wait for a word that will not come
        if is_first:
            _tell({"outcome": asdict(outcome)})
    os._exit(0)


def _tell(news: dict[str, Any]) -> None:
    sys.stdout.write(f"{MARK}{json.dumps(news)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
