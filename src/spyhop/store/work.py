"""Work in progress: one owner at a time, resumed after a kill, renamed when finished.

Shards of a run share the parts of one piece of work instead, without a lock.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from spyhop.runtime import Shard
from spyhop.schema import ArtifactError
from spyhop.store.artifact import RECORD, Artifact, Record, digest_of, digests, folder_name, load
from spyhop.store.keys import key_of
from spyhop.store.verify import sealed

PARTIAL = ".partial"
WAIT_S = 0.5


@dataclass(frozen=True, slots=True)
class Work:
    """A claimed piece of work: `out` becomes the artifact, `state` is what resuming needs."""

    root: Path
    folder: Path
    parts: Path
    """Folder of finished parts, common to all shards."""
    is_shared: bool = False

    @property
    def out(self) -> Path:
        """Folder that is renamed into place; emptied whenever the work is resumed."""
        return self.folder / "out"

    @property
    def state(self) -> Path:
        """Folder that outlives a kill and is deleted at the end."""
        return self.folder / "state"

    def finish(self, record: Record) -> Artifact:
        """Add the digests of all files, write the record last, rename the folder into place.

        An artifact of the same key (made from inputs with other content) is replaced.
        """
        found = digests(self.out)
        files = {name: short for name, (_, short) in found.items()}
        record = record.model_copy(update={"digest": digest_of(found), "files": files})
        record_path = self.out / RECORD
        with record_path.open("wb") as stream:
            stream.write(sealed(record.model_dump_json(indent=1)))
            stream.flush()
            os.fsync(stream.fileno())
        place = self.root / folder_name(record.stage, record.key)
        if self.is_shared and (made := _equal(place, record)):
            return made
        if place.exists():
            aside = self.folder / "replaced"
            place.rename(aside)
        try:
            self.out.rename(place)
        except OSError:  # another shard was quicker
            if not self.is_shared or not (made := _equal(place, record)):
                raise
            return made
        self.discard()
        return Artifact(place, record)

    def mark(self, shard: Shard, num_calls: int) -> bool:
        """Note that a shard has done its parts after some calls; return whether all have."""
        marks = [self.parts / f"{num_calls}.{n + 1}-of-{shard.total}" for n in range(shard.total)]
        if shard.number:
            self.parts.mkdir(exist_ok=True)
            marks[shard.number - 1].touch()
        return all(mark.exists() for mark in marks)

    def discard(self) -> None:
        """Delete what is left of the work, its state included."""
        shutil.rmtree(self.folder)
        if not self.is_shared:  # else another shard may be reading them
            shutil.rmtree(self.parts, ignore_errors=True)


def _equal(place: Path, record: Record) -> Artifact | None:
    """Return the artifact at a place if it has the content and the inputs of this record."""
    made = load(place)
    is_equal = made is not None and made.record.digest == record.digest
    return made if is_equal and made and made.record.inputs == record.inputs else None


@contextmanager
def claim(
    root: Path,
    stage: str,
    key: str,
    input_digests: dict[str, list[str]],
    on_wait: Callable[[str], None],
    shard: Shard | None = None,
) -> Iterator[Work]:
    """Own the work on one artifact, waiting while another run has it; shards share it instead.

    State left by a killed run is kept if it was made from inputs of the same content, else deleted.
    `on_wait` is called once, with a message for the user, if another process has the lock.
    """
    partial, name = root / PARTIAL, folder_name(stage, key)
    parts = partial / f"{name}.parts-{key_of(input_digests)[:8]}"
    if shard is not None:
        folder = partial / f"{name}.shard-{shard.number}"
        with _shared(Work(root, folder, parts, is_shared=True)) as work:
            yield work
        return
    work = Work(root, partial / name, parts)
    lock = FileLock(partial / f"{work.folder.name}.lock")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=WAIT_S)
        except Timeout:
            on_wait("another run is making it; waiting for that one")
            lock.acquire()
    except OSError as error:
        raise ArtifactError(f"{partial}: cannot be written ({error.strerror})") from None
    try:
        stamp = work.folder / "inputs.json"
        text = json.dumps(input_digests, sort_keys=True)
        if not stamp.is_file() or stamp.read_text() != text:
            shutil.rmtree(work.folder, ignore_errors=True)
        shutil.rmtree(work.out, ignore_errors=True)
        work.out.mkdir(parents=True)
        work.state.mkdir(exist_ok=True)
        stamp.write_text(text)
        yield work
    finally:
        lock.release()


@contextmanager
def _shared(work: Work) -> Iterator[Work]:
    """Give a shard a folder of its own. Of several that make the artifact, one is kept."""
    try:
        shutil.rmtree(work.folder, ignore_errors=True)
        work.out.mkdir(parents=True)
        work.state.mkdir()
    except OSError as error:
        raise ArtifactError(f"{work.folder}: cannot be written ({error.strerror})") from None
    try:
        yield work
    finally:
        shutil.rmtree(work.folder, ignore_errors=True)


def remove_parts(root: Path, stage: str, key: str) -> None:
    """Delete the parts of a finished artifact."""
    for folder in (root / PARTIAL).glob(f"{folder_name(stage, key)}.parts-*"):
        shutil.rmtree(folder, ignore_errors=True)
