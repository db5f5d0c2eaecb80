"""Shared by commands: build a recipe from its settings, run it with progress, print its plan."""

import os
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError
from pydantic_core import to_json
from rich.console import Console
from rich.table import Table

from spyhop.cli.folder import output_folder, writable
from spyhop.evaluate.suite import task_names
from spyhop.models.journal import settle
from spyhop.recipe import Recipe, Resolved, resolve
from spyhop.recipe import run as run_recipe
from spyhop.recipe.graph import models as models_of
from spyhop.recipe.graph import set_dtype, sources
from spyhop.recipe.load import RecipeFile, given, read_recipe
from spyhop.recipe.plan import plan as plan_recipe
from spyhop.recipe.plan import warnings
from spyhop.recipe.run import check_steps
from spyhop.recipe.watch import Display, deadlines, plan_table, plan_values
from spyhop.recipes import RECIPES
from spyhop.runtime import Runtime, Shard
from spyhop.schema import RecipeError, SpyhopError
from spyhop.settings import HUB, read_toml
from spyhop.store import RUNS, Artifact
from spyhop.train.cost import describe_cost
from spyhop.train.rank import dismiss_helpers, help_train, launched

PLAIN_WIDTH = 160
"""Columns of a table that is written to a file or a pipe."""


def load(path: Path, changes: list[str], runtime: dict[str, object]) -> tuple[Recipe, Runtime]:
    """Return the recipe that a file names, and where to run it."""
    return build(read_recipe(path, changes), runtime)


def recipe_file(path: Path) -> Path:
    """Return a recipe's file: the path itself, or the one recipe of a folder."""
    if not path.is_dir():
        return path
    found = []
    for file in sorted(path.glob("*.toml")):
        with suppress(RecipeError):
            if isinstance(read_toml(file).get("recipe"), str):
                found.append(file)
    if len(found) != 1:
        names = ", ".join(str(file) for file in found)
        has = f"{len(found)} recipes; name one: {names}" if found else "no recipe (*.toml)"
        raise RecipeError(f"{path}: the folder has {has}")
    return found[0]


def built_from(
    recipe: str,
    settings: dict[str, Any],
    changes: list[str],
    runtime: dict[str, object] | None = None,
    file: Path | None = None,
) -> tuple[Recipe, Runtime]:
    """Return the recipe behind a command; errors name the settings' `file`, if there is one."""
    tables = {"recipe": recipe, "name": recipe, **settings}
    return build(given(file or Path(recipe), tables, changes), runtime or {})


def say(*lines: object) -> None:
    """Print lines as they are."""
    for line in lines:
        print(line)  # noqa: T201


def print_json(values: object) -> None:
    """Print plain data, dataclasses and paths as one JSON object; what is no number is null."""
    say(to_json(values, indent=1, inf_nan_mode="null", bytes_mode="base64", fallback=str).decode())


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal, or as `PLAIN_WIDTH` elsewhere."""
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False).print(table)


def places(given: Sequence[str]) -> dict[str, str]:
    """Return where data sets are, from `NAME=PLACE`; a relative path starts here."""
    found: dict[str, str] = {}
    for text in given:
        name, _, place = text.partition("=")
        if not name or not place:
            raise RecipeError(f"--data {text!r}: write NAME=PLACE")
        found[name] = place if place.startswith(HUB) else str(Path(place).expanduser().absolute())
    return found


def build(file: RecipeFile, runtime: dict[str, object]) -> tuple[Recipe, Runtime]:
    """Return the recipe that the settings fill, and where to run it."""
    if file.recipe not in RECIPES:
        names = list(RECIPES)
        raise RecipeError(f"{file.path}: recipe = {file.recipe!r} is unknown; known: {names}")
    kind = RECIPES[file.recipe]
    config = file.config(kind.config_type)
    try:
        built, where = kind.build(config, file.name), file.runtime_with(runtime)
        built.file = file
        set_dtype(built, file.dtype)
        check_steps(built, where)
    except ValidationError as error:  # a rule over several settings
        first = error.errors()[0]
        setting = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{file.path}: {error.title} {setting}: {first['msg']}") from None
    return built, where


def apart(recipe: Recipe, out: Path, names: Sequence[str] = ()) -> None:
    """Refuse an output folder inside an input, and results (`names` in it) that replace one."""
    store = out.resolve()
    results = [(store / name).resolve() for name in names]
    for path in (source.path for source in sources(recipe)):
        if store.is_relative_to(path.resolve()):
            raise RecipeError(
                f"{out}: this output folder is inside the input {path}; choose another with --out"
            )
        if path.resolve() in results:
            raise RecipeError(
                f"{path}: a result would replace this input; choose another folder with --out"
            )


def run_task(
    built: tuple[Recipe, Runtime],
    out: Path,
    files: Sequence[str] = (),
    *,
    plan: bool = False,
    first: str = "",
    settles: bool = False,
    reopens: bool = False,
) -> dict[str, Artifact]:
    """Run the recipe of a command and return its artifacts, or print its plan and return none.

    `files` are results that are written to `out`. `first` is the step that reads the rows: a plan
    runs it where only that counts them. `settles` releases the budget reserved for lost requests,
    `reopens` asks for failed rows of finished steps again.
    """
    recipe, runtime = built
    apart(recipe, out, files)
    if not plan:
        asking = frozenset(step.name for step in recipe.steps if models_of(step))
        return run_and_report(recipe, runtime, out, asking if reopens else (), settles=settles)
    resolved = resolve(recipe, out)
    if first and not plan_recipe(resolved)[0].estimate.rows:  # a compressed file
        step = recipe.step(first)
        inputs: dict[str, Any] = dict(resolved.inputs(step))
        step.stage.run(out, step.config, origins=resolved.labels(step), **inputs)
        resolved = resolve(recipe, out)
    print_plan(resolved, runtime)
    return {}


def run_and_report(
    recipe: Recipe,
    runtime: Runtime,
    out: Path,
    reopen: Collection[str] = (),
    *,
    settles: bool = False,
    forgets: bool = True,
    shard: Shard | None = None,
) -> dict[str, Artifact]:
    """Run a recipe with progress, print where its report is, and return the artifacts by step."""
    rank, num_peers = launched()
    if rank:  # the first process runs the recipe
        help_train()
        raise typer.Exit
    if num_peers > 1:
        runtime = runtime.model_copy(update={"workers": 1})  # all take part in each training
    resolved = resolve(recipe, writable(out))
    console = Console(highlight=False, soft_wrap=True)
    say(f"output folder: {out}")
    if settles:
        say(f"released ${settle(out):,.4f} that was reserved for lost requests")
    received: list[int] = []
    try:
        with _ended_by_signals(received), Display(console) as display:
            made = run_recipe(
                resolved, runtime, display, reopen=reopen, forgets=forgets, shard=shard
            )
    except KeyboardInterrupt:  # here, because typer would exit without a message
        try:
            print("spyhop: stopped; run again to resume", file=sys.stderr)  # noqa: T201
        except OSError:  # the terminal was closed, and nothing can be flushed to it at the end
            sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
        raise typer.Exit(128 + (received or [signal.SIGINT])[0]) from None
    finally:
        if num_peers > 1:
            dismiss_helpers()
    page = out / "runs" / recipe.name / "report" / "report.html"
    if page.exists():
        say(f"report: {page}")
    return made


def words(kind: str, ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """Yield words that a shell completes: `recipes`, `suites`, or `steps` of a recipe or past runs.

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


@contextmanager
def _ended_by_signals(received: list[int]) -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a run as Ctrl-C does; a second one changes nothing.

    A closing terminal sends SIGHUP twice. A signal that is ignored, as under `nohup`, stays so.
    """

    def stop(number: int, frame: object) -> None:
        received.append(number)
        if len(received) == 1:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def print_plan(
    resolved: Resolved,
    runtime: Runtime,
    within_days: float | None = None,
    *,
    is_json: bool = False,
) -> None:
    """Print the estimate of a run, and how many endpoints would finish within that many days."""
    lines = plan_recipe(resolved)
    costs = {
        line.step.name: cost
        for line in lines
        if not line.is_made and (cost := describe_cost(line.estimate, runtime))
    }
    missing = resolved.missing or []
    deadline = deadlines(lines, within_days) if within_days else []
    if is_json:
        print_json({
            "recipe": resolved.recipe.name, "output_folder": resolved.root, **plan_values(lines),
            "training": costs, "warnings": list(warnings(lines)), "missing_inputs": missing,
            "deadlines": deadline,
        })  # fmt: skip
        return
    print_table(plan_table(lines))
    say(*(f"{name}: {cost}" for name, cost in costs.items()))
    say(*(f"warning: {text}" for text in warnings(lines)))
    say(*(f"{path}: not found yet; excluded from this estimate" for path in missing))
    say(*deadline)
    say(f"output folder: {resolved.root}")
