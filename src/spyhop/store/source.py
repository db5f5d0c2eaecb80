"""Inputs from outside: a file or folder becomes an artifact named by the digest of its content."""

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from spyhop.schema import ArtifactError, InputError
from spyhop.store.artifact import Artifact, Record
from spyhop.store.atomic import atomic_write
from spyhop.store.files import is_hidden
from spyhop.store.keys import key_of
from spyhop.store.verify import sealed, unsealed

RACY_S = 2.0
"""A file changed less than this ago is hashed again: a further edit might share its times."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file or folder from outside, whose content (not its path) bears identity."""

    path: Path

    def __init__(self, path: str | Path) -> None:
        object.__setattr__(self, "path", Path(path).expanduser())

    def open(self, root: Path) -> Artifact:
        """Return the source as an artifact whose key is the digest of its manifest.

        The manifest is the sorted list of (relative name, SHA-256) of every file below `path`;
        hidden files and folders are skipped. Digests are cached in `root` by path, size, inode
        and both times: setting an edited file's mtime back changes its ctime. A file of a folder
        that cannot be read is its reader's to report.
        """
        files = self._files()
        cache = _DigestCache(root / ".digests.json")
        manifest = {}
        try:
            for name, file in files.items():
                try:
                    manifest[name] = cache.digest(file)
                except OSError as error:
                    if not self.path.is_dir():
                        raise
                    manifest[name] = f"unreadable: {error.strerror}"
            num_bytes = sum(file.stat().st_size for file in files.values())
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from None
        cache.save()
        config, key = {"files": len(manifest), "bytes": num_bytes}, key_of(manifest)
        record = Record(key=key, stage="source", version=1, config=config, inputs={}, digest=key)
        return Artifact(self.path, record)

    def _files(self) -> dict[str, Path]:
        if self.path.is_file():
            return {self.path.name: self.path}
        if not self.path.is_dir():
            kind = "neither a file nor a folder" if self.path.exists() else "no such file or folder"
            raise InputError(f"{self.path}: {kind}")
        files = {
            name.as_posix(): file
            for file in sorted(self.path.rglob("*"))
            if file.is_file() and not is_hidden(name := file.relative_to(self.path))
        }
        if not files:
            raise InputError(f"{self.path}: the folder holds no files")
        return files


class _DigestCache:
    """SHA-256 of files, remembered while size, inode, mtime and ctime stay the same."""

    def __init__(self, path: Path) -> None:
        """Read a cache; one without a checksum, of older code, counts as empty."""
        self._path = path
        self._known: dict[str, list[str]] = {}
        self._is_changed = False
        if path.is_file():
            try:
                raw = path.read_bytes()
                found = json.loads(unsealed(raw))
                if raw != sealed(json.dumps(found)) and "files" in found:
                    raise ValueError("its checksum is damaged")
            except ValueError as error:
                raise ArtifactError(
                    f"{path}: damaged ({error!s:.80}); delete it: files are then hashed again"
                ) from None
            self._known = found.get("files", {})

    def digest(self, file: Path) -> str:
        stat = file.stat()
        stamp = f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}-{stat.st_ino}"
        name = str(file.resolve())
        known_stamp, digest = self._known.get(name, ("", ""))
        if known_stamp == stamp:
            return digest
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if time.time() - max(stat.st_mtime, stat.st_ctime) > RACY_S:
            self._known[name] = [stamp, digest]
            self._is_changed = True
        return digest

    def save(self) -> None:
        if not self._is_changed:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path) as temporary:
                temporary.write_bytes(sealed(json.dumps({"files": self._known})))
        except OSError as error:
            raise ArtifactError(f"{self._path}: cannot be written ({error.strerror})") from None
