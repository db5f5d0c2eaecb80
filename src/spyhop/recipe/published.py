"""A finished run as others can repeat it: settings, keys, digests, scores; no folder of this machine.

A published folder has `spyhop/run.json` (the record), `spyhop/recipe.toml` (the settings), and the
settings files that the recipe names, such as those of teachers.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from spyhop.recipe.events import RUN
from spyhop.schema import InputError
from spyhop.settings import read_toml, to_toml
from spyhop.store import Artifact
from spyhop.store.artifact import InputRecord, load
from spyhop.train.release import totals

FOLDER, RECIPE = "spyhop", "recipe.toml"
MEASURE = "evaluate.measure"
_PLACE = re.compile(r"(^|\()/.*/")


class PublishedStep(BaseModel):
    """A finished step: its settings, the identity and content of inputs and result, its scores."""

    model_config = ConfigDict(frozen=True)

    name: str
    stage: str
    version: int
    key: str
    digest: str
    rows: int | None
    config: dict[str, Any]
    inputs: dict[str, list[InputRecord]]
    """An input is called by its step, or by the name of its file."""
    scores: dict[str, tuple[int, int]] = {}
    """Right answers and items by benchmark."""


class PublishedRun(BaseModel):
    """All steps of a finished run, in the order of the recipe."""

    model_config = ConfigDict(frozen=True)

    spyhop: str
    recipe: str
    name: str
    steps: list[PublishedStep]


def publish(folder: Path) -> tuple[PublishedRun, dict[str, str]]:
    """Return the record of a run's folder, and its settings files by their path in `FOLDER`.

    Raises:
        InputError: If the run is not finished, or its settings are not known.
    """
    try:
        about = json.loads((folder / RUN).read_text())
        tables, names = about["settings"], [step["name"] for step in about["steps"]]
        is_done = about["state"] == "done"
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder}: no folder of a run (runs/<name> of an output folder)") from None
    made = {name: load(folder / name) for name in names}
    missing = [name for name, artifact in made.items() if artifact is None]
    if not is_done or missing or tables is None:
        reason = f"not finished: {', '.join(missing)}" if missing else "not finished"
        reason = reason if tables or missing else "made by a script, so its settings are not known"
        raise InputError(f"{folder}: this run is {reason}")
    steps = [_step(name, artifact) for name, artifact in made.items() if artifact]
    run = PublishedRun(
        spyhop=about["spyhop"], recipe=tables["recipe"], name=about["recipe"], steps=steps
    )
    own = Path(about["settings_folder"])
    return run, _settings(PurePosixPath(RECIPE), tables, own, {RECIPE: Path(), RUN: Path()})


def _step(name: str, artifact: Artifact) -> PublishedStep:
    record = artifact.record
    inputs = {
        key: [each.model_copy(update={"name": _PLACE.sub(r"\1", each.name)}) for each in some]
        for key, some in record.inputs.items()
    }
    scores = totals(artifact) if record.stage == MEASURE else []
    return PublishedStep(
        name=name, stage=record.stage, version=record.version, key=record.key,
        digest=record.digest, rows=record.rows, config=record.config, inputs=inputs,
        scores={suite: (right, num) for suite, right, num in scores},
    )  # fmt: skip


def _settings(
    place: PurePosixPath, tables: Mapping[str, Any], folder: Path, places: dict[str, Path]
) -> dict[str, str]:
    """Return the text of a settings file by its place, and those of the files that it names."""
    files = {str(place): to_toml(_portable(tables, folder, places))}
    for name, path in places.items():
        inner = place.parent / name
        if path.suffix == ".toml":
            files |= _settings(inner, read_toml(path), path.parent, {})
        elif path.suffix in (".yaml", ".yml"):
            files[str(inner)] = path.read_text(encoding="utf-8")
    return files


def _portable(value: Any, folder: Path, places: dict[str, Path]) -> Any:  # noqa: ANN401 (TOML)
    """Return settings whose paths lead to `places` beside them."""
    if isinstance(value, Mapping):
        return {name: _portable(each, folder, places) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(each, folder, places) for each in value]
    if not isinstance(value, str | Path):
        return value
    given = Path(value)
    try:
        path = folder / given.expanduser()
        if not str(value) or not path.exists():
            return value
    except (OSError, RuntimeError, ValueError):  # a text that cannot name a file
        return value
    is_beside = not given.is_absolute() and given.parts[0] not in ("..", "~")
    name = given.as_posix() if is_beside else given.name
    while places.setdefault(name, path) != path:
        name = f"other-{name}"
    return name


def read_published(card: Path) -> tuple[PublishedRun, Path]:
    """Return the record beside a model's or data set's card, and the recipe file beside it."""
    folder = card if card.is_dir() else card.parent
    place = folder / FOLDER / RUN
    try:
        return PublishedRun.model_validate_json(place.read_bytes()), place.with_name(RECIPE)
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no record of a run"
        raise InputError(f"{place}: cannot be read ({reason}); `spyhop push` writes it") from None
