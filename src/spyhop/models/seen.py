"""What `doctor` saw of a served model, kept in the store for plans."""

import json
from collections.abc import Iterable
from pathlib import Path

from spyhop.models.base import ModelConfig
from spyhop.models.doctor import LOG_PROBABILITIES, CapabilityCheck
from spyhop.store import key_of
from spyhop.store.atomic import atomic_write

FOLDER = ".seen"


def remember(root: Path, config: ModelConfig, checks: Iterable[CapabilityCheck]) -> None:
    """Keep whether every endpoint of a model gave log-probabilities, if any was asked."""
    found = [check.text == "given" for check in checks if check.name.endswith(LOG_PROBABILITIES)]
    if found:
        path = _path(root, config)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps({"log_probabilities": all(found)}))


def gives_log_probabilities(root: Path, config: ModelConfig) -> bool:
    """Return whether a model gives log-probabilities, as far as `doctor` has seen."""
    try:
        seen = json.loads(_path(root, config).read_text())
    except (OSError, ValueError):
        return True
    return bool(seen.get("log_probabilities", True)) if isinstance(seen, dict) else True


def _path(root: Path, config: ModelConfig) -> Path:
    return root / FOLDER / f"{key_of([type(config).__name__, config])}.json"
