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
        made = load(place) if self.is_shared else None  # by another shard
        if made is None or made.record.inputs != record.inputs:
            if place.exists():
                place.rename(self.folder / "replaced")
            try:
                self.out.rename(place)
            except OSError:
                if not self.is_shared or not place.exists():  # another shard was quicker
                    raise
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
            remove_parts(self.root, self.folder.name)


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
    folder = partial / (name if shard is None else f"{name}.shard-{shard.number}")
    work = Work(root, folder, parts, is_shared=shard is not None)
    lock = FileLock(partial / f"{name}.lock")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        try:
            if shard is None:
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


def remove_parts(root: Path, name: str) -> None:
    """Delete the parts of an artifact, and what shards left that were killed."""
    for folder in (root / PARTIAL).glob(f"{name}.*-*"):
        shutil.rmtree(folder, ignore_errors=True)
