"""The commands: each reads its arguments and calls public functions."""

import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.exceptions import TyperException

from spyhop.cli.running import (
    apart,
    build,
    existing,
    given,
    load,
    print_plan,
    run_and_tell,
    store_of,
)
from spyhop.cli.training import chat, delta, train
from spyhop.collect.pair_files import PAIRS
from spyhop.models import read_teacher
from spyhop.models.doctor import doctor as examine
from spyhop.recipe import Recipe, Use, resolve
from spyhop.recipe.graph import refs
from spyhop.recipe.mask import show_mask
from spyhop.recipe.plan import plan as plan_recipe
from spyhop.recipe.show import find_artifact, show_rows
from spyhop.recipe.why import why as why_node
from spyhop.recipes import INIT_FILES, RECIPES, write_example
from spyhop.recipes.answering import ANSWER_FILES, ANSWERS, PROMPTS
from spyhop.recipes.answering import hand_over as hand_over_answers
from spyhop.recipes.backtranslating import SEGMENTS
from spyhop.recipes.backtranslating import hand_over as hand_over_pairs
from spyhop.recipes.curating import GIVEN, KEPT_FILE, RATED_FILE
from spyhop.recipes.curating import hand_over as hand_over_kept
from spyhop.render import FormatName, TrainOn
from spyhop.report.arms import COMPARISONS
from spyhop.report.page import PAGE, RESULTS
from spyhop.report.terminal import arms_table, comparison_lines
from spyhop.runtime import Runtime
from spyhop.schema import RecipeError, SpyhopError, Unfinished
from spyhop.settings import describe
from spyhop.store import Entry, Inventory, strays

USER_ERROR, UNFINISHED = 2, 3

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="From the signals of large models to small models that reason, measured.",
)


class Loop(StrEnum):
    """What the quick start shows."""

    ORCA = "orca"
    HUMPBACK = "humpback"


LOOPS = {
    Loop.ORCA: ("quickstart.toml", Path("spyhop-quickstart")),
    Loop.HUMPBACK: ("quickstart_humpback.toml", Path("spyhop-humpback")),
}
"""The recipe file of each loop, and where it is made."""

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
NO_NODES: list[str] = []
Ablate = Annotated[
    str,
    typer.Option("--ablate", help="Further students, such as order,answers; `recipes` names them."),
]


@app.command()
def quickstart(
    loop: Annotated[
        Loop, typer.Argument(help="Which loop: orca explains, humpback curates.")
    ] = Loop.ORCA,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of everything that is made: spyhop-quickstart, or spyhop-humpback.",
            show_default=False,
        ),
    ] = None,
    thorough: Annotated[bool, typer.Option(help="Every arm, every setting, five seeds.")] = False,
    set_: Changes = NO_CHANGES,
    workers: NumWorkers = None,
) -> None:
    """Show the whole loop in an embedded world: no key, no GPU, no network.

    The recipe is written to OUT as a file; edit it and run the command again, and only what
    depends on the edit is made anew.
    """
    example, folder = LOOPS[loop]
    out = out or folder
    path = write_example(out, example.replace("quickstart", "thorough") if thorough else example)
    built, runtime = load(path, set_, {"workers": workers})
    run_and_tell(built, runtime, out)
    made = out / "runs" / built.name / "report"
    console = Console(highlight=False, soft_wrap=True)
    console.print(arms_table(made / RESULTS))
    if loop is Loop.HUMPBACK:
        for line in comparison_lines(made / COMPARISONS):
            console.print(line, markup=False)
    elif not thorough:
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
    retry_errors: Annotated[
        list[str],
        typer.Option(
            "--retry-errors", metavar="NODE", help="Ask failed rows of a finished node again."
        ),
    ] = NO_NODES,
    ablate: Ablate = "",
) -> None:
    """Run a recipe; what is made already is not made again."""
    built, runtime = _built(recipe, set_, ablate, workers)
    for name in retry_errors:
        if not any(isinstance(ref, Use) for ref in refs(built.node(name))):
            asking = [n.name for n in built.nodes if any(isinstance(r, Use) for r in refs(n))]
            raise RecipeError(
                f"--retry-errors {name}: that node asks no model; these do: {', '.join(asking)}"
            )
    run_and_tell(built, runtime, store_of(out, recipe), frozenset(retry_errors))


@app.command()
def answer(
    prompts: Annotated[
        Path, typer.Argument(help="JSONL or Parquet, rows of `messages`.", show_default=False)
    ],
    teacher: Annotated[
        Path, typer.Option("--teacher", help="A teacher's file (TOML), or a model's folder.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of everything that is made.")],
    set_: Changes = NO_CHANGES,
    plan: Annotated[bool, typer.Option("--plan", help="Tell what it takes; ask nothing.")] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Ask failed rows of a finished run again.")
    ] = False,
) -> None:
    """Let a teacher answer prompts of your own; nothing that is paid for is lost or asked twice.

    The answers stand in OUT as answers.jsonl or answers.parquet, in the form of the prompts.
    """
    settings: dict[str, Any] = {"prompts": prompts, "teacher": teacher}
    built, runtime = build(given("answer", settings, set_), {})
    apart(built, out, ANSWER_FILES)
    if plan:
        _plan_of(built, runtime, out, PROMPTS)
        return
    made = run_and_tell(built, runtime, out, frozenset([ANSWERS] if retry_errors else []))
    print(hand_over_answers(made, out))  # noqa: T201


@app.command()
def doctor(
    teacher: Annotated[Path, typer.Argument(help="A teacher's file (TOML), or a model's folder.")],
    out: Out = None,
) -> None:
    """Look whether a teacher can be asked: keys, connection, one small request, disk."""
    console = Console(highlight=False, soft_wrap=True)
    is_well = True
    for check in examine(read_teacher(teacher), store_of(out, None)):
        is_well = is_well and check.ok
        sign = "ok " if check.ok else "BAD"
        console.print(f"{sign}  {check.name}: {check.text}", markup=False)
    if not is_well:
        raise typer.Exit(USER_ERROR)


@app.command()
def segment(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="Archives (WARC), folders of pages, JSON lines, Parquet, or *.paths lists.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of everything that is made.")],
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, help="Processes that share the pages.")
    ] = None,
    on: Annotated[
        str | None, typer.Option("--on", help="A Ray cluster: ray://host:port.", metavar="ADDRESS")
    ] = None,
    set_: Changes = NO_CHANGES,
) -> None:
    """Cut web pages into self-contained segments, with a report; nothing is fetched."""
    file = given("segments", {"inputs": [path.absolute() for path in inputs]}, set_)
    built, runtime = build(file, {"processes": processes, "on": on})
    apart(built, out)
    run_and_tell(built, runtime, out)


@app.command()
def backtranslate(
    segments: Annotated[Path, typer.Argument(help="JSONL or Parquet, rows of `text`.")],
    model: Annotated[Path, typer.Option("--model", help="A teacher's file, or a model's folder.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of everything that is made.")],
    set_: Changes = NO_CHANGES,
    plan: Annotated[bool, typer.Option("--plan", help="Tell what it takes; ask nothing.")] = False,
) -> None:
    """Let a model write the instruction that each text answers; the pairs stand in OUT."""
    settings: dict[str, Any] = {"segments": segments, "model": model}
    built, runtime = build(given("backtranslate", settings, set_), {})
    apart(built, out, [PAIRS])
    if plan:
        _plan_of(built, runtime, out, SEGMENTS)
        return
    print(hand_over_pairs(run_and_tell(built, runtime, out), out))  # noqa: T201


@app.command()
def curate(
    pairs: Annotated[Path, typer.Argument(help="Rows of `instruction` and `response`.")],
    judge: Annotated[Path, typer.Option("--judge", help="A teacher's file, or a model's folder.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of everything that is made.")],
    set_: Changes = NO_CHANGES,
    plan: Annotated[bool, typer.Option("--plan", help="Tell what it takes; ask nothing.")] = False,
) -> None:
    """Let a model rate pairs, and keep the best where its ratings can be trusted."""
    built, runtime = build(given("curate", {"pairs": pairs, "judge": judge}, set_), {})
    apart(built, out, [RATED_FILE, KEPT_FILE])
    if plan:
        _plan_of(built, runtime, out, GIVEN)
        return
    print(hand_over_kept(run_and_tell(built, runtime, out), out))  # noqa: T201


@app.command()
def plan(
    recipe: RecipePath,
    out: Out = None,
    set_: Changes = NO_CHANGES,
    ablate: Ablate = "",
    within_days: Annotated[
        float | None, typer.Option(min=0.01, help="Tell how many endpoints make it in time.")
    ] = None,
) -> None:
    """Tell what a run would take, before anything is spent."""
    built, runtime = _built(recipe, set_, ablate)
    print_plan(resolve(built, store_of(out, recipe), without_missing=True), runtime, within_days)


@app.command()
def why(
    recipe: RecipePath,
    node: Annotated[str, typer.Argument(help="A node; all of them by default.")] = "",
    out: Out = None,
    set_: Changes = NO_CHANGES,
    ablate: Ablate = "",
) -> None:
    """Tell which nodes would run, and which setting or content is the reason."""
    built, _ = _built(recipe, set_, ablate)
    resolved = resolve(built, store_of(out, recipe))
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
    mask: Annotated[
        Path | None,
        typer.Option("--mask", help="Show answers as this model's folder is trained on them."),
    ] = None,
    form: Annotated[
        FormatName,
        typer.Option("--format", help="With --mask: how conversations are written down."),
    ] = "saved",
    train_on: Annotated[
        TrainOn, typer.Option("--train-on", help="With --mask: which responses are targets.")
    ] = "all",
    out: Out = None,
    set_: Changes = NO_CHANGES,
    ablate: Ablate = "",
) -> None:
    """Show the record and the rows of a node or artifact."""
    built = _built(recipe, set_, ablate)[0] if recipe else None
    found = find_artifact(existing(store_of(out, recipe)), artifact, built)
    console = Console(highlight=False, soft_wrap=True)
    if mask is None:
        show_rows(found, rows, console, dropped=dropped)
    else:
        show_mask(found, rows, console, model=mask, chat_format=form, train_on=train_on)


@app.command()
def report(
    recipe: RecipePath, out: Out = None, set_: Changes = NO_CHANGES, ablate: Ablate = ""
) -> None:
    """Bring the report of a finished run up to date and tell where it is; nothing else is made."""
    built, _ = _built(recipe, set_, ablate)
    resolved = resolve(built, store_of(out, recipe))
    due = [node.name for node in built.nodes[:-1] if node.name not in resolved.made]
    if due:
        raise RecipeError(
            f"{recipe}: not made yet: {', '.join(due[:3])}{', ...' if len(due) > 3 else ''}; "
            "`spyhop run` makes them"
        )
    run_and_tell(built, Runtime(), resolved.root, forgets=False)
    nodes = {node.name for node in built.nodes}
    if left := [link.name for link in strays(resolved.root, built.name, nodes)]:
        print(f"the last run had more, not told here: {', '.join(left)}; see --ablate")  # noqa: T201


app.command()(train)
app.command()(chat)
app.add_typer(delta, name="delta")


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
            "--journals", help="With --free: replies, even paid ones; none while a run goes on."
        ),
    ] = False,
) -> None:
    """Tell what each artifact holds and who needs it; free the rest."""
    inventory = Inventory(existing(store_of(out, None)))
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


def _built(
    recipe: Path, set_: list[str], ablate: str, workers: int | None = None
) -> tuple[Recipe, Runtime]:
    """Return the recipe of a file as its options change it, and where to run it."""
    chosen = [name.strip() for name in ablate.split(",") if name.strip()]
    changes = [*set_, f"ablate={chosen!r}"] if chosen else set_
    return load(recipe, changes, {"workers": workers})


def _plan_of(recipe: Recipe, runtime: Runtime, out: Path, first: str) -> None:
    """Print the plan of a recipe that begins with the rows of a file."""
    resolved = resolve(recipe, out)
    if not plan_recipe(resolved)[0].estimate.rows:  # compressed: its rows are known when it is read
        node = recipe.node(first)
        inputs: dict[str, Any] = dict(resolved.inputs(node))
        node.stage.run(out, node.config, names=resolved.names(node), **inputs)
    print_plan(resolve(recipe, out), runtime)


def _fail(message: str, code: int = USER_ERROR) -> NoReturn:
    print(f"spyhop: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    sys.exit(code)


def main() -> None:
    """Run the command line: 2 with one line for a user's error, 3 unfinished, 130 for Ctrl-C."""
    try:
        code = app(args=sys.argv[1:] or ["--help"], prog_name="spyhop", standalone_mode=False)
    except TyperException as error:
        _fail(f"{error.format_message()} (`spyhop --help` lists commands and options)")
    except Unfinished as error:
        _fail(str(error), UNFINISHED)
    except SpyhopError as error:
        _fail(str(error))
    sys.exit(code)
