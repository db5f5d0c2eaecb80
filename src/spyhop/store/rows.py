"""Rows of files from outside, in the formats that people have; every room reads rows through here.

JSON lines, a JSON array, CSV, TSV (also packed), Parquet, artifacts, and the Arrow files of
`datasets`' `save_to_disk`. Rows come one by one, so memory stays flat.
"""

import codecs
import csv
import json
import re
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic_core import from_json

from spyhop.schema import InputError
from spyhop.store.artifact import RECORD
from spyhop.store.files import (
    BLOCK,
    LINE,
    arrow_errors,
    byte_lines,
    json_file,
    json_lines,
    lines,
    matching,
    parquet_batches,
    parse_json,
    table_files,
    unpacked,
)

csv.field_size_limit(1 << 27)

PARQUET, ARROW = ".parquet", ".arrow"
PACKED = (".gz", ".bz2", ".zst")
_KINDS = {".jsonl": ".jsonl", ".json": ".jsonl", ".ndjson": ".jsonl"} | {
    kind: kind for kind in (".csv", ".tsv", PARQUET, ARROW)
}
KNOWN = f".jsonl, .json, .csv, .tsv (also with {', '.join(PACKED)}), {PARQUET}, {ARROW}"
_SPLITS = "dataset_dict.json"
_DATASET = ("dataset_info.json", "state.json", _SPLITS)
"""Files of `save_to_disk` beside the rows."""
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def kind_of(path: Path) -> str:
    """Return the format of a file by its ending: `.jsonl` (any JSON), `.csv`, `.tsv`, ..."""
    if (kind := _kind(path)) is None:
        raise InputError(f"{path}: unknown format; its name must end in one of {KNOWN}")
    return kind


def _kind(path: Path) -> str | None:
    return _KINDS.get(next((s.lower() for s in reversed(path.suffixes) if s not in PACKED), ""))


def row_files(path: Path, pattern: str = "*") -> list[Path]:
    """Return the files of rows in a folder, an artifact or a saved data set; or the file itself.

    With the pattern `*`, files with other endings (a README) are passed over. A data set must have
    one split.
    """
    if path.is_file() or (path / RECORD).is_file():
        return table_files(path, pattern)
    if pattern == "*" and (path / _SPLITS).is_file():
        splits = json_file(path / _SPLITS).get("splits", [])
        if len(splits) != 1:
            raise InputError(
                f"{path}: a data set with the splits {', '.join(splits)}; name the folder of one, "
                f"such as {path / splits[0] if splits else path}"
            )
    files = [each for each in matching(path, pattern) if each.name not in _DATASET]
    kept = [each for each in files if pattern != "*" or _kind(each)]
    if not kept and pattern == "*":
        raise InputError(f"{path}: the folder has no file that ends in one of {KNOWN}")
    return kept


def read_rows(
    path: Path, columns: Collection[str] | None = None, mark: str = LINE
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place of each row of a file (`file: line 7`), for messages, and the row.

    Of a Parquet file some `columns` may be read. `mark` is between file and line number. A broken
    file is an `InputError` that names the place.
    """
    kind = kind_of(path)
    if kind in (PARQUET, ARROW):
        number = 0
        for batch in parquet_batches(path, columns) if kind == PARQUET else _arrow_batches(path):
            try:
                values = batch.to_pylist(maps_as_pydicts="strict")
            except (UnicodeDecodeError, ValueError, KeyError, OverflowError) as error:
                where = f"{path}: rows {number + 1} to {number + batch.num_rows}"
                raise InputError(f"{where}: a value cannot be read ({error!s:.120})") from None
            yield from ((f"{path}: row {n}", row) for n, row in enumerate(values, number + 1))
            number += batch.num_rows
        return
    rows = _json_rows(path, mark) if kind == ".jsonl" else _csv_rows(path, kind, mark)
    for where, row in rows:
        if not isinstance(row, dict):
            raise InputError(f"{where}: {json.dumps(row):.60} is not a row; a row is a JSON object")
        yield where, row


def _json_rows(path: Path, mark: str) -> Iterator[tuple[str, Any]]:
    """Yield the rows of JSON lines, or of one array."""
    outside = b"\xef\xbb\xbf \t\r\n"
    start = next((block.lstrip(outside) for block in _blocks(path) if block.strip(outside)), b"")
    if start.startswith(b"["):
        return _array_rows(path)
    if start.startswith(b"{") and path.suffixes[:1] != [".jsonl"]:
        first = next(line for line in byte_lines(path) if line.strip(outside))
        try:
            from_json(first.lstrip(outside))
        except ValueError:
            _refuse_single(path)
    return json_lines(path, mark, from_json)


def _refuse_single(path: Path) -> None:
    """Refuse a file that is one object over several lines; other broken lines name their line."""
    try:
        found = json_file(path)
    except InputError:
        return
    lists = [key for key, value in found.items() if isinstance(value, list)]
    named = f"; it holds lists under {', '.join(lists):.80}" if lists else ""
    raise InputError(f"{path}: one JSON object, not rows{named}; save the rows as JSON lines")


def _array_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the elements of an array, decoded one by one from a buffer that grows if it must."""
    text, place, number, needed, expected = "", 0, 0, 0, "["
    for block in chain(_text_blocks(path), [""]):
        text, place = text[place:] + block, 0
        if block and len(text) < needed:
            continue
        while sign := text[place : place + 1]:
            if sign in " \t\r\n":
                place = _SPACE.match(text, place).end()  # type: ignore[union-attr]
                continue
            if sign in "[,]" and sign in expected:
                expected = {"[": "] or a row", ",": "a row", "]": "the end"}[sign]
                place += 1
                continue
            try:
                if "a row" not in expected:
                    raise ValueError(f"{sign!r} instead of {expected}")
                row, end = _DECODER.raw_decode(text, place)
                if "\\u" in text[place:end]:
                    row = parse_json(text[place:end])  # no halves of characters
            except (ValueError, RecursionError) as error:
                if block and "a row" in expected:  # the row may continue in the next block
                    needed = 2 * len(text[place:])
                    break
                deep = isinstance(error, RecursionError)
                reason = "nested too deeply" if deep else f"{error!s:.80}"
                shown = text[place : place + 60]
                raise InputError(
                    f"{path}: row {number + 1}: not JSON ({reason}): {shown!r}"
                ) from None
            number, place, expected = number + 1, end, ", or ]"
            yield f"{path}: row {number}", row
    if expected != "the end":
        raise InputError(f"{path}: the JSON array ends after row {number}, without its ]")


def _text_blocks(path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        for block in _blocks(path):
            yield decoder.decode(block)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason}); save the file as UTF-8") from None


def _blocks(path: Path) -> Iterator[bytes]:
    with unpacked(path) as stream:
        while block := stream.read(BLOCK):
            yield block


def _csv_rows(path: Path, kind: str, mark: str) -> Iterator[tuple[str, dict[str, str]]]:
    delimiter = "\t" if kind == ".tsv" else ","
    reader = csv.reader((f"{line}\n" for _, line in lines(path)), delimiter=delimiter, strict=True)
    try:
        heading = next(reader, [])
        if len(set(heading)) < len(heading):
            raise InputError(f"{path}: two columns have the same name; found: {heading!s:.120}")
        for row in reader:
            if not row:  # an empty line
                continue
            where = f"{path}{mark}{reader.line_num}"
            if len(row) != len(heading):
                raise InputError(f"{where} has {len(row)} fields, the heading {len(heading)}")
            yield where, dict(zip(heading, row, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}{mark}{reader.line_num} is not CSV ({error})") from None


def _arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with arrow_errors(path, "Arrow"), pa.memory_map(str(path)) as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        if is_file:
            opened = pa.ipc.open_file(source)
            yield from (opened.get_batch(n) for n in range(opened.num_record_batches))
        else:
            yield from pa.ipc.open_stream(source)
