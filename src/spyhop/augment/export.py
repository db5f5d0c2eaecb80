"""Write answers in the format of the prompts: the same rows with one more turn."""

import json
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from spyhop.collect.messages import RawRow, raw_rows
from spyhop.schema import Answer, Config, InputError
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact
from spyhop.store.files import parquet_batches, parquet_head
from spyhop.store.rows import PARQUET, row_files

MESSAGES, STEM = "messages", "answers"
SAMPLE = "sample_index"
COLUMNS = {
    "finish_reason": pa.string(),
    "ending": pa.string(),
    "error": pa.string(),
    "reasoning": pa.string(),
    "outcome": pa.string(),
    "model": pa.string(),
    "prompt_tokens": pa.int64(),
    "response_tokens": pa.int64(),
    "log_probability": pa.float64(),
}
"""Columns of an answer besides its turn."""
RESERVED = (*COLUMNS, SAMPLE)
"""Column names that prompts may not use."""
TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


class ExportConfig(Config):
    """Output format."""

    format: Literal["", "jsonl"] = ""
    """Output format; empty for Parquet if all prompts are Parquet, else JSONL."""
    num_samples: int = Field(1, ge=1)
    """Samples per prompt; with more than one, rows have a `sample_index`."""


@stage(
    version=2,
    writes=FOLDER,
    plan=lambda config, file, prompts, answers: Estimate(rows=answers.rows),
)
def export(
    ctx: Context, config: ExportConfig, *, file: Artifact, prompts: Artifact, answers: Artifact
) -> None:
    """Write `answers.jsonl` or `answers.parquet`: one row per answer, in the prompts' order.

    A row has the unchanged columns of its prompt and those of `COLUMNS`; `messages` ends with the
    assistant's turn unless the call failed. A prompt whose answer was dropped has no row. Memory is
    constant.

    Counts: `rows`, `failed/<kind>`, and `without_answer`, prompts without a row.
    """
    files = row_files(file.path)
    is_parquet = all(each.name.endswith(PARQUET) for each in files)
    is_parquet = is_parquet and not config.format
    path = ctx.out / f"{STEM}.{'parquet' if is_parquet else 'jsonl'}"
    groups = _groups(ctx, prompts, answers)
    columns = dict(COLUMNS) | ({SAMPLE: pa.int64()} if config.num_samples > 1 else {})
    if is_parquet:
        _write_tables(path, files, groups, columns)
    else:
        _write_json(path, raw_rows(file.path), groups, list(columns))
    for _ in groups:
        raise AssertionError("more prompts than rows in their file")


def _groups(ctx: Context, prompts: Artifact, answers: Artifact) -> Iterator[list[Answer]]:
    """Yield the answers of each prompt: an empty list if they were dropped."""
    stream = ctx.track(answers.rows(Answer), "writing", total=answers.num_rows)
    held = next(stream, None)
    for batch in prompts.batches(["id"]):
        for name in batch.column(0).to_pylist():
            found = []
            while held is not None and held.query_id == name:
                found.append(held)
                ctx.count("rows")
                if held.error is not None:
                    status = held.error.split(" ", 1)[0]
                    kind = status if len(status) == 3 and status.isdigit() else "other"
                    ctx.count(f"failed/{'refused' if held.ending == 'refused' else kind}")
                held = next(stream, None)
            ctx.count("without_answer", int(not found))
            yield found
    assert held is None, f"answer {held.id} has no prompt"


def _longer(row: RawRow, answer: Answer) -> list[Any]:
    """Return the unchanged turns of the row and the assistant's turn."""
    turns = row.values.get(MESSAGES)
    if turns is None:
        return [turn.model_dump(include={"role", "content"}) for turn in answer.messages]
    if answer.error is not None:
        return list(turns)
    return [*turns, {"role": "assistant", "content": answer.messages[-1].content}]


def _write_json(
    path: Path, rows: Iterator[RawRow], groups: Iterator[list[Answer]], columns: Sequence[str]
) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for row, answers in zip(rows, groups, strict=False):
            for answer in answers:
                brought = {name: getattr(answer, name) for name in columns}
                values = {**row.values, MESSAGES: _longer(row, answer), **brought}
                try:
                    text = json.dumps(values, ensure_ascii=False, default=_plain)
                except TypeError as error:
                    raise InputError(
                        f"{row.place}: {error}; remove that column, or write Parquet"
                    ) from None
                stream.write(text + "\n")


def _plain(value: object) -> object:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{value!r:.60} ({type(value).__name__}) cannot be written as JSON")


def _write_tables(
    path: Path, files: Sequence[Path], groups: Iterator[list[Answer]], columns: dict[str, Any]
) -> None:
    """Write Parquet from Parquet: columns are copied without conversion."""
    try:
        schema = pa.unify_schemas(
            [parquet_head(file).schema.to_arrow_schema() for file in files],
            promote_options="permissive",
        )
    except pa.ArrowException as error:
        raise InputError(
            f"{files[0].parent}: the files have columns of different types ({error!s:.120}); "
            'set format = "jsonl"'
        ) from None
    full = schema if MESSAGES in schema.names else schema.append(pa.field(MESSAGES, TURNS))
    for name, kind in columns.items():
        full = full.append(pa.field(name, kind))
    full = full.remove_metadata()  # pandas' metadata describes the old columns
    empty = schema.empty_table()
    with pq.ParquetWriter(path, full, compression="zstd") as writer:
        for file in files:
            for batch in parquet_batches(file):
                some = enumerate(islice(groups, batch.num_rows))
                found = [(place, answer) for place, answers in some for answer in answers]
                known = [name for name in (MESSAGES,) if name in batch.schema.names]
                turns = batch.select(known).to_pylist(maps_as_pydicts="strict")
                made = {name: [getattr(answer, name) for _, answer in found] for name in columns}
                made[MESSAGES] = [
                    _longer(RawRow(str(file), turns[place]), answer) for place, answer in found
                ]
                own = pa.Table.from_batches([batch])  # columns of other files are null
                own = pa.concat_tables([empty, own], promote_options="permissive")
                own = own.take(pa.array([place for place, _ in found], pa.int64()))
                arrays = [
                    pa.array(made[field.name], field.type)
                    if field.name in made
                    else own.column(field.name)
                    for field in full
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=full))
