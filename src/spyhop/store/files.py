"""Files from outside, read line by line; whatever is wrong with one is a single clear line.

Compressed files (`.gz`, `.bz2`, `.zst`) are opened as they are. A wrong byte, a broken line or a
missing key names file and line; a stage that meets one makes nothing.
"""

import io
import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa

from spyhop.schema import InputError
from spyhop.store.artifact import RECORD


def matching(folder: Path, pattern: str) -> list[Path]:
    """Return the files below a folder whose relative path matches; a file stands for itself.

    Hidden files are left out. A pattern without `/` is matched with names in any folder below.

    Raises:
        InputError: If there is none.
    """
    if folder.is_file():
        return [folder]
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        shown = name.as_posix() if "/" in pattern else path.name
        is_hidden = any(part.startswith(".") for part in name.parts)
        if path.is_file() and not is_hidden and fnmatchcase(shown, pattern):
            found.append(path)
    if not found:
        raise InputError(f"{folder}: no file matches {pattern!r}")
    return found


def table_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the parts of an artifact's folder, or what `matching` finds.

    Raises:
        InputError: If there is none.
    """
    if not (folder / RECORD).is_file():
        return matching(folder, pattern)
    if parts := sorted(folder.glob("part-*.parquet")):
        return parts
    raise InputError(f"{folder}: this artifact holds no rows")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of every line, the line's end left out.

    Raises:
        InputError: If the file cannot be read or is not UTF-8, naming the line.
    """
    number = 0
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            for number, line in enumerate(io.BufferedReader(stream), 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: line {number} is not UTF-8 (byte {error.start}: {error.reason})"
        ) from None
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: broken after line {number} ({error!s:.80})") from None


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield where each line stands (`file: line 7`) and what it holds; empty lines are passed over.

    Raises:
        InputError: If a line is not JSON.
    """
    for number, line in lines(path):
        if line.strip():
            where = f"{path}: line {number}"
            yield where, _parsed(line, where)


def json_file(path: Path) -> Any:  # noqa: ANN401 (whatever the file holds)
    """Return what a JSON file holds.

    Raises:
        InputError: If it is not JSON.
    """
    return _parsed("\n".join(line for _, line in lines(path)), str(path))


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


def _parsed(text: str, where: str) -> Any:  # noqa: ANN401
    try:
        found = json.loads(text)
        if "\\ud" in text or "\\uD" in text:  # perhaps half of a pair, which no table can hold
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise InputError(
            f"{where} holds {half}, half of a character and no text; mend or leave out that row"
        ) from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where} is not JSON ({error.msg}, line {error.lineno} column {error.colno})"
            if "line" not in where.rsplit(":", 1)[-1]
            else f"{where} is not JSON ({error.msg}, column {error.colno})"
        ) from None
