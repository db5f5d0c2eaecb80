"""Artifacts: a folder is finished when, and only when, it holds `record.json`."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from spyhop.schema import ArtifactError, Row
from spyhop.store.keys import number_of
from spyhop.store.verify import file_digest, unsealed

RECORD, PARTS = "record.json", "part-*.parquet"
DROPPED = "dropped"
"""Folder of the rows that a stage dropped, with their reasons."""
LOGS = "logs"
"""Folder for what differs between two equal runs (timings); not part of the digest."""

AnyRow = TypeVar("AnyRow", bound=Row)
_VERIFIED: set[tuple[str, int, int, int]] = set()
"""Path, size, time and inode of the files that this process has verified."""


class InputRecord(BaseModel):
    """An input that an artifact was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Step of the recipe or file that it comes from."""
    slot: str = ""
    """Name within a mapping of inputs; empty for a single input."""
    key: str
    digest: str


class Record(BaseModel):
    """Description of a finished artifact; most of it for people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    stage: str
    version: int
    config: dict[str, Any]
    inputs: dict[str, list[InputRecord]]
    digest: str = ""
    """Hash of names and contents of all files."""
    files: dict[str, str] = {}
    """Relative path to `verify.file_digest` of its content; a source has no such list."""
    rows: int | None = None
    counts: dict[str, int] = {}
    dropped: dict[str, int] = {}
    usage: dict[str, float] = {}
    """Requests, prompt_tokens, response_tokens and usd of its model calls."""
    seconds: float = 0.0
    created: str = ""
    provenance: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished result (or a source) on disk, and its record."""

    path: Path
    record: Record

    @property
    def name(self) -> str:
        """Name of its folder in a store, such as `train.tune-3f2a...`."""
        return folder_name(self.record.stage, self.record.key)

    @property
    def key(self) -> str:
        """Hash of stage, version, config and input keys."""
        return self.record.key

    @property
    def digest(self) -> str:
        """Hash of the content of its files."""
        return self.record.digest

    @property
    def num_rows(self) -> int:
        """Rows of a rows or tables artifact; 0 for a folder."""
        return self.record.rows or 0

    def rows(self, row_type: type[AnyRow]) -> Iterator[AnyRow]:
        """Yield the rows in order, batch by batch, so that memory stays flat."""
        for batch in self.batches():
            for value in batch.to_pylist(maps_as_pydicts="strict"):
                yield row_type.model_validate(value)

    def dropped(self) -> Iterator[tuple[str, str]]:
        """Yield reason and row (as JSON) of all dropped rows, in order."""
        for batch in self.batches(pattern=f"{DROPPED}/part-*.parquet"):
            yield from zip(batch["reason"].to_pylist(), batch["row"].to_pylist(), strict=True)

    def batches(
        self, columns: list[str] | None = None, pattern: str = PARTS
    ) -> Iterator[pa.RecordBatch]:
        """Yield the table in record batches, part by part; each part is verified first."""
        for name in self.names(pattern):
            part = self.file(name)
            try:
                with pq.ParquetFile(part) as file:
                    yield from file.iter_batches(batch_size=4096, columns=columns)
            except (pa.ArrowException, OSError) as error:
                raise self._damaged(name, " ".join(str(error).split())) from None

    def parts(self) -> list[Path]:
        """Return its Parquet parts in order, all of them verified, for any engine to read."""
        return [self.file(name) for name in self.names(PARTS)]

    def file(self, name: str) -> Path:
        """Return one of its files, verified before the first read in this process."""
        path = self.path / name
        try:
            stat = path.stat()
            stamp = (str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ino)
            if name in self.record.files and stamp not in _VERIFIED:
                if file_digest(path) != self.record.files[name]:
                    raise self._damaged(name, "its content is not what was written")
                _VERIFIED.add(stamp)
        except OSError as error:
            raise self._damaged(name, error.strerror or "unreadable") from None
        return path

    def verify(self) -> None:
        """Verify all files, before code that reads the folder by itself."""
        for name in self.record.files:
            self.file(name)

    def names(self, pattern: str) -> list[str]:
        """Return the recorded files that match; of a source, those in the folder."""
        if self.record.files:
            return sorted(name for name in self.record.files if fnmatchcase(name, pattern))
        return sorted(p.relative_to(self.path).as_posix() for p in self.path.glob(pattern))

    def _damaged(self, name: str, reason: str) -> ArtifactError:
        return ArtifactError(
            f"{self.path / name}: damaged ({reason:.80}); "
            f"delete {self.path} and rerun to rebuild it"
        )

    def __str__(self) -> str:
        """Return the folder's name."""
        return self.path.name


Artifacts = Mapping[str, Artifact]
"""Several artifacts by name, as one input of a stage."""


def rows_of(artifacts: Artifacts | None, row_type: type[AnyRow]) -> Iterator[AnyRow]:
    """Yield the rows of several artifacts, one after the other."""
    return chain.from_iterable(each.rows(row_type) for each in (artifacts or {}).values())


def nested_draw(rows: Artifact, num_rows: int, seed: int) -> npt.NDArray[np.bool_]:
    """Return which rows are drawn, uniformly: (number of rows,), in their order.

    By a hash of (seed, id): a smaller draw is part of a larger one. Eight bytes a row in memory.
    """
    names = (name for batch in rows.batches(["id"]) for name in batch["id"].to_pylist())
    places = np.fromiter((number_of(f"{seed}/{name}") for name in names), dtype=np.uint64)
    if num_rows >= len(places):
        return np.ones(len(places), dtype=np.bool_)
    is_drawn: npt.NDArray[np.bool_] = places <= np.partition(places, num_rows - 1)[num_rows - 1]
    return is_drawn


def folder_name(stage: str, key: str) -> str:
    """Return the folder name of an artifact, such as `train.tune-3f2a...`."""
    return f"{stage}-{key}"


def find(root: Path, stage: str, key: str) -> Artifact | None:
    """Return the finished artifact of that key, or None."""
    return load(root / folder_name(stage, key))


def load(path: Path) -> Artifact | None:
    """Return the artifact in this folder, or None when it is not finished."""
    record_path = path / RECORD
    if not record_path.is_file():
        return None
    try:
        return Artifact(path, Record.model_validate_json(unsealed(record_path.read_bytes())))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{where or 'the record'} cannot be read: {first['msg']}"
    except (ValueError, OSError) as error:
        reason = str(error)
    raise ArtifactError(
        f"{record_path}: damaged ({reason:.120}); delete that folder and rerun to rebuild it"
    )


def digests(path: Path) -> dict[str, tuple[str, str]]:
    """Return SHA-256 and `file_digest` of all files below, except logs and the record."""
    found = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        if file.is_file() and name.parts[0] not in (LOGS, RECORD):
            with file.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            found[name.as_posix()] = (sha256, file_digest(file))
    return found


def digest_of(files: Mapping[str, tuple[str, str]]) -> str:
    """Return the hash of names and contents of files, in the given order."""
    total = hashlib.sha256()
    for name, (sha256, _) in files.items():
        total.update(json.dumps([name, sha256]).encode())
    return total.hexdigest()
