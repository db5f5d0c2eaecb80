"""Find the rows of a split of a data set in a local folder, however it was saved."""

import re
from pathlib import Path
from typing import Any

from spyhop.schema import InputError
from spyhop.store.files import matching
from spyhop.store.rows import kind_of, read_rows, row_files

_ALIASES = {
    "validation": ("valid", "val", "dev"),
    "train": ("training",),
    "test": ("testing", "eval", "evaluation"),
}
"""Names of files that the hub takes for a split where no file has the split's own name."""

Rows = list[tuple[str, dict[str, Any]]]


def split_rows(folder: Path, subset: str, split: str, files: tuple[str, ...] = ()) -> Rows:
    """Return the rows of a split with their places; a column that a row lacks is None.

    Args:
        folder: Folder of the data set: a copy of its repository, what `save_to_disk` wrote, or
            files with the split in their names; or a single file, which is the split.
        subset: Configuration of the data set, in the names of folders or files; else ignored.
        split: Name of the split; `train[:100]` and the like are not read.
        files: Names or patterns of the files where the task states them.
    """
    paths = split_files(folder, subset, split, files)
    rows = [row for path in paths for row in read_rows(path)]
    if not rows:
        raise InputError(f"{paths[0]}: no rows")
    columns = dict.fromkeys(key for _, row in rows for key in row)
    is_typed = kind_of(paths[0]) not in (".csv", ".tsv")
    kinds = (
        {} if is_typed else {key: _kind([row.get(key, "") for _, row in rows]) for key in columns}
    )
    return [
        (where, columns | row | {key: kind(row[key]) for key, kind in kinds.items() if key in row})
        for where, row in rows
    ]


def split_files(folder: Path, subset: str, split: str, files: tuple[str, ...] = ()) -> list[Path]:
    """Return the files of a split; `split_rows` says which they are."""
    if folder.is_file():
        return [folder]
    if files:
        return [path for pattern in files for path in matching(folder, pattern)]
    known = {path: path.relative_to(folder).as_posix() for path in _data_files(folder)}
    own = [path for path, name in known.items() if subset and f"/{subset}/" in f"/{name}"]
    own = own or [path for path, name in known.items() if subset and _has_word(name, subset)]
    for word in (split, *_ALIASES.get(split, ())):
        if found := [path for path in own or known if _has_word(known[path], word)]:
            return found
    what = f"the split {split!r}" + (f" of {subset!r}" if subset else "")
    raise InputError(
        f"{folder}: no file of {what}; its name, or a folder's, must contain {split!r}; found "
        f"{', '.join(list(known.values())[:4])}"
    )


def _data_files(folder: Path) -> list[Path]:
    """Return the files of rows in any folder below; each split of `save_to_disk` is a folder."""
    if (folder / "dataset_dict.json").is_file():
        return [path for path in matching(folder, "*.arrow")]
    return row_files(folder)


def _kind(texts: list[str]) -> type[int] | type[float] | type[str]:
    """Return the type of a column of CSV as `datasets` infers it."""
    if all(re.fullmatch(r"[+-]?\d{1,18}", text) for text in texts):
        return int
    is_float = all(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) for text in texts)
    return float if is_float else str


def _has_word(name: str, word: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", name) is not None
