"""What the store holds, who needs it, and what may be freed."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from spyhop.store.artifact import Artifact, load
from spyhop.store.atomic import atomic_write, remove
from spyhop.store.work import PARTIAL

RUNS = "runs"
JOURNAL = ".journal"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in the store."""

    path: Path
    kind: str
    """`artifact`, `partial` (work left by a killed run) or `journal` (replies of a model)."""
    num_bytes: int
    needed_by: tuple[str, ...]
    """`recipe/step` names whose last run uses it."""


class Inventory:
    """The store's content, read afresh at creation."""

    def __init__(self, root: Path) -> None:
        self.root = root
        users = _users(root)
        folders = sorted(path for path in root.glob("*.*-*") if load(path) is not None)
        self.entries = [
            Entry(path, "artifact", _num_bytes(path), tuple(users.get(path.name, [])))
            for path in folders
        ]
        self.entries += [
            Entry(path, "partial", _num_bytes(path), tuple(users.get(path.name, [])))
            for path in sorted((root / PARTIAL).glob("*-*"))
            if path.is_dir()
        ]
        self.entries += [
            Entry(path, "journal", _num_bytes(path), ())
            for path in sorted((root / JOURNAL).glob("*.sqlite"))
        ]

    def idle(self, kinds: Collection[str] = ("artifact",)) -> list[Entry]:
        """Return what no recipe's last run needs, of these kinds.

        By default neither the work of a killed run nor journals: the one would go on from its last
        checkpoint, the other may hold replies that were paid for.
        """
        return [entry for entry in self.entries if entry.kind in kinds and not entry.needed_by]

    def free(self, kinds: Collection[str] = ("artifact",)) -> list[Entry]:
        """Delete what is idle; what another process works on is left alone."""
        return [entry for entry in self.idle(kinds) if self._delete(entry)]

    def _delete(self, entry: Entry) -> bool:
        lock = FileLock(self.root / PARTIAL / f"{entry.path.name}.lock")
        if entry.kind == "journal":
            if self._is_busy():  # its models may be writing to any of them
                return False
            lock = FileLock(entry.path.with_suffix(".owner"))
        aside = self.root / PARTIAL / f"{entry.path.name}.freed"
        try:
            with lock.acquire(timeout=0):
                remove(aside)  # what a kill left here
                entry.path.rename(aside)  # so that a kill leaves nothing that looks finished
                remove(aside)
                if entry.kind == "journal":  # its digest; its log, if the last run was killed
                    for file in entry.path.parent.glob(f"{entry.path.stem}.*"):
                        remove(file)
        except (Timeout, FileNotFoundError):  # worked on by another process, or freed by it
            return False
        return True

    def _is_busy(self) -> bool:
        """Tell whether a run is making anything in this store."""
        for path in (self.root / PARTIAL).glob("*.lock"):
            try:
                FileLock(path).acquire(timeout=0).lock.release()
            except Timeout:
                return True
        return False


def point(root: Path, recipe: str, step: str, artifact: Artifact) -> None:
    """Let `runs/<recipe>/<step>` lead to the artifact that the recipe's last run used."""
    folder = root / RUNS / recipe
    link, target = folder / step, Path("../..") / artifact.path.name
    if link.is_symlink() and link.readlink() == target:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(link) as temporary:
        temporary.symlink_to(target)


def forget(root: Path, recipe: str, steps: set[str]) -> None:
    """Remove what leads to steps that the recipe no longer has."""
    for link in strays(root, recipe, steps):
        link.unlink(missing_ok=True)


def strays(root: Path, recipe: str, steps: set[str]) -> list[Path]:
    """Return what leads to steps of the last run that the recipe no longer has."""
    links = sorted((root / RUNS / recipe).glob("[!.]*"))
    return [link for link in links if link.is_symlink() and link.name not in steps]


def pointed(root: Path, recipe: str, step: str) -> Path | None:
    """Return the artifact folder that the recipe's last run gave this step, or None."""
    link = root / RUNS / recipe / step
    return root / link.readlink().name if link.is_symlink() else None


def _users(root: Path) -> dict[str, list[str]]:
    users: dict[str, list[str]] = {}
    for link in sorted((root / RUNS).glob("*/*")):
        if link.is_symlink():
            name = link.readlink().name
            users.setdefault(name, []).append(f"{link.parent.name}/{link.name}")
    return users


def _num_bytes(path: Path) -> int:
    num_bytes = 0
    for file in path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*"):
        with suppress(FileNotFoundError):  # a run goes on beside us
            num_bytes += file.stat().st_size if file.is_file() else 0
    return num_bytes
