"""Write under a temporary name, then rename: readers see all of a file or folder, or nothing."""

import glob
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spyhop.schema import ArtifactError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there becomes `path`.

    Files reach the disk before the rename. On an error nothing changes at `path`. Leftovers of a
    killed process are deleted by the next write to the same path on this host.
    """
    prefix = f".{path.name}.{socket.gethostname()}-"
    for leftover in path.parent.glob(f"{glob.escape(prefix)}*"):
        if not is_alive(leftover.name.removeprefix(prefix)):
            remove(leftover)
    temporary = path.with_name(f"{prefix}{os.getpid()}")
    remove(temporary)
    try:
        yield temporary
        for file in [temporary, *temporary.rglob("*")]:
            if file.is_file() and not file.is_symlink():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        remove(temporary)
        raise


def remove(path: Path) -> None:
    """Delete a file, folder or link, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_alive(process: str | int) -> bool:
    """Return whether a process of this number runs on this machine."""
    try:
        os.kill(int(process), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def export(result: Path, place: Path) -> Path:
    """Copy an artifact's file to `place`, whole or not at all; link `place` to a folder.

    A file is replaced, in place of a folder only a link.
    """
    if result.is_dir() and place.exists() and not place.is_symlink():
        raise ArtifactError(f"{place}: exists and is no link of spyhop's; the result is {result}")
    try:
        with atomic_write(place) as temporary:
            if result.is_dir():
                temporary.symlink_to(os.path.relpath(result, place.parent))
            else:
                shutil.copy2(result, temporary)
    except OSError as error:
        raise ArtifactError(
            f"{place}: cannot be written ({error.strerror}); the result is {result}"
        ) from None
    return place
