"""Chunks of rows to tokens, here or in processes of their own, in the order of the rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spyhop.processes import ProcessDied, WorkerProcess
from spyhop.render import Encoded, Renderer, TrainOn
from spyhop.schema import Answer, InputError, TrainingError

_ENV = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True, slots=True)
class EncodingJob:
    """How rows are tokenised."""

    renderer: Renderer
    max_tokens: int
    train_on: TrainOn


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Rows of one input, as they stand in the table, and the input's number."""

    input: int
    rows: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """What became of a chunk: `ids` and `is_supervised` of its rows that are kept, (tokens,)."""

    input: int
    num_rows: int
    ids: npt.NDArray[np.int32]
    is_supervised: npt.NDArray[np.bool_]
    lengths: npt.NDArray[np.int32]
    dropped: list[tuple[str, str]]
    """Reason and row (as JSON) of those that are not."""
    refusal: str = ""
    """Why the chat template did not take the first row that it refused."""


def tokenise_chunk(job: EncodingJob, chunk: RowChunk) -> EncodedChunk:
    """Tokenise the rows that can be trained on; tell of the others.

    Dropped: responses that are not whole, under their ending (`failed`, `refused`, `cut`, `empty`),
    rows that the chat template does not write as they are (`template`), and rows above
    `max_tokens` (`too_long`): a response is never cut.

    Raises:
        TrainingError: If a row breaks G4 (one BOS, targets, end token).
    """
    rows = [
        Answer.model_validate(value) for value in chunk.rows.to_pylist(maps_as_pydicts="strict")
    ]
    kept: list[Encoded] = []
    dropped: list[tuple[str, str]] = []
    whole = [row for row in rows if row.ending == "whole"]
    encoded, refusal = _encoded(job, whole)
    found = iter(encoded)
    for row in rows:
        reason = None if row.ending == "whole" else str(row.ending)
        each = next(found) if reason is None else None
        if reason is None and each is None:
            reason = "template"
        elif each is not None and len(each.ids) > job.max_tokens:
            reason = "too_long"
        if reason is not None or each is None:
            dropped.append((str(reason), row.model_dump_json()))
        else:
            check_row(row, each, job.renderer)
            kept.append(each)
    return EncodedChunk(
        input=chunk.input,
        num_rows=len(rows),
        ids=np.concatenate([np.empty(0, np.int32), *(each.ids for each in kept)]),
        is_supervised=np.concatenate(
            [np.empty(0, np.bool_), *(each.is_supervised for each in kept)]
        ),
        lengths=np.array([len(each.ids) for each in kept], dtype=np.int32),
        dropped=dropped,
        refusal=refusal,
    )


def check_row(row: Answer, encoded: Encoded, renderer: Renderer) -> None:
    """Refuse a row that breaks G4, showing it.

    Raises:
        TrainingError: If BOS is repeated, nothing is a target, or the end token is not.
    """
    bos = renderer.tokenizer.bos_token_id
    num_bos = int((encoded.ids == bos).sum()) if bos is not None else 0
    is_whole = bool(encoded.is_supervised[-1]) and int(encoded.ids[-1]) == renderer.end_id
    if num_bos <= 1 and is_whole and int(encoded.is_supervised.sum()) >= 2:
        return
    raise TrainingError(
        f"row {row.id} cannot be trained on: {num_bos} BOS tokens, "
        f"{int(encoded.is_supervised.sum())} supervised tokens, end token supervised: {is_whole}; "
        f"{row.messages[-1].role} said {row.messages[-1].content!r:.80}"
    )


def in_order(
    chunks: Iterator[RowChunk], job: EncodingJob, num_processes: int
) -> Iterator[EncodedChunk]:
    """Yield what becomes of each chunk, in order.

    Raises:
        TrainingError: If a row breaks G4, or a process dies.
    """
    if num_processes == 1:
        yield from (tokenise_chunk(job, chunk) for chunk in chunks)
        return
    workers: list[WorkerProcess] = []
    busy: deque[WorkerProcess] = deque()
    try:
        for chunk in chunks:
            if len(workers) < num_processes:
                worker = WorkerProcess("spyhop.train.tokenising:serve", **_ENV)
                workers.append(worker)
                worker.send(job)
                _send(worker, chunk)
            else:
                worker = busy.popleft()
                tokens = _receive(worker)
                _send(worker, chunk)
                yield tokens
            busy.append(worker)
        while busy:
            yield _receive(busy.popleft())
    finally:
        for worker in workers:
            worker.kill()


def serve(receive: Callable[[], Any], send: Callable[[EncodedChunk | TrainingError], None]) -> None:
    """Tokenise one chunk after the other; the first message is the job."""
    job: EncodingJob = receive()
    while True:
        try:
            send(tokenise_chunk(job, receive()))
        except TrainingError as error:
            send(error)


def _send(worker: WorkerProcess, chunk: RowChunk) -> None:
    """Send a copy of the rows: pickling a slice would include its whole table."""
    worker.send(replace(chunk, rows=chunk.rows.take(pa.array(range(chunk.rows.num_rows)))))


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


def _encoded(job: EncodingJob, rows: list[Answer]) -> tuple[list[Encoded | None], str]:
    """Encode rows together; where the chat template refuses one, each by itself."""
    try:
        return [*job.renderer.encode([row.messages for row in rows], job.train_on)], ""
    except InputError as error:
        if len(rows) == 1:
            return [None], f"row {rows[0].id}: {error}"
    half = len(rows) // 2
    first, second = _encoded(job, rows[:half]), _encoded(job, rows[half:])
    return [*first[0], *second[0]], first[1] or second[1]
