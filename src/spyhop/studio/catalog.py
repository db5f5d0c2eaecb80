"""The artifacts of a store: their records, and the steps that they belong to."""

from dataclasses import dataclass, field
from pathlib import Path

from spyhop.schema import ArtifactError
from spyhop.store import RUNS, Artifact
from spyhop.store.artifact import RECORD, load


@dataclass(slots=True)
class Catalog:
    """What a store holds, looked at again on every request; records are read once."""

    root: Path
    damaged: dict[str, str] = field(default_factory=dict)
    """Reason by folder, of records that cannot be read."""
    _read: dict[str, tuple[int, Artifact]] = field(default_factory=dict)

    def artifacts(self) -> list[Artifact]:
        """Return the finished artifacts, the newest first."""
        found, self.damaged = list[Artifact](), {}
        for path in self.root.glob("*.*-*"):
            try:
                stamp = (path / RECORD).stat().st_mtime_ns
                if self._read.get(path.name, (0,))[0] != stamp and (made := load(path)):
                    self._read[path.name] = (stamp, made)
                found.append(self._read[path.name][1])
            except ArtifactError as error:
                self.damaged[path.name] = str(error)
            except (OSError, KeyError):
                continue  # unfinished, or deleted meanwhile
        return sorted(found, key=lambda each: (each.record.created, each.path.name), reverse=True)

    def steps(self) -> dict[str, list[str]]:
        """Return `run/step` names by artifact."""
        found: dict[str, list[str]] = {}
        for link in sorted(self.root.glob(f"{RUNS}/*/*")):
            if link.is_symlink():
                steps = found.setdefault(link.readlink().name, [])
                steps.append(f"{link.parent.name}/{link.name}")
        return found
