"""What the store holds, who needs it, and what may be freed."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from spyhop.store.artifact import Artifact, load
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
    """`recipe/node` names whose last run uses it; empty means that it can be made free."""


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
            Entry(path, "journal", _num_bytes(path), ("kept: replies may have cost money",))
            for path in sorted((root / JOURNAL).glob("*.sqlite"))
        ]

    def free(self) -> list[Entry]:
        """Delete what no recipe's last run needs; work that is going on is left alone."""
        return [entry for entry in self.entries if not entry.needed_by and self._delete(entry)]

    def _delete(self, entry: Entry) -> bool:
        lock = FileLock(self.root / PARTIAL / f"{entry.path.name}.lock")
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(entry.path)
        except Timeout:
            return False
        return True


def point(root: Path, recipe: str, node: str, artifact: Artifact) -> None:
    """Let `runs/<recipe>/<node>` lead to the artifact that the recipe's last run used."""
    folder = root / RUNS / recipe
    link, target = folder / node, Path("../..") / artifact.path.name
    if link.is_symlink() and link.readlink() == target:
        return
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{node}.{os.getpid()}"
    aside.symlink_to(target)
    aside.replace(link)


def forget(root: Path, recipe: str, nodes: set[str]) -> None:
    """Remove what leads to nodes that the recipe no longer has."""
    for link in (root / RUNS / recipe).glob("*"):
        if link.name not in nodes:
            link.unlink()


def pointed(root: Path, recipe: str, node: str) -> Path | None:
    """Return the artifact folder that the recipe's last run gave this node, or None."""
    link = root / RUNS / recipe / node
    return root / link.readlink().name if link.is_symlink() else None


def _users(root: Path) -> dict[str, list[str]]:
    users: dict[str, list[str]] = {}
    for link in sorted((root / RUNS).glob("*/*")):
        if link.is_symlink():
            name = link.readlink().name
            users.setdefault(name, []).append(f"{link.parent.name}/{link.name}")
    return users


def _num_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    return sum(file.stat().st_size for file in files if file.is_file())
