"""The output folder of a command: results, journals and work in progress."""

import os
from pathlib import Path

from spyhop.runtime import Runtime
from spyhop.schema import ArtifactError, RecipeError
from spyhop.settings import expanded
from spyhop.store import RUNS

VARIABLE, FOLDER = "SPYHOP_STORE", "spyhop-out"
CHOICES = f"--out, `store` in [runtime], or {VARIABLE}"


def output_folder(out: Path | None, beside: Path = Path(), runtime: Runtime | None = None) -> Path:
    """Return the output folder: `out`, the runtime's `store`, or that of `SPYHOP_STORE`.

    Else it is the recipe's folder (`beside`) if it contains `runs`, or `spyhop-out` in it.
    """
    if out is not None:
        return out
    if runtime is not None and runtime.store is not None:
        return runtime.store
    if named := os.environ.get(VARIABLE):
        try:
            return expanded(Path(named))
        except ValueError as error:
            raise RecipeError(f"{VARIABLE}={named}: {error}") from None
    return beside if (beside / RUNS).is_dir() else beside / FOLDER


def existing(folder: Path) -> Path:
    """Return the output folder."""
    if not folder.is_dir():
        raise ArtifactError(
            f"{folder}: no such folder; name the output folder of your run: {CHOICES}"
        )
    return folder


def writable(folder: Path) -> Path:
    """Create the output folder if needed, and return it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK) else "no permission"
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise ArtifactError(
            f"{folder}: this output folder cannot be written ({reason}); name another: {CHOICES}"
        )
    return folder
