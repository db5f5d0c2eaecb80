"""Tokenise chunks of rows in this process or several others, in the order of the rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spyhop.processes import ProcessDied, WorkerProcess
from spyhop.schema import Answer, TrainingError
from spyhop.train.encoding import Encoding, training_rows

_ENV = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
FIRST_IDS = 32
"""Rows of a chunk whose ids are kept: some of them may be held out."""


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Rows of one input as in its table, and the input's number."""

    input: int
    first: int
    """Number of its first row in the input."""
    rows: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """A chunk's rows that are trained on: `ids` and `is_supervised`, end to end, (tokens,)."""

    input: int
    num_rows: int
    ids: npt.NDArray[np.int32]
    is_supervised: npt.NDArray[np.bool_]
    lengths: npt.NDArray[np.int32]
    row_numbers: npt.NDArray[np.int64]
    """Number in the input of the row that each sequence comes from."""
    first_ids: list[str]
    """Ids of the first rows, for the sample that people see."""
    dropped: list[tuple[str, str]]
    """Reason and row (as JSON) of those that are not trained on."""
    refusal: str = ""
    """Why the chat template refused the first row that it refused."""


def encode_chunk(encoding: Encoding, chunk: RowChunk) -> EncodedChunk:
    """Encode the rows that are trained on; report the others."""
    rows = [
        Answer.model_validate(value) for value in chunk.rows.to_pylist(maps_as_pydicts="strict")
    ]
    made = training_rows(encoding, rows)
    kept = [(each.row.id, sequence) for each in made for sequence in each.sequences]
    numbers = np.repeat(np.arange(len(made)), [len(each.sequences) for each in made])
    refused = (f"row {each.row.id}: {each.detail}" for each in made if each.detail)
    return EncodedChunk(
        input=chunk.input,
        num_rows=len(rows),
        ids=np.concatenate([np.empty(0, np.int32), *(each.ids for _, each in kept)]),
        is_supervised=np.concatenate([np.empty(0, np.bool_), *(e.is_supervised for _, e in kept)]),
        lengths=np.array([len(each.ids) for _, each in kept], dtype=np.int32),
        row_numbers=(chunk.first + numbers).astype(np.int64),
        first_ids=[row_id for row_id, _ in kept[:FIRST_IDS]],
        dropped=[(e.reason, e.row.model_dump_json()) for e in made if e.reason],
        refusal=next(refused, ""),
    )


def in_order(
    chunks: Iterator[RowChunk], encoding: Encoding, num_processes: int
) -> Iterator[EncodedChunk]:
    """Yield what becomes of each chunk, in order."""
    if num_processes == 1:
        yield from (encode_chunk(encoding, chunk) for chunk in chunks)
        return
    workers = [
        WorkerProcess("spyhop.train.tokenising:serve", **_ENV) for _ in range(num_processes)
    ]
    try:
        for worker in workers:
            worker.send(encoding)
        busy: deque[WorkerProcess] = deque()
        for chunk, worker in zip(chunks, cycle(workers), strict=False):
            done = _receive(busy.popleft()) if len(busy) == num_processes else None
            # A copy: pickling a slice would include its whole table.
            rows = chunk.rows.take(pa.array(range(chunk.rows.num_rows)))
            worker.send(replace(chunk, rows=rows))
            busy.append(worker)
            if done is not None:
                yield done
        yield from map(_receive, busy)
    finally:
        for worker in workers:
            worker.kill()


def serve(receive: Callable[[], Any], send: Callable[[EncodedChunk | TrainingError], None]) -> None:
    """Tokenise one chunk after the other; the first message is the encoding."""
    encoding: Encoding = receive()
    while True:
        try:
            send(encode_chunk(encoding, receive()))
        except TrainingError as error:
            send(error)


def _receive(worker: WorkerProcess) -> EncodedChunk:
    try:
        found: EncodedChunk | TrainingError = worker.receive()
    except ProcessDied as error:
        raise TrainingError(
            f"a process that tokenised rows died ({error}); lower runtime.processes if memory is "
            "short, and rerun to resume"
        ) from None
    if isinstance(found, TrainingError):
        raise found
    return found
