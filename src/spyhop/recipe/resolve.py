"""Keys and states of a recipe's steps, without running anything."""

from dataclasses import dataclass, field
from pathlib import Path

from spyhop.models import ModelUse
from spyhop.recipe.graph import (
    Chosen,
    Recipe,
    RecipeStep,
    Ref,
    Source,
    Use,
    label,
    mapped,
    parents,
    promotions,
    refs_by_name,
)
from spyhop.recipe.promote import read_promotion
from spyhop.stage import StageInput
from spyhop.store import Artifact, Record, key_of
from spyhop.store.artifact import folder_name


@dataclass(slots=True)
class Resolved:
    """A recipe in a store: the key of each step, and its artifact where one is finished."""

    root: Path
    recipe: Recipe
    keys: dict[str, str] = field(default_factory=dict)
    made: dict[str, Artifact] = field(default_factory=dict)
    missing: list[Path] | None = None
    """Sources that are not there, each taken for an empty one; None refuses them."""
    _sources: dict[Path, Artifact] = field(default_factory=dict)

    def inputs(self, step: RecipeStep) -> dict[str, StageInput]:
        """Return a step's inputs; what is not made yet is an artifact with a key but no content."""
        return {**mapped(step, self._open)}

    def labels(self, step: RecipeStep) -> dict[str, dict[str, str]]:
        """Return the steps and files that the inputs come from, for records."""
        return {
            name: {slot: label(self.chosen(ref)) for slot, ref in refs_by_name(value).items()}
            for name, value in step.inputs.items()
        }

    def chosen(self, ref: Ref) -> Ref:
        """Return what an input stands for: itself, or what a promote step chose, once it has."""
        if isinstance(ref, Use):
            folder = None if ref.folder is None else self._choice(ref.folder)
            return Use(ref.config, folder, ref.service)
        return self._choice(ref)

    def undecided(self) -> dict[str, list[str]]:
        """Return the undecided promote steps that each step depends on."""
        table: dict[str, list[str]] = {}
        for step in self.recipe.steps:
            found = [name for parent in parents(step) for name in table[parent.name]]
            found += [by.name for by in promotions(step) if by.name not in self.made]
            table[step.name] = list(dict.fromkeys(found))
        return table

    def refresh(self, step: RecipeStep) -> Artifact | None:
        """Look again whether the step is made, from inputs as they are now."""
        inputs = self.inputs(step)
        self.keys[step.name] = step.stage.key(step.config, inputs)
        found = step.stage.find(self.root, step.config, inputs)
        if found:
            self.made[step.name] = found
        else:
            self.made.pop(step.name, None)
        return found

    def _open(self, ref: Ref) -> Artifact | ModelUse:
        if isinstance(ref, Use):
            folder = None if ref.folder is None else self._artifact(ref.folder)
            return ModelUse(ref.config, folder, ref.service)
        return self._artifact(ref)

    def _choice(self, ref: RecipeStep | Source | Chosen) -> RecipeStep | Source | Chosen:
        while isinstance(ref, Chosen) and ref.by.name in self.made:
            is_later = read_promotion(self.made[ref.by.name]).chosen == "after"
            ref = ref.after if is_later else ref.before
        return ref

    def _artifact(self, ref: RecipeStep | Source | Chosen) -> Artifact:
        ref = self._choice(ref)
        if isinstance(ref, Chosen):  # not decided: a key that nothing is made under
            ref = ref.by
        if isinstance(ref, Source):
            return self._sources.get(ref.path) or self._source(ref)
        if ref.name in self.made:
            return self.made[ref.name]
        key = self.keys[ref.name]
        name, version = ref.stage.name, ref.stage.version
        record = Record(key=key, stage=name, version=version, config={}, inputs={}, digest="")
        return Artifact(self.root / folder_name(ref.stage.name, key), record)

    def _source(self, source: Source) -> Artifact:
        path = source.path
        if self.missing is None or path.exists():
            found = source.open(self.root)
        else:
            self.missing.append(path)
            key = key_of({"missing": str(path)})
            record = Record(key=key, stage="source", version=1, config={}, inputs={})
            found = Artifact(path, record)
        self._sources[path] = found
        return found


def resolve(recipe: Recipe, root: Path, *, without_missing: bool = False) -> Resolved:
    """Return keys and artifacts of all steps; sources are read for their digests only.

    Raises:
        InputError: If a source is missing, unless a plan is to be made `without_missing` ones.
    """
    resolved = Resolved(root, recipe, missing=[] if without_missing else None)
    for step in recipe.steps:
        resolved.refresh(step)
    return resolved
