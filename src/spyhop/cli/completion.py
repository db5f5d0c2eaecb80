"""Words that a shell completes, with an explanation: recipes, benchmarks, steps."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import typer

from spyhop.cli.folder import output_folder
from spyhop.cli.running import load, recipe_file
from spyhop.evaluate.suite import task_names
from spyhop.recipes import RECIPES
from spyhop.schema import SpyhopError
from spyhop.store import RUNS


def words(kind: str, ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """Yield `recipes`, `suites`, or the `steps` of the recipe on the line or of past runs.

    An error yields no word: a shell has no place to show it.
    """
    if kind == "recipes":
        yield from ((name, recipe.summary) for name, recipe in RECIPES.items())
    elif kind == "suites":
        yield from ((name, "") for name in task_names())
    else:
        before = map(Path, ctx.args)  # not parsed where the last option still has no value
        recipe, store = ctx.params.get("recipe") or next(before, None), ctx.params.get("store")
        with suppress(SpyhopError, OSError):
            if recipe is None:
                links = output_folder(store).glob(f"{RUNS}/*/*")
                yield from ((link.name, link.parent.name) for link in links if link.is_symlink())
            else:
                built, _ = load(recipe_file(recipe), ctx.params.get("set_") or [], {})
                yield from ((step.name, step.stage.name) for step in built.steps)
