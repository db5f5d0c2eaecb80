"""The graph: build it, plan it, run it, and say why a step must run."""

from spyhop.recipe.graph import Chosen, Recipe, RecipeStep, Source, Use
from spyhop.recipe.promote import PromoteConfig, promote
from spyhop.recipe.resolve import Resolved, resolve
from spyhop.recipe.run import run
