"""Recipes are data: named nodes, each a stage with its config and inputs. Building runs nothing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from spyhop.models import ModelConfig, Service
from spyhop.schema import Config, RecipeError
from spyhop.stage import Stage
from spyhop.store import Source

__all__ = [
    "Chosen",
    "Node",
    "Recipe",
    "Ref",
    "Source",
    "Use",
    "label",
    "models",
    "parents",
    "promotions",
    "refs",
    "refs_by_name",
    "sources",
]

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A stage in a recipe; what it makes can be the input of later nodes."""

    name: str
    stage: Stage
    config: Config
    inputs: dict[str, "Ref | dict[str, Ref]"]


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """A model as an input: what kind it is, and the node or folder that holds its files."""

    config: ModelConfig
    folder: "Node | Source | Chosen | None" = None
    service: Service | None = None
    """Where a served model answers; no part of its identity."""


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """One of two models: which one, a promote node's record says once it is made."""

    by: Node
    before: "Node | Source | Chosen"
    after: "Node | Source | Chosen"


Ref = Node | Source | Use | Chosen


@dataclass(slots=True)
class Recipe:
    """A graph under construction. Nodes stand in the order in which they can run."""

    name: str
    nodes: list[Node] = field(default_factory=list)
    prefix: str = ""
    """Put before the names of nodes that are added."""

    def __post_init__(self) -> None:
        """Refuse a name that cannot be a folder's."""
        if not NAME.fullmatch(self.name):
            raise RecipeError(f"{self.name!r} cannot name a recipe; use a-z, 0-9, '_', '-', '.'")

    def add(
        self, name: str, stage: Stage, config: Config, **inputs: Ref | Mapping[str, Ref]
    ) -> Node:
        """Add a node and return it, to be used as an input.

        Raises:
            RecipeError: If the name is taken or odd, or the stage does not take these inputs.
        """
        if not NAME.fullmatch(name):
            raise RecipeError(f"{name!r} cannot name a node; use a-z, 0-9, '_', '-' and '.'")
        name = f"{self.prefix}{name}"
        if any(node.name == name for node in self.nodes):
            raise RecipeError(f"recipe {self.name!r} has two nodes named {name!r}")
        try:
            stage.check(config, inputs)
        except RecipeError as error:
            raise RecipeError(f"node {name!r}: {error}") from None
        given = {
            key: dict(value) if isinstance(value, Mapping) else value
            for key, value in inputs.items()
        }
        node = Node(name, stage, config, given)
        self.nodes.append(node)
        return node

    def within(self, prefix: str) -> "Recipe":
        """Return the same graph for a part of it, whose nodes' names all begin with `prefix`."""
        return Recipe(self.name, self.nodes, f"{self.prefix}{prefix}")

    def node(self, name: str) -> Node:
        """Return the node of that name.

        Raises:
            RecipeError: Listing the known names.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise RecipeError(f"recipe {self.name!r} has no node {name!r}; known: {known}")


def refs(node: Node) -> list[Ref]:
    """Return all inputs of a node, those in mappings among them."""
    return [ref for value in node.inputs.values() for ref in refs_by_name(value).values()]


def refs_by_name(value: "Ref | Mapping[str, Ref]") -> "Mapping[str, Ref]":
    """Return the parts of one input by name; a single one has the empty name."""
    return value if isinstance(value, Mapping) else {"": value}


def models(node: Node) -> "dict[str, Use]":
    """Return the models that a node asks, as `input` or `input.name`."""
    return {
        f"{name}.{slot}" if slot else name: ref
        for name, value in node.inputs.items()
        for slot, ref in refs_by_name(value).items()
        if isinstance(ref, Use)
    }


def sources(recipe: Recipe) -> list[Source]:
    """Return the files and folders from outside that nodes read, models' folders included."""
    used = [ref for node in recipe.nodes for ref in refs(node)]
    found = [ref.folder if isinstance(ref, Use) else ref for ref in used]
    return [ref for ref in found if isinstance(ref, Source)]


def parents(node: Node) -> list[Node]:
    """Return the nodes that this one needs, models' folders and promotions included."""
    return [needed for ref in refs(node) for needed in _needed(ref)]


def promotions(node: Node) -> list[Node]:
    """Return the promote nodes whose choice is an input of this node."""
    folders = [ref.folder if isinstance(ref, Use) else ref for ref in refs(node)]
    return [by for folder in folders for by in _deciding(folder)]


def _deciding(ref: "Ref | None") -> list[Node]:
    if not isinstance(ref, Chosen):
        return []
    return [*_deciding(ref.before), *_deciding(ref.after), ref.by]


def _needed(ref: "Ref | None") -> list[Node]:
    if isinstance(ref, Use):
        return _needed(ref.folder)
    if isinstance(ref, Chosen):
        return [ref.by, *_needed(ref.before), *_needed(ref.after)]
    return [ref] if isinstance(ref, Node) else []


def label(ref: Ref) -> str:
    """Return how an input is called in records and messages."""
    if isinstance(ref, Node):
        return ref.name
    if isinstance(ref, Source):
        return str(ref.path)
    if isinstance(ref, Chosen):
        return f"{label(ref.after)} or {label(ref.before)}"
    return ref.config.label if ref.folder is None else f"{ref.config.label} ({label(ref.folder)})"
