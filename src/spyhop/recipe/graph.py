"""Recipes are data: named steps, each a stage with its config and inputs. Building runs nothing."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from spyhop.models import Local, ModelConfig, Service
from spyhop.recipe.load import RecipeFile
from spyhop.schema import Config, RecipeError
from spyhop.stage import Stage
from spyhop.store import Source

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
CHARACTERS = "at most 100 of a-z, 0-9, '_', '-' and '.'"
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True, eq=False)
class RecipeStep:
    """A stage in a recipe; what it makes can be the input of later steps."""

    name: str
    stage: Stage
    config: Config
    inputs: dict[str, "Ref | dict[str, Ref]"]


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """A model as an input: what kind it is, and the step or folder that holds its files."""

    config: ModelConfig
    folder: "RecipeStep | Source | Chosen | None" = None
    service: Service | None = None
    """Where a served model answers; no part of its identity."""


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Placeholder for the winner of a promote step, resolved once that step has run."""

    by: RecipeStep
    before: "RecipeStep | Source | Chosen"
    after: "RecipeStep | Source | Chosen"


Made = RecipeStep | Source | Chosen
"""An input that is files: what a step makes, a file or folder, or the winner of a promote step."""
Ref = Made | Use


@dataclass(slots=True)
class Recipe:
    """A graph under construction. Steps are in an order in which they can run."""

    name: str
    steps: list[RecipeStep] = field(default_factory=list)
    prefix: str = ""
    """Put before the names of steps that are added."""
    file: RecipeFile | None = None
    """The settings that it was built from, if they came from a file or a command."""

    def __post_init__(self) -> None:
        """Refuse a name that cannot be a folder's."""
        if not NAME.fullmatch(self.name):
            raise RecipeError(f"{self.name!r:.60} cannot name a recipe; use {CHARACTERS}")

    def add(
        self, name: str, stage: Stage, config: Config, **inputs: Ref | Mapping[str, Ref]
    ) -> RecipeStep:
        """Add a step and return it, to be used as an input."""
        name = f"{self.prefix}{name}"
        if not NAME.fullmatch(name):
            raise RecipeError(f"{name!r:.60} cannot name a step; use {CHARACTERS}")
        if any(step.name == name for step in self.steps):
            raise RecipeError(f"recipe {self.name!r} has two steps named {name!r}")
        try:
            stage.check(config, inputs)
        except RecipeError as error:
            raise RecipeError(f"step {name!r}: {error}") from None
        given = {
            key: dict(value) if isinstance(value, Mapping) else value
            for key, value in inputs.items()
        }
        step = RecipeStep(name, stage, config, given)
        self.steps.append(step)
        return step

    def within(self, prefix: str) -> "Recipe":
        """Return the same graph for a part of it, whose steps' names all begin with `prefix`."""
        return Recipe(self.name, self.steps, f"{self.prefix}{prefix}")

    def step(self, name: str) -> RecipeStep:
        """Return the step of that name; in a part of a graph, of the part's prefix and it."""
        for step in self.steps:
            if step.name == f"{self.prefix}{name}":
                return step
        known = ", ".join(step.name for step in self.steps)
        raise RecipeError(f"recipe {self.name!r} has no step {name!r}; known: {known}")


def refs(step: RecipeStep) -> list[Ref]:
    """Return all inputs of a step, those in mappings among them."""
    return [ref for value in step.inputs.values() for ref in refs_by_name(value).values()]


def refs_by_name(value: "Ref | Mapping[str, Ref]") -> "Mapping[str, Ref]":
    """Return the parts of one input by name; a single one has the empty name."""
    return value if isinstance(value, Mapping) else {"": value}


def mapped(step: RecipeStep, make: Callable[[Ref], Out]) -> dict[str, Out | dict[str, Out]]:
    """Return what `make` returns for each input of a step, those in mappings among them."""
    return {
        name: {slot: make(ref) for slot, ref in value.items()}
        if isinstance(value, dict)
        else make(value)
        for name, value in step.inputs.items()
    }


def models(step: RecipeStep) -> "dict[str, Use]":
    """Return the models that a step asks, as `input` or `input.name`."""
    return {
        f"{name}.{slot}" if slot else name: ref
        for name, value in step.inputs.items()
        for slot, ref in refs_by_name(value).items()
        if isinstance(ref, Use)
    }


def has_parts(step: RecipeStep) -> bool:
    """Return whether shards of a run can share a step: its parts, or batches of models' weights."""
    uses = models(step).values()
    is_served = any(use.service is not None for use in uses)
    return step.stage.has_parts or (not is_served and any(use.config.needs for use in uses))


def num_rounds(recipe: Recipe) -> int:
    """Return how many steps with parts follow one another, at most."""
    depth: dict[str, int] = {}
    for step in recipe.steps:
        depth[step.name] = max((depth[p.name] for p in parents(step)), default=0) + has_parts(step)
    return max(depth.values(), default=0)


def set_dtype(recipe: Recipe, dtype: str) -> None:
    """Let the local models of a recipe run in a precision, unless their own files name one."""

    def changed(ref: Ref) -> Ref:
        config = ref.config if isinstance(ref, Use) else None
        if not isinstance(ref, Use) or not isinstance(config, Local) or config.dtype != "auto":
            return ref
        return replace(ref, config=Local.model_validate({**config.model_dump(), "dtype": dtype}))

    for step in recipe.steps:
        step.inputs.update(mapped(step, changed))


def sources(recipe: Recipe) -> list[Source]:
    """Return the files and folders from outside that steps read, models' folders included."""
    used = [_folder(ref) for step in recipe.steps for ref in refs(step)]
    return [ref for ref in used if isinstance(ref, Source)]


def parents(step: RecipeStep) -> list[RecipeStep]:
    """Return the steps that this one needs, models' folders and promotions included."""
    return [each for ref in refs(step) for each in _walk(ref) if isinstance(each, RecipeStep)]


def promotions(step: RecipeStep) -> list[RecipeStep]:
    """Return the promote steps whose choice is an input of this step."""
    return [each.by for ref in refs(step) for each in _walk(ref) if isinstance(each, Chosen)]


def _folder(ref: Ref) -> "RecipeStep | Source | Chosen | None":
    return ref.folder if isinstance(ref, Use) else ref


def _walk(ref: Ref) -> "Iterator[RecipeStep | Source | Chosen | None]":
    """Yield what an input stands for: a choice with its promote step, then what it is between."""
    folder = _folder(ref)
    if isinstance(folder, Chosen):
        yield folder.by
        yield from _walk(folder.before)
        yield from _walk(folder.after)
    yield folder


def label(ref: Ref) -> str:
    """Return how an input is called in records and messages."""
    if isinstance(ref, RecipeStep):
        return ref.name
    if isinstance(ref, Source):
        return str(ref.path)
    if isinstance(ref, Chosen):
        return f"{label(ref.after)} or {label(ref.before)}"
    return ref.config.label if ref.folder is None else f"{ref.config.label} ({label(ref.folder)})"
