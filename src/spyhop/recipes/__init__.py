"""The recipes that ship with spyhop, by name: a typed config and the function that it fills."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spyhop.recipe.graph import Recipe
from spyhop.recipes.orca import OrcaConfig, orca
from spyhop.schema import Config


@dataclass(frozen=True, slots=True)
class RecipeKind:
    """A recipe that a TOML file can name."""

    config_type: type[Config]
    build: Callable[[Any], Recipe]

    @property
    def summary(self) -> str:
        """First line of the recipe's docstring."""
        return (self.build.__doc__ or "").strip().splitlines()[0]


RECIPES: dict[str, RecipeKind] = {
    "orca": RecipeKind(OrcaConfig, orca),
}
