"""The graph: build it, plan it, run it, and say why a node must run."""

from spyhop.recipe.graph import Node, Recipe, Source, Use
from spyhop.recipe.resolve import Resolved, resolve
from spyhop.recipe.run import run

__all__ = ["Node", "Recipe", "Resolved", "Source", "Use", "resolve", "run"]
