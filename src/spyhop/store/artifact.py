"""Artifacts: a folder is finished when, and only when, it holds `record.json`."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from spyhop.schema import ArtifactError, Row

RECORD = "record.json"
DROPPED = "dropped"
"""Folder of the rows that a stage dropped, with their reasons."""
LOGS = "logs"
"""Folder for what differs between two equal runs (timings); not part of the digest."""

AnyRow = TypeVar("AnyRow", bound=Row)


class InputRecord(BaseModel):
    """What an artifact was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Step of the recipe or file that it comes from."""
    slot: str = ""
    """Name within a mapping of inputs; empty for a single input."""
    key: str
    digest: str


class Record(BaseModel):
    """Everything known of a finished artifact; most of it for people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    stage: str
    version: int
    config: dict[str, Any]
    inputs: dict[str, list[InputRecord]]
    digest: str
    rows: int | None = None
    counts: dict[str, int] = {}
    dropped: dict[str, int] = {}
    usage: dict[str, float] = {}
    """Requests, prompt_tokens, response_tokens and usd that its model calls took."""
    seconds: float = 0.0
    created: str = ""
    provenance: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished result (or a source) on disk, and its record."""

    path: Path
    record: Record

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

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the table in record batches, part by part.

        Raises:
            ArtifactError: If a part is damaged.
        """
        for part in self.parts():
            try:
                with pq.ParquetFile(part) as file:
                    yield from file.iter_batches(batch_size=4096, columns=columns)
            except pa.ArrowInvalid as error:
                raise ArtifactError(
                    f"{part}: damaged ({error!s:.80}); delete {self.path} to make it anew"
                ) from None

    def dropped(self) -> Iterator[tuple[str, str]]:
        """Yield reason and row (as JSON) of everything that was left out, in order."""
        for part in sorted((self.path / DROPPED).glob("part-*.parquet")):
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches(batch_size=4096):
                    yield from zip(
                        batch["reason"].to_pylist(), batch["row"].to_pylist(), strict=True
                    )

    def parts(self) -> list[Path]:
        """Return its Parquet parts in order."""
        return sorted(self.path.glob("part-*.parquet"))

    def __str__(self) -> str:
        """Return the folder's name."""
        return self.path.name


def folder_name(stage: str, key: str) -> str:
    """Return the folder name of an artifact, such as `train.tune-3f2a...`."""
    return f"{stage}-{key}"


def find(root: Path, stage: str, key: str) -> Artifact | None:
    """Return the finished artifact of that key, or None.

    Raises:
        ArtifactError: If its record cannot be read.
    """
    return load(root / folder_name(stage, key))


def load(path: Path) -> Artifact | None:
    """Return the artifact in this folder, or None when it is not finished."""
    record_path = path / RECORD
    if not record_path.is_file():
        return None
    try:
        return Artifact(path, Record.model_validate_json(record_path.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(
            f"{record_path}: {where or 'the record'} cannot be read ({first['msg']}); "
            "delete that folder to make it anew"
        ) from None


def digest_folder(path: Path) -> str:
    """Return the hash of names and contents of all files below, logs and record left out."""
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        if not file.is_file() or name.parts[0] in (LOGS, RECORD):
            continue
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(json.dumps([name.as_posix(), digest]).encode())
    return total.hexdigest()
