"""Teacher files: a model, and its endpoints or its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from spyhop.models.base import ModelConfig
from spyhop.models.classifier import Classifier, LabelClassifier, is_classifier
from spyhop.models.endpoint import Remote
from spyhop.models.local import Local
from spyhop.models.service import Service
from spyhop.schema import RecipeError
from spyhop.settings import InputPath, read_toml, validated


@dataclass(frozen=True, slots=True)
class Teacher:
    """A model as a file names it: a served one with its service, or a folder of weights."""

    config: ModelConfig
    folder: Path | None = None
    service: Service | None = None


class _Served(Service):
    """The whole file of a served model."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1)
    revision: str = ""
    extra: dict[str, Any] = Field(default_factory=dict)
    omit: tuple[str, ...] = ()


class _Kept(Local):
    """The whole file of a model in a folder."""

    folder: InputPath


def read_teacher(path: Path) -> Teacher:
    """Read a teacher's file (TOML), or take weights, a classifier or a file of labels as it is."""
    if path.is_dir():
        kind = Classifier if is_classifier(path) else Local
        return Teacher(kind(name=path.name), folder=path)
    if path.suffix == ".jsonl":
        return Teacher(LabelClassifier(name=path.stem), folder=path)
    given = read_toml(path)
    context = {"folder": path.absolute().parent}
    if "folder" in given:
        kept = validated(path, _Kept, given, "", context)
        return Teacher(Local(**kept.model_dump(exclude={"folder"})), folder=kept.folder)
    if "endpoints" not in given:
        raise RecipeError(
            f'{path}: add [[endpoints]] with a url, or folder = "..." for local weights'
        )
    served = validated(path, _Served, given, "", context)
    identity = set(Remote.model_fields) - {"kind"}
    config = Remote(**served.model_dump(include=identity))
    return Teacher(config, service=Service(**{k: getattr(served, k) for k in Service.model_fields}))
