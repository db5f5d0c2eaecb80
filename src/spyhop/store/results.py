"""Results where a person looks for them: a copy of a file, or a link to a folder."""

import os
import shutil
from pathlib import Path

from spyhop.schema import ArtifactError


def put(file: Path, place: Path) -> Path:
    """Copy a file out of its artifact; what stood at `place` is replaced whole or not at all.

    Raises:
        ArtifactError: If it cannot be written there.
    """
    aside = place.with_name(f".{place.name}.tmp")
    try:
        shutil.copy2(file, aside)
        aside.replace(place)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise ArtifactError(
            f"{place}: cannot be written ({error.strerror}); the result is {file}"
        ) from None
    return place


def link(folder: Path, place: Path) -> Path:
    """Make `place` lead to an artifact's folder; only a link is replaced.

    Raises:
        ArtifactError: If it cannot be written there.
    """
    if place.exists() and not place.is_symlink():
        raise ArtifactError(f"{place}: not a link of ours; the result is {folder}")
    aside = place.with_name(f".{place.name}.tmp")
    try:
        aside.unlink(missing_ok=True)
        aside.symlink_to(os.path.relpath(folder, place.parent), target_is_directory=True)
        aside.replace(place)
    except OSError as error:
        raise ArtifactError(
            f"{place}: cannot be written ({error.strerror}); the result is {folder}"
        ) from None
    return place
