"""The graph: build it, plan it, run it, and say why a node must run."""

from spyhop.recipe.graph import Chosen, Node, Recipe, Source, Use
from spyhop.recipe.promote import PromoteConfig, promote
from spyhop.recipe.resolve import Resolved, resolve
from spyhop.recipe.run import run

__all__ = [
    "Chosen",
    "Node",
    "PromoteConfig",
    "Recipe",
    "Resolved",
    "Source",
    "Use",
    "promote",
    "resolve",
    "run",
]
