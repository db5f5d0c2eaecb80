"""Work in progress: one owner at a time, resumed after a kill, renamed when finished."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from spyhop.schema import ArtifactError
from spyhop.store.artifact import RECORD, Artifact, Record, digest_of, digests, folder_name
from spyhop.store.verify import sealed

PARTIAL = ".partial"
WAIT_S = 0.5


@dataclass(frozen=True, slots=True)
class Work:
    """A claimed piece of work: `out` becomes the artifact, `state` is what resuming needs."""

    root: Path
    folder: Path

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
        if place.exists():
            aside = self.folder / "replaced"
            place.rename(aside)
        self.out.rename(place)
        self.discard()
        return Artifact(place, record)

    def discard(self) -> None:
        """Delete what is left of the work, its state included."""
        shutil.rmtree(self.folder)


@contextmanager
def claim(
    root: Path,
    stage: str,
    key: str,
    input_digests: dict[str, list[str]],
    on_wait: Callable[[str], None],
) -> Iterator[Work]:
    """Own the work on one artifact, waiting while another run has it.

    State left by a killed run is kept if it was made from inputs of the same content, else deleted.
    `on_wait` is called once, with a message for the user, if another process has the lock.
    """
    partial = root / PARTIAL
    work = Work(root, partial / folder_name(stage, key))
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
