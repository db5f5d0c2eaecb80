"""Files from outside, read line by line; whatever is wrong with one is a single clear line.

Compressed files (`.gz`, `.bz2`, `.zst`) are opened as they are. A wrong byte, a broken line or a
missing key names file and line; a stage that meets one makes nothing.
"""

import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spyhop.schema import InputError
from spyhop.store.artifact import RECORD

LINE = ": line "
"""Text between file and line number in messages."""
BATCH_ROWS, BLOCK = 2048, 1 << 20


def is_hidden(name: Path) -> bool:
    """Return whether a relative path is that of a hidden file, or lies in a hidden folder."""
    return any(part.startswith(".") for part in name.parts)


def matching(folder: Path, pattern: str) -> list[Path]:
    """Return the files below a folder whose relative path matches; a file is returned itself.

    Hidden files are skipped. A pattern without `/` is matched with names in any folder below.
    """
    if folder.is_file():
        return [folder]
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        shown = name.as_posix() if "/" in pattern else path.name
        if path.is_file() and not is_hidden(name) and fnmatchcase(shown, pattern):
            found.append(path)
    if not found:
        raise InputError(f"{folder}: no file matches {pattern!r}")
    return found


def table_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the parts of an artifact's folder, or what `matching` finds."""
    if not (folder / RECORD).is_file():
        return matching(folder, pattern)
    if parts := sorted(folder.glob("part-*.parquet")):
        return parts
    raise InputError(f"{folder}: this artifact holds no rows")


@contextmanager
def unpacked(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file for reading, without its compression; errors of reading name the file."""
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            yield io.BufferedReader(stream, BLOCK)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error!s:.80})") from None


def byte_lines(path: Path) -> Iterator[bytes]:
    """Yield every line of the unpacked file, unchanged."""
    with unpacked(path) as stream:
        yield from stream


def lines(path: Path, mark: str = LINE) -> Iterator[tuple[int, str]]:
    """Yield number and text of every line, without the line's end."""
    for number, line in enumerate(byte_lines(path), 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            is_utf16 = line[:2] in (b"\xff\xfe", b"\xfe\xff")
            found = "it looks like UTF-16" if is_utf16 else f"byte {error.start}: {error.reason}"
            raise InputError(
                f"{path}{mark}{number}: not UTF-8 ({found}); save the file as UTF-8"
            ) from None
        yield number, text.rstrip("\r\n")


def parse_json(text: str) -> Any:  # noqa: ANN401 (whatever it holds)
    """Return the value of JSON text; deep nesting and half a character are a `ValueError`, too."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise ValueError(f"{half} is half of a character") from None
    return found


def json_lines(
    path: Path, mark: str = LINE, parse: Callable[[str], Any] = parse_json
) -> Iterator[tuple[str, Any]]:
    """Yield the place of each line (`file: line 7`) and its value; empty lines are skipped.

    `mark` is between file and number; `parse` raises a `ValueError` where it cannot read a line.
    """
    for number, line in lines(path, mark):
        if shown := line.strip():
            where = f"{path}{mark}{number}"
            try:
                value = parse(line)
            except ValueError as error:
                reason = str(error).replace("line 1 column", "column")
                is_list = shown[0] in "[]"
                hint = "; write one row a line, without a list around them" if is_list else ""
                raise InputError(f"{where}: not JSON ({reason:.80}): {shown!r:.60}{hint}") from None
            yield where, value


def json_file(path: Path) -> Any:  # noqa: ANN401 (whatever the file holds)
    """Return the value of a JSON file."""
    try:
        return parse_json("\n".join(line for _, line in lines(path)))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error!s:.80})") from None


@contextmanager
def arrow_errors(path: Path, kind: str) -> Iterator[None]:
    """Name a file that the Arrow library cannot read."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a whole {kind} file ({reason:.120})") from None


def parquet_head(path: Path) -> pq.FileMetaData:
    """Return the metadata of a Parquet file: schema, rows, row groups."""
    with arrow_errors(path, "Parquet"):
        return pq.read_metadata(path)


def parquet_batches(path: Path, columns: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield a Parquet file in batches of at most `BATCH_ROWS`; missing columns are skipped."""
    with arrow_errors(path, "Parquet"), pq.ParquetFile(path) as file:
        known = file.schema_arrow.names
        wanted = None if columns is None else [name for name in known if name in columns]
        yield from file.iter_batches(batch_size=BATCH_ROWS, columns=wanted)


def field(row: object, key: str, where: str, kind: type | tuple[type, ...] = str) -> Any:  # noqa: ANN401
    """Return a value of a JSON object; a dotted key leads through objects and lists.

    Raises:
        InputError: If it is missing or of another kind.
    """
    value = row
    for part in key.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            known = sorted(value) if isinstance(value, Mapping) else type(value).__name__
            raise InputError(f"{where}: no {key!r}; found {known!s:.120}")
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(each.__name__ for each in kinds)
        raise InputError(f"{where}: {key!r} is no {names}: {value!r:.80}")
    return value
