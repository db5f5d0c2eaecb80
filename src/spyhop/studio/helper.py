"""Plans, and rows as token ids, in a process of its own: the server stays small and safe."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spyhop.models.folder import load_tokenizer
from spyhop.models.local import pick_format
from spyhop.processes import Service, WorkItem
from spyhop.recipe import resolve
from spyhop.recipe.load import read_recipe
from spyhop.recipe.plan import plan
from spyhop.recipe.why import why
from spyhop.recipes import RECIPES
from spyhop.render import Renderer
from spyhop.schema import InputError, RecipeError, SpyhopError
from spyhop.train.encoding import Encoding, encode_rows, masked_row

LONGEST_S = 120.0
_WORKER = Service("spyhop.studio.helper:serve")


def ask(task: str, *arguments: Any) -> Any:  # noqa: ANN401 (a task's)
    """Return what a task of this module returns, computed in the other process.

    An error, or more than `LONGEST_S`, is a `SpyhopError`.
    """
    is_error, found = _WORKER.ask(WorkItem(time_s=LONGEST_S), (task, arguments))
    if is_error:
        raise InputError(found)
    return found


def serve(receive: Callable[[], Any], send: Callable[[Any], None]) -> None:
    """Do one task after the other; an error is its text."""
    tasks: dict[str, Callable[..., Any]] = {"plan": plan_edit, "mask": mask}
    while True:
        receive()
        name, arguments = receive()
        try:
            send((False, tasks[name](*arguments)))
        except Exception as error:  # noqa: BLE001 (a page that says so, not a dead process)
            kind = "" if isinstance(error, SpyhopError) else f"{type(error).__name__}: "
            send((True, f"{kind}{error}"))


def plan_edit(recipe: Path, changes: list[str], root: Path) -> list[dict[str, Any]]:
    """Return each step of a recipe as its file is now: why it would run, and what it would take."""
    file = read_recipe(recipe, changes)
    if file.recipe not in RECIPES:
        raise RecipeError(f"{recipe}: recipe = {file.recipe!r} is unknown")
    kind = RECIPES[file.recipe]
    built = kind.build(file.config(kind.config_type), file.name)
    resolved = resolve(built, root, without_missing=True)
    return [
        {
            "name": line.step.name, "is_made": line.is_made, "why": why(resolved, line.step),
            "rows": line.estimate.rows, "usd": line.usd, "most_usd": line.most_usd,
            "seconds": 3600 * line.hours, "limits": line.binds,
        }
        for line in plan(resolved)
    ]  # fmt: skip


def mask(folder: Path, row: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return a row's tokens as (text, is supervised, is special) under a model's tokenizer."""
    tokenizer = load_tokenizer(folder)
    renderer = Renderer(tokenizer, pick_format("saved", folder, tokenizer))
    encoding = Encoding(renderer, sys.maxsize, **settings)
    (made,) = encode_rows(encoding, [row])
    shown = [masked_row(made.row.id, s.ids, s.is_supervised, renderer) for s in made.sequences]
    return {
        "reason": made.detail or made.reason,
        "sequences": [(each.num_supervised, [tuple(p) for p in each.pieces]) for each in shown],
    }
