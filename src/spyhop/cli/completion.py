"""Words that a shell completes: recipes, benchmarks, and the steps of a recipe or of past runs."""

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

Words = Iterator[tuple[str, str]]
"""Words with an explanation, which some shells show."""


def recipes(ctx: typer.Context) -> Words:
    """Yield the recipes."""
    return ((name, kind.summary) for name, kind in RECIPES.items())


def suites(ctx: typer.Context) -> Words:
    """Yield the benchmarks that ship with spyhop."""
    return ((name, "") for name in task_names())


def steps(ctx: typer.Context) -> Words:
    """Yield the steps of the recipe before the cursor, or those of the runs in the output folder.

    An error yields none: a shell has no place to show it.
    """
    before = map(Path, ctx.args)  # not parsed where the last option still has no value
    recipe, store = ctx.params.get("recipe") or next(before, None), ctx.params.get("store")
    with suppress(SpyhopError, OSError):
        if recipe is None:
            links = output_folder(store).glob(f"{RUNS}/*/*")
            yield from ((link.name, link.parent.name) for link in links if link.is_symlink())
        else:
            built, _ = load(recipe_file(recipe), ctx.params.get("set_") or [], {})
            yield from ((step.name, step.stage.name) for step in built.steps)
