"""Results where a person looks for them: a copy of a file, or a link to a folder."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from spyhop.schema import ArtifactError
from spyhop.store.atomic import atomic_write


def export_file(file: Path, place: Path) -> Path:
    """Copy a file out of its artifact; an existing one is replaced whole or not at all."""
    return _export(file, place, lambda temporary: shutil.copy2(file, temporary))


def export_folder(folder: Path, place: Path) -> Path:
    """Link `place` to an artifact's folder; only a link is replaced."""
    if place.exists() and not place.is_symlink():
        raise ArtifactError(f"{place}: exists and is no link of spyhop's; the result is {folder}")
    target = os.path.relpath(folder, place.parent)
    return _export(folder, place, lambda temporary: temporary.symlink_to(target))


def _export(result: Path, place: Path, write: Callable[[Path], object]) -> Path:
    try:
        with atomic_write(place) as temporary:
            write(temporary)
    except OSError as error:
        raise ArtifactError(
            f"{place}: cannot be written ({error.strerror}); the result is {result}"
        ) from None
    return place
