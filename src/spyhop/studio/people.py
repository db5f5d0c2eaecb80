"""Votes and labels of people, in the folder `people` of a store; inputs of the next run."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic_core import from_json

from spyhop.schema import InputError
from spyhop.store import atomic_write

PEOPLE = "people"


def people_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file, without a last one that a crash of the machine cut."""
    return _read(path)[0]


def put(
    path: Path, row: Mapping[str, Any], key: Sequence[str] = ("id",), *, is_removed: bool = False
) -> None:
    """Add a row, or replace or remove the one that has the same `key`.

    The change is on disk when this returns; readers see all of it or nothing. Writers wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        rows, is_cut = _read(path)
        others = [each for each in rows if any(each.get(name) != row[name] for name in key)]
        if is_cut or len(others) < len(rows):
            with atomic_write(path) as temporary:
                lines = map(_line, others if is_removed else [*others, row])
                temporary.write_text("".join(lines), encoding="utf-8")
        elif not is_removed:
            with path.open("ab", buffering=0) as file:
                file.write(_line(row).encode())
                os.fsync(file.fileno())


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _read(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """Return the rows, and whether the last line has no end."""
    if not path.exists():
        return [], False
    rows = []
    *lines, last = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            rows.append(dict(from_json(line)))
        except (ValueError, TypeError) as error:
            text = f"{path}: line {number} is not a row ({error}); mend or delete it"
            raise InputError(text) from None
    return rows, bool(last)
