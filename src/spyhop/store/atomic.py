"""Write under a temporary name, then rename: readers see all of a file or folder, or nothing."""

import glob
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there becomes `path`.

    Files reach the disk before the rename. On an error nothing changes at `path`. Leftovers of a
    killed process are deleted by the next write to the same path on this host.

        with atomic_write(path) as temporary:
            temporary.write_text(text)
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
