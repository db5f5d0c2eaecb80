"""Chunks of rows to tokens, here or in processes of their own, in the order of the rows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spyhop.schema import Answer, TrainingError
from spyhop.train.encoding import Encoding, training_rows

FIRST_IDS = 32
"""Rows of a chunk whose ids are kept: some of them may be held out."""


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Rows of one input, as they stand in the table, and the input's number."""

    input: int
    rows: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """A chunk's rows that are trained on: `ids` and `is_supervised`, end to end, (tokens,)."""

    input: int
    num_rows: int
    ids: npt.NDArray[np.int32]
    is_supervised: npt.NDArray[np.bool_]
    lengths: npt.NDArray[np.int32]
    first_ids: list[str]
    """Ids of the first rows, for the sample that people see."""
    dropped: list[tuple[str, str]]
    """Reason and row (as JSON) of those that are not trained on."""
    refusal: str = ""
    """Why the chat template refused the first row that it refused."""


def encode_chunk(encoding: Encoding, chunk: RowChunk) -> EncodedChunk:
    """Encode the rows that are trained on; report the others.

    Raises:
        TrainingError: If a row breaks G4 (one BOS, supervised tokens, end token).
    """
    rows = [
        Answer.model_validate(value) for value in chunk.rows.to_pylist(maps_as_pydicts="strict")
    ]
    made = training_rows(encoding, rows)
    kept = [(each.row.id, each.encoded) for each in made if each.encoded is not None]
    refused = (f"row {each.row.id}: {each.detail}" for each in made if each.detail)
    return EncodedChunk(
        input=chunk.input,
        num_rows=len(rows),
        ids=np.concatenate([np.empty(0, np.int32), *(each.ids for _, each in kept)]),
        is_supervised=np.concatenate([np.empty(0, np.bool_), *(e.is_supervised for _, e in kept)]),
        lengths=np.array([len(each.ids) for _, each in kept], dtype=np.int32),
        first_ids=[row_id for row_id, _ in kept[:FIRST_IDS]],
        dropped=[(e.reason, e.row.model_dump_json()) for e in made if e.encoded is None],
        refusal=next(refused, ""),
    )


def in_order(
    chunks: Iterator[RowChunk], encoding: Encoding, num_processes: int
) -> Iterator[EncodedChunk]:
    """Yield what becomes of each chunk, in order.

    Raises:
        TrainingError: If a row breaks G4, or a process dies.
    """
    if num_processes == 1:
        yield from (encode_chunk(encoding, chunk) for chunk in chunks)
        return
    workers: list[_Worker] = []
    busy: deque[_Worker] = deque()
    try:
        for chunk in chunks:
            if len(workers) < num_processes:
                workers.append(worker := _Worker(encoding))
            else:
                worker = busy.popleft()
                tokens = worker.receive()
                worker.send(chunk)
                busy.append(worker)
                yield tokens
                continue
            worker.send(chunk)
            busy.append(worker)
        while busy:
            yield busy.popleft().receive()
    finally:
        for worker in workers:
            worker.kill()


class _Worker:
    """A process that tokenises one chunk at a time, and ends with the one that started it."""

    def __init__(self, encoding: Encoding) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from spyhop.train.tokenising import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
            start_new_session=True,  # Ctrl-C is the run's; it ends its workers itself
        )
        assert self._process.stdin and self._process.stdout
        self._chunks = Connection(os.dup(self._process.stdin.fileno()), readable=False)
        self._tokens = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self._process.stdin.close()
        self._process.stdout.close()
        self.send(encoding)

    def send(self, what: Encoding | RowChunk) -> None:
        if isinstance(what, RowChunk):  # a slice would take its whole table along
            what = replace(what, rows=what.rows.take(pa.array(range(what.rows.num_rows))))
        with suppress(BrokenPipeError):  # it died; `receive` tells
            self._chunks.send(what)

    def receive(self) -> EncodedChunk:
        try:
            found: EncodedChunk | TrainingError = self._tokens.recv()
        except (EOFError, OSError):
            raise TrainingError(
                f"a process that tokenised rows died (exit {self._process.wait()}); memory may be "
                "short: lower runtime.processes, and run again to go on"
            ) from None
        if isinstance(found, TrainingError):
            raise found
        return found

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._chunks.close()
        self._tokens.close()


def main() -> None:
    """Tokenise what comes on the standard input until it ends."""
    chunks = Connection(os.dup(0), writable=False)
    tokens = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # nothing else may speak on the channel
    encoding: Encoding = chunks.recv()
    with suppress(EOFError, BrokenPipeError):
        while True:
            chunk: RowChunk = chunks.recv()
            try:
                found: EncodedChunk | TrainingError = encode_chunk(encoding, chunk)
            except TrainingError as error:
                found = error
            tokens.send(found)
