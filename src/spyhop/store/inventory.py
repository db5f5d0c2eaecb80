"""List artifacts, their size and users; delete unused ones."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from spyhop.schema import ArtifactError
from spyhop.store.artifact import LOGS, RECORD, Artifact, load
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
    """The store's content, read at creation.

    Only folders that the store made and nobody changed are its own: a link, another folder's name,
    or a file that the record does not list means that somebody keeps something there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        users = _users(root)
        paths = [("artifact", path) for path in sorted(root.glob("*.*-*")) if _is_ours(path)]
        partial = sorted((root / PARTIAL).glob("*-*"))
        paths += [("partial", path) for path in partial if path.is_dir()]
        paths += [("journal", path) for path in sorted((root / JOURNAL).glob("*.sqlite"))]
        self.entries = [
            Entry(path, kind, _num_bytes(path), tuple(users.get(path.name, [])))
            for kind, path in paths
        ]

    def idle(self, kinds: Collection[str] = ("artifact",)) -> list[Entry]:
        """Return what no last run needs; by default artifacts, not work to resume or replies."""
        return [entry for entry in self.entries if entry.kind in kinds and not entry.needed_by]

    def free(self, kinds: Collection[str] = ("artifact",)) -> list[Entry]:
        """Delete idle entries, except those that another process works on."""
        return [entry for entry in self.idle(kinds) if self._delete(entry)]

    def _delete(self, entry: Entry) -> bool:
        partial = self.root / PARTIAL
        lock, aside = partial / f"{entry.path.name}.lock", partial / f"{entry.path.name}.freed"
        try:
            if entry.kind == "journal":  # the models of any run may be writing to it
                lock = entry.path.with_suffix(".owner")
                for other in partial.glob("*.lock"):
                    FileLock(other).acquire(timeout=0).lock.release()
            with FileLock(lock).acquire(timeout=0):
                remove(aside)  # what a kill left here
                entry.path.rename(aside)  # so that a kill leaves nothing that looks finished
                remove(aside)
                if entry.kind == "journal":  # its digest; its log, if the last run was killed
                    for file in entry.path.parent.glob(f"{entry.path.stem}.*"):
                        remove(file)
        except (Timeout, FileNotFoundError):  # worked on by another process, or freed by it
            return False
        return True


def point(root: Path, recipe: str, step: str, artifact: Artifact) -> None:
    """Link `runs/<recipe>/<step>` to the artifact that the recipe's last run used."""
    folder = root / RUNS / recipe
    link, target = folder / step, Path("../..") / artifact.path.name
    if link.is_symlink() and link.readlink() == target:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if link.is_dir() and not link.is_symlink():
        if load(link) is None:
            raise ArtifactError(f"{link}: a folder in place of a link; move it away")
        remove(link)  # a copy of an artifact that a copied store has in place of the link
    with atomic_write(link) as temporary:
        temporary.symlink_to(target)


def forget(root: Path, recipe: str, steps: set[str]) -> None:
    """Remove the links of steps that the recipe no longer has."""
    for link in strays(root, recipe, steps):
        link.unlink(missing_ok=True)


def strays(root: Path, recipe: str, steps: set[str]) -> list[Path]:
    """Return the links of steps of the last run that the recipe no longer has."""
    links = sorted((root / RUNS / recipe).glob("[!.]*"))
    return [link for link in links if link.is_symlink() and link.name not in steps]


def pointed(root: Path, recipe: str, step: str) -> Path | None:
    """Return the artifact folder that the recipe's last run gave this step, or None."""
    name = _target(root / RUNS / recipe / step)
    return None if name is None else root / name


def _is_ours(path: Path) -> bool:
    """Return whether a folder is an artifact as the store made it."""
    artifact = None if path.is_symlink() else load(path)
    if artifact is None or path.name != artifact.name:
        return False
    files = artifact.record.files
    own = {path / RECORD, *(path / name for name in files)}
    found = {file for file in path.rglob("*") if not file.is_dir() and LOGS not in file.parts}
    return not files or found <= own


def _users(root: Path) -> dict[str, list[str]]:
    """Return what refers to each artifact: steps of the last runs, and links in the store."""
    users: dict[str, list[str]] = {}
    for link in sorted([*root.glob("*"), *(root / RUNS).glob("*/*")]):
        in_runs = link.parent != root
        if (name := _target(link) if in_runs or link.is_symlink() else None) is not None:
            shown = f"{link.parent.name}/{link.name}" if in_runs else link.name
            users.setdefault(name, []).append(shown)
    return users


def _target(link: Path) -> str | None:
    """Return the name of the artifact that a link leads to, or that its copy has."""
    if link.is_symlink():
        return link.readlink().name
    artifact = load(link)
    return None if artifact is None else artifact.name


def _num_bytes(path: Path) -> int:
    num_bytes = 0
    for file in path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*"):
        with suppress(FileNotFoundError):  # a run deleted it meanwhile
            num_bytes += file.stat().st_size if file.is_file() else 0
    return num_bytes
