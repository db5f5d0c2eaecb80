"""The command line: every command reads its arguments and calls public functions."""

import shutil
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from typer.exceptions import TyperException

from spyhop.recipe import Recipe, resolve
from spyhop.recipe import run as run_recipe
from spyhop.recipe.load import describe, read_recipe
from spyhop.recipe.plan import plan as plan_recipe
from spyhop.recipe.plan import totals
from spyhop.recipe.show import find_artifact, show_rows
from spyhop.recipe.watch import Display, plan_table
from spyhop.recipe.why import why as why_node
from spyhop.recipes import INIT_FILES, RECIPES, write_example
from spyhop.report.page import PAGE, RESULTS
from spyhop.report.terminal import arms_table
from spyhop.schema import ArtifactError, RecipeError, SpyhopError
from spyhop.stage import Runtime
from spyhop.store import Entry, Inventory

USER_ERROR, INTERRUPTED = 2, 130
PLAIN_WIDTH = 140
"""Columns of a table that goes to a file or a pipe."""

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="From the signals of large models to small models that reason, measured.",
)

RecipePath = Annotated[Path, typer.Argument(help="A recipe file (TOML).", show_default=False)]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Folder of everything that is made: by default the recipe's own folder where it "
        "holds runs (as after quickstart), else spyhop-out.",
        show_default=False,
    ),
]
Changes = Annotated[
    list[str], typer.Option("--set", help="Change a setting: key.sub=value. May be repeated.")
]
NumWorkers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Nodes that run side by side.")
]
NO_CHANGES: list[str] = []
Ablate = Annotated[
    str,
    typer.Option("--ablate", help="Further students, such as order,answers (see `recipes`)."),
]


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option("--out", help="Folder of everything that is made.")] = Path(
        "spyhop-quickstart"
    ),
    thorough: Annotated[bool, typer.Option(help="Every arm, every family, five seeds.")] = False,
    set_: Changes = NO_CHANGES,
    workers: NumWorkers = None,
) -> None:
    """Show the whole loop in an embedded world: no key, no GPU, no network.

    The recipe is written to OUT as a file; edit it and run the command again, and only what
    depends on the edit is made anew.
    """
    name = "thorough" if thorough else "quickstart"
    path = write_example(out, f"{name}.toml")
    built, runtime = _load(path, set_, {"workers": workers})
    _run(built, runtime, out)
    made = out / "runs" / built.name / "report"
    console = Console(highlight=False, soft_wrap=True)
    console.print(arms_table(made / RESULTS))
    if not thorough:
        console.print("One seed: intervals are over test items only. --thorough runs five.")
    for file in (PAGE, RESULTS):
        shutil.copyfile(made / file, out / file)
        console.print(f"{out / file}", markup=False)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to write into.", show_default=False)],
) -> None:
    """Write a recipe for prompts, a teacher, a base and questions of your own, to be filled in."""
    console = Console(highlight=False, soft_wrap=True)
    for name in INIT_FILES:
        console.print(f"{write_example(folder, name)}", markup=False)
    console.print(f"next: fill in {folder / INIT_FILES[0]}, then `spyhop plan` and `spyhop run` it")


@app.command()
def run(
    recipe: RecipePath,
    out: Out = None,
    set_: Changes = NO_CHANGES,
    workers: NumWorkers = None,
    ablate: Ablate = "",
) -> None:
    """Run a recipe; what is made already is not made again."""
    built, runtime = _load(recipe, [*set_, *_ablating(ablate)], {"workers": workers})
    _run(built, runtime, _store(out, recipe))


@app.command()
def plan(
    recipe: RecipePath, out: Out = None, set_: Changes = NO_CHANGES, ablate: Ablate = ""
) -> None:
    """Tell what a run would take, before anything is spent."""
    built, _ = _load(recipe, [*set_, *_ablating(ablate)], {})
    lines = plan_recipe(resolve(built, _store(out, recipe)))
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    console.print(plan_table(lines, totals(lines)))


@app.command()
def why(
    recipe: RecipePath,
    node: Annotated[str, typer.Argument(help="A node; all of them by default.")] = "",
    out: Out = None,
    set_: Changes = NO_CHANGES,
) -> None:
    """Tell which nodes would run, and which setting or content is the reason."""
    built, _ = _load(recipe, set_, {})
    resolved = resolve(built, _store(out, recipe))
    console = Console(highlight=False, soft_wrap=True)
    for each in [built.node(node)] if node else built.nodes:
        reasons = why_node(resolved, each)
        console.print(f"{each.name}: {'; '.join(reasons) or 'up to date'}", markup=False)


@app.command()
def show(
    artifact: Annotated[str, typer.Argument(help="An artifact's folder, or a node of RECIPE.")],
    recipe: Annotated[Path | None, typer.Option("--recipe", help="The recipe of the node.")] = None,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, help="Rows to show.")] = 3,
    dropped: Annotated[bool, typer.Option(help="Show the dropped rows instead.")] = False,
    out: Out = None,
    set_: Changes = NO_CHANGES,
) -> None:
    """Show the record and the rows of a node or artifact."""
    built = _load(recipe, set_, {})[0] if recipe else None
    found = find_artifact(_existing(_store(out, recipe)), artifact, built)
    show_rows(found, rows, Console(highlight=False, soft_wrap=True), dropped=dropped)


@app.command()
def report(recipe: RecipePath, out: Out = None, set_: Changes = NO_CHANGES) -> None:
    """Bring the report of a finished run up to date and tell where it is; nothing else is made."""
    built, _ = _load(recipe, set_, {})
    resolved = resolve(built, _store(out, recipe))
    due = [node.name for node in built.nodes[:-1] if node.name not in resolved.made]
    if due:
        raise RecipeError(
            f"{recipe}: not made yet: {', '.join(due[:3])}{', ...' if len(due) > 3 else ''}; "
            "`spyhop run` makes them"
        )
    _run(built, Runtime(), resolved.root)


@app.command()
def recipes() -> None:
    """List the recipes that a file can name, with all their settings."""
    console = Console(highlight=False, soft_wrap=True)
    for name, kind in RECIPES.items():
        console.print(f"{name}: {kind.summary}", markup=False)
        for line in describe(kind.config_type):
            console.print(f"  {line}", markup=False)


@app.command()
def clean(
    out: Out = None,
    free: Annotated[bool, typer.Option("--free", help="Delete artifacts nothing needs.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="With --free: the work of killed runs, too.")
    ] = False,
    journals: Annotated[
        bool,
        typer.Option(
            "--journals", help="With --free, and no run going on: replies, even paid ones."
        ),
    ] = False,
) -> None:
    """Tell what each artifact holds and who needs it; free the rest."""
    inventory = Inventory(_existing(_store(out, None)))
    console = Console(highlight=False, soft_wrap=True)
    for entry in inventory.entries:
        console.print(_entry_line(entry), markup=False)
    chosen = {"partial": partial, "journal": journals}
    kinds = ["artifact", *(kind for kind, is_chosen in chosen.items() if is_chosen)]
    if free:
        freed = sum(entry.num_bytes for entry in inventory.free(kinds))
        console.print(f"freed {freed / 1e6:.1f} MB")
    else:
        idle = sum(entry.num_bytes for entry in inventory.idle(kinds))
        console.print(f"{idle / 1e6:.1f} MB can be freed with --free")


def _entry_line(entry: Entry) -> str:
    kept = {
        "artifact": "nothing needs it",
        "partial": "a killed run would go on from it",
        "journal": "replies, asked once",
    }
    needed = ", ".join(entry.needed_by[:3]) or kept[entry.kind]
    more = f" and {len(entry.needed_by) - 3} more" if len(entry.needed_by) > 3 else ""
    return f"{entry.num_bytes / 1e6:9.1f} MB  {entry.kind:8}  {entry.path.name}  {needed}{more}"


def _ablating(names: str) -> list[str]:
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    return [f"ablate={chosen!r}"] if chosen else []


def _store(out: Path | None, recipe: Path | None) -> Path:
    if out is not None:
        return out
    if recipe is not None and (recipe.parent / "runs").is_dir():
        return recipe.parent
    return Path("spyhop-out")


def _existing(store: Path) -> Path:
    if not store.is_dir():
        raise ArtifactError(f"{store}: no such folder; name the one of your run with --out")
    return store


def _load(path: Path, changes: list[str], runtime: dict[str, object]) -> tuple[Recipe, Runtime]:
    file = read_recipe(path, changes)
    if file.recipe not in RECIPES:
        raise RecipeError(f"{path}: recipe = {file.recipe!r} is unknown; known: {list(RECIPES)}")
    kind = RECIPES[file.recipe]
    config = file.config(kind.config_type)
    try:
        return kind.build(config), file.runtime_with(runtime)
    except ValidationError as error:  # a setting that no single field can judge
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{path}: {error.title} {where}: {first['msg']}") from None


def _run(recipe: Recipe, runtime: Runtime, out: Path) -> None:
    resolved = resolve(recipe, out)
    try:
        with Display(Console(highlight=False, soft_wrap=True)) as display:
            run_recipe(resolved, runtime, display)
    except KeyboardInterrupt:  # here, for typer would end without a word
        print("spyhop: stopped; run again to go on from here", file=sys.stderr)  # noqa: T201
        raise typer.Exit(INTERRUPTED) from None
    page = out / "runs" / recipe.name / "report" / "report.html"
    if page.exists():
        Console(highlight=False, soft_wrap=True).print(f"report: {page}", markup=False)


def _fail(message: str) -> NoReturn:
    print(f"spyhop: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    sys.exit(USER_ERROR)


def main() -> None:
    """Run the command line: exit code 2 with one line for a user's error, 130 for Ctrl-C."""
    try:
        code = app(args=sys.argv[1:] or ["--help"], prog_name="spyhop", standalone_mode=False)
    except TyperException as error:
        _fail(f"{error.format_message()} (`spyhop --help` lists commands and options)")
    except SpyhopError as error:
        _fail(str(error))
    sys.exit(code)
