"""Rows to token ids on disk: memory-mapped, checked, with every dropped row counted.

Chunks of rows are tokenised in `Runtime.processes` and written in the rows' order, so the files
are the same however many there are. What is written survives a kill; the next run
continues behind it.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spyhop.cluster import Cluster
from spyhop.processes import ProcessDied, WorkerProcess
from spyhop.schema import TrainingError
from spyhop.stage import Context, Progress
from spyhop.store import Artifact
from spyhop.train.encoding import Encoding, encode_rows

FILES = {"ids": "ids.bin", "is_supervised": "is_supervised.bin", "lengths": "lengths.bin",
         "row_numbers": "row_numbers.bin", "splits": "splits.bin"}  # fmt: skip
DONE = "tokenised-2.jsonl"
"""In the stage's state: a line for each chunk that is whole in the files."""
CHUNK_ROWS = 1024
FEW_ROWS = 20_000
"""Up to this many rows are tokenised before other processes have started."""
FIRST_IDS = 32
"""Rows of a chunk whose ids are kept: some of them may be held out."""
_ENV = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Tokenised rows of several inputs, one after the other; a row may be split into several.

    `ids` (total tokens,) int32 and `is_supervised` (total tokens,) bool are memory-mapped; row r
    is at `starts[r]:starts[r + 1]`; input i holds the rows `inputs[i]:inputs[i + 1]`.
    `row_numbers` (number of rows,) are the numbers of the rows in their inputs' tables.
    """

    ids: npt.NDArray[np.int32]
    is_supervised: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]
    inputs: list[int]
    row_numbers: npt.NDArray[np.int64]
    splits: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """(number of rows,): tokens of the chosen conversation of a pair, which the rejected one
    follows; 0 where a row is one conversation."""
    ids_of: dict[int, str] = field(default_factory=dict)
    """Row ids by row number, of the first rows of every chunk."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row."""
        return np.diff(self.starts)

    @property
    def num_labels(self) -> npt.NDArray[np.int64]:
        """Supervised tokens of each row; nothing predicts a row's first token."""
        sums = np.add.reduceat(self.is_supervised, self.starts[:-1], dtype=np.int64)
        found: npt.NDArray[np.int64] = sums - self.is_supervised[self.starts[:-1]]
        return found

    def row(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Return the ids and the mask of one row, both (T,)."""
        some = slice(int(self.starts[number]), int(self.starts[number + 1]))
        return self.ids[some], self.is_supervised[some]


class RowChunk(NamedTuple):
    """Rows of one input as in its table."""

    input: int
    """The input's number."""
    first: int
    """Number of its first row in the input."""
    rows: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """A chunk's rows that are trained on, as arrays like those of `TokenRows`."""

    line: dict[str, Any]
    """What the files keep of the chunk besides: its input, the numbers of rows read and kept, the
    ids of the first rows, and the reason and row (as JSON) of each that is not trained on."""
    arrays: dict[str, npt.NDArray[Any]]
    """By the names of `FILES`."""
    refusal: str = ""
    """Why the chat template refused the first row that it refused."""


def tokenise(ctx: Context, answers: Sequence[Artifact], encoding: Encoding) -> TokenRows:
    """Encode the answers, or preferences, that are trained on; others are dropped and counted.

    The reasons are those of `encoding.training_rows`.
    """
    total = sum(artifact.num_rows for artifact in answers)
    is_few = total <= FEW_ROWS
    num_processes, on = (1, "") if is_few else (ctx.runtime.processes, ctx.runtime.on)
    refusal = ""
    with closing(_EncodingProgress(ctx, len(answers))) as progress:
        for chunk in in_order(_chunks(answers, progress.rows), encoding, num_processes, on):
            progress.add(chunk)
            refusal = refusal or chunk.refusal
            ctx.report(Progress("tokenising", sum(progress.rows), total, "rows"))
    if refusal:
        ctx.notice(f"dropped rows that the chat template does not take, such as {refusal}")
    if not sum(progress.kept):
        raise none_left(ctx)
    return progress.mapped()


def none_left(ctx: Context, num_held_out: int = 0) -> TrainingError:
    """Return the error of a training without rows: where they went."""
    reasons = {**ctx.dropped, **({"held out": num_held_out} if num_held_out else {})}
    if not reasons:
        return TrainingError("no rows to train on: the steps before this one give no rows")
    dropped = ", ".join(f"{name}: {num}" for name, num in sorted(reasons.items()))
    return TrainingError(f"no row is left to train on (dropped: {dropped})")


class _EncodingProgress:
    """The files, and how far they are: rows read and rows kept of each input.

    Whole chunks of an earlier run are taken up, and the files are cut behind the last of them.
    """

    def __init__(self, ctx: Context, num_inputs: int) -> None:
        self.rows = [0] * num_inputs
        self.kept = [0] * num_inputs
        self._first_ids: list[tuple[int, int, list[str]]] = []
        """Input, number within its kept rows, and the row ids from there on."""
        self._ctx = ctx
        sizes = dict.fromkeys([*FILES, "done"], 0)
        paths = {name: ctx.state / file for name, file in {**FILES, "done": DONE}.items()}
        self._streams = {name: path.open("ab") for name, path in paths.items()}
        with paths["done"].open("rb") as stream:
            for text in stream:
                if not text.endswith(b"\n"):
                    break
                line = json.loads(text)
                sizes = {**line["sizes"], "done": sizes["done"] + len(text)}
                self._count(line)
        for name, path in paths.items():
            os.truncate(path, sizes[name])

    def add(self, chunk: EncodedChunk) -> None:
        """Write a chunk; it counts from the moment that its line is there."""
        sizes = {}
        for name in FILES:
            self._streams[name].write(chunk.arrays[name].tobytes())
            self._streams[name].flush()
            sizes[name] = self._streams[name].tell()
        line = {**chunk.line, "sizes": sizes}
        self._streams["done"].write(json.dumps(line).encode() + b"\n")
        self._streams["done"].flush()
        self._count(line)

    def close(self) -> None:
        """Close the files."""
        for stream in self._streams.values():
            stream.close()

    def mapped(self) -> TokenRows:
        """Return the rows that are in the files."""
        paths = {name: self._ctx.state / file for name, file in FILES.items()}
        inputs = [0, *np.cumsum(self.kept).tolist()]
        lengths = np.fromfile(paths["lengths"], dtype=np.int32)
        return TokenRows(
            ids=np.memmap(paths["ids"], dtype=np.int32, mode="r"),
            is_supervised=np.memmap(paths["is_supervised"], dtype=np.bool_, mode="r"),
            starts=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
            inputs=inputs,
            row_numbers=np.fromfile(paths["row_numbers"], dtype=np.int64),
            splits=np.fromfile(paths["splits"], dtype=np.int32),
            ids_of={
                inputs[number] + start + place: row_id
                for number, start, row_ids in self._first_ids
                for place, row_id in enumerate(row_ids)
            },
        )

    def _count(self, line: dict[str, Any]) -> None:
        number = line["input"]
        self._first_ids.append((number, self.kept[number], line["first_ids"]))
        self.rows[number] += line["rows"]
        self.kept[number] += line["kept"]
        for reason, row in line["dropped"]:
            self._ctx.drop(row, reason)


def _chunks(answers: Sequence[Artifact], done: Sequence[int]) -> Iterator[RowChunk]:
    """Yield the rows of every input behind those that are done."""
    for number, artifact in enumerate(answers):
        first = 0
        for batch in artifact.batches() if done[number] < artifact.num_rows else ():
            for start in range(0, batch.num_rows, CHUNK_ROWS):
                some = batch.slice(start, CHUNK_ROWS)
                if first >= done[number]:
                    yield RowChunk(number, first, some)
                first += some.num_rows


def encode_chunk(encoding: Encoding, chunk: RowChunk) -> EncodedChunk:
    """Encode the rows that are trained on; report the others."""
    made = encode_rows(encoding, chunk.rows.to_pylist(maps_as_pydicts="strict"))
    kept = [(each.row.id, sequence) for each in made for sequence in each.sequences]
    repeats = [len(each.sequences) for each in made]
    refused = (f"row {each.row.id}: {each.detail}" for each in made if each.detail)
    line = {
        "input": chunk.input,
        "rows": len(made),
        "kept": len(kept),
        "first_ids": [row_id for row_id, _ in kept[:FIRST_IDS]],
        "dropped": [(e.reason, e.row.model_dump_json()) for e in made if e.reason],
    }
    masks = [each.is_supervised for _, each in kept]
    numbers = chunk.first + np.repeat(np.arange(len(made)), repeats)
    arrays = {
        "ids": np.concatenate([np.empty(0, np.int32), *(each.ids for _, each in kept)]),
        "is_supervised": np.concatenate([np.empty(0, np.bool_), *masks]),
        "lengths": np.array([len(each.ids) for _, each in kept], dtype=np.int32),
        "row_numbers": numbers.astype(np.int64),
        "splits": np.repeat([each.split for each in made], repeats).astype(np.int32),
    }
    return EncodedChunk(line, arrays, next(refused, ""))


def in_order(
    chunks: Iterator[RowChunk], encoding: Encoding, num_processes: int, on: str = ""
) -> Iterator[EncodedChunk]:
    """Yield what becomes of each chunk, in order; `on` is the address of a Ray cluster."""
    if on:
        with closing(Cluster(on, encode_chunk)) as cluster:
            yield from cluster.in_order(encoding, map(_alone, chunks))
        return
    if num_processes == 1:
        yield from (encode_chunk(encoding, chunk) for chunk in chunks)
        return
    workers = [WorkerProcess("spyhop.train.rows:serve", **_ENV) for _ in range(num_processes)]
    try:
        for worker in workers:
            worker.send(encoding)
        busy: deque[WorkerProcess] = deque()
        for chunk, worker in zip(chunks, cycle(workers), strict=False):
            done = [_receive(busy.popleft())] if len(busy) == num_processes else []
            worker.send(_alone(chunk))
            busy.append(worker)
            yield from done
        yield from map(_receive, busy)
    finally:
        for worker in workers:
            worker.kill()


def _alone(chunk: RowChunk) -> RowChunk:
    """Return a copy: pickling a slice would include its whole table."""
    return chunk._replace(rows=chunk.rows.take(pa.array(range(chunk.rows.num_rows))))


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
