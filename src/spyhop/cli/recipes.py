"""Commands around recipes: write, list, plan, run, inspect, push and repeat them."""

import shutil
import sys
from pathlib import Path
from shlex import join, quote, split
from tempfile import TemporaryDirectory
from typing import Any, Literal

from rich.console import Console

from spyhop.cli.folder import existing, output_folder
from spyhop.cli.options import NO_NAMES
from spyhop.cli.running import load, print_json, print_plan, recipe_file, run_and_report, say
from spyhop.recipe import Recipe, Use, resolve
from spyhop.recipe.graph import num_rounds, refs
from spyhop.recipe.published import (
    GOOD,
    check_scores,
    check_steps,
    read_published,
    upload,
    write_repositories,
)
from spyhop.recipe.show import (
    artifact_values,
    find_artifact,
    read_folder,
    run_lines,
    show_mask,
    show_rows,
)
from spyhop.recipe.why import why as why_step
from spyhop.recipes import INIT_FILES, RECIPES, write_example
from spyhop.render import FormatName, TrainOn
from spyhop.report.arms import COMPARISONS, arms_table, audit_lines, comparison_lines
from spyhop.report.html import PAGE, RESULTS
from spyhop.report.sections import AUDITS
from spyhop.runtime import Runtime, Shard
from spyhop.schema import ArtifactError, RecipeError
from spyhop.settings import describe
from spyhop.store import RUNS, Artifact, strays

REPORT = "report"
"""The step of a recipe that writes its page."""


LOOPS = {
    "orca": ("quickstart.toml", Path("spyhop-quickstart")),
    "humpback": ("quickstart_humpback.toml", Path("spyhop-humpback")),
    "beyond": ("quickstart_beyond.toml", Path("spyhop-beyond")),
}
"""Recipe file and default output folder of each loop."""


def quickstart(
    loop: Literal["orca", "humpback", "beyond"] = "orca",
    out: Path | None = None,
    thorough: bool = False,
    set_: list[str] = NO_NAMES,
    workers: int | None = None,
) -> None:
    """Run the whole loop in a built-in world: no key, GPU or network.

    The recipe is written to the output folder. Edit it and run the command again: only steps that
    depend on the edit run again.
    """
    example, folder = LOOPS[loop]
    out = out or folder
    path = write_example(out, example.replace("quickstart", "thorough") if thorough else example)
    built, runtime = load(path, set_, {"workers": workers})
    run_and_report(built, runtime, out)
    made = out / RUNS / built.name / REPORT
    Console(highlight=False, soft_wrap=True).print(arms_table(made / RESULTS))
    if loop != "orca":
        say(*comparison_lines(made / COMPARISONS))
    elif not thorough:
        say("One seed: intervals cover test items only. --thorough runs five seeds.")
    say(*audit_lines(made / AUDITS), *(out / file for file in (PAGE, RESULTS)))
    for file in (PAGE, RESULTS):
        shutil.copyfile(made / file, out / file)


def init(folder: Path) -> None:
    """Write a recipe and example files for your own data.

    The recipe trains a student on a teacher's answers to your prompts and evaluates it on your
    questions.
    """
    say(*(write_example(folder, name) for name in INIT_FILES))
    say(f"next: edit {folder / INIT_FILES[0]}, then `spyhop plan` and `spyhop run` it")


def recipes(name: str = "", schema: bool = False) -> None:
    """List the recipes, or the settings of one."""
    if not name and schema:
        raise RecipeError("--schema: name a recipe; `spyhop recipes` lists them")
    if not name:
        width = max(map(len, RECIPES))
        say(*(f"{each:{width}}  {kind.summary}" for each, kind in RECIPES.items()))
        say("`spyhop recipes NAME` lists the settings of a recipe.")
        return
    if name not in RECIPES:
        raise RecipeError(f"{name!r}: no such recipe; known: {', '.join(RECIPES)}")
    if schema:
        print_json(RECIPES[name].schema(name))
        return
    say(f"{name}: {RECIPES[name].summary}")
    where = "runtime  Where and how fast the recipe runs; never part of a key."
    lines = [*describe(RECIPES[name].config_type), where, *describe(Runtime, 1)]
    say(*(f"  {line}" for line in lines))


def plan(
    recipe: Path,
    store: Path | None = None,
    set_: list[str] = NO_NAMES,
    ablate: str = "",
    within_days: float | None = None,
    json_: bool = False,
) -> None:
    """Estimate rows, requests, tokens, dollars and hours of a run."""
    built, runtime, folder = _built(recipe, store, set_, ablate)
    resolved = resolve(built, folder, without_missing=True)
    print_plan(resolved, runtime, within_days, is_json=json_)


def run(
    recipe: Path,
    store: Path | None = None,
    set_: list[str] = NO_NAMES,
    workers: int | None = None,
    retry_errors: list[str] = NO_NAMES,
    ablate: str = "",
    settle: bool = False,
    shard: str = "",
) -> None:
    """Run a recipe; finished steps are reused."""
    built, runtime, folder = _built(recipe, store, set_, ablate, workers)
    asking = [step.name for step in built.steps if any(isinstance(r, Use) for r in refs(step))]
    for name in retry_errors:
        if built.step(name).name not in asking:
            raise RecipeError(
                f"--retry-errors {name}: this step calls no model; these do: {', '.join(asking)}"
            )
    if shard and retry_errors:
        raise RecipeError("--retry-errors works without --shard")
    run_and_report(
        built, runtime, folder, frozenset(retry_errors), settles=settle,
        shard=Shard.of(shard) if shard else None,
    )  # fmt: skip


def sbatch(
    recipe: Path,
    shards: int = 8,
    gpus: int = 0,
    nodes: int = 1,
    rounds: int | None = None,
    options: str = "",
    store: Path | None = None,
    set_: list[str] = NO_NAMES,
    ablate: str = "",
) -> None:
    """Print the script that runs a recipe on a Slurm cluster.

    It submits a chain of jobs: arrays that share the parts of a step, and jobs that make the steps
    between them. The command itself submits nothing.
    """
    built, _, folder = _built(recipe, store, set_, ablate)
    changes = [word for change in set_ for word in ("--set", change)]
    changes += ["--ablate", ablate] if ablate else []
    command = ["-m", "spyhop", "run", str(recipe.absolute()), "--out", str(folder.absolute())]
    values = {
        "NAME": quote(built.name),
        "PYTHON": quote(quote(sys.executable)),
        "RUN": quote(join([*command, *changes])),
        "SHARDS": shards,
        "ROUNDS": num_rounds(built) if rounds is None else rounds,
        "NODES": nodes,
        "GPUS": gpus,
        "OPTIONS": f"({join(split(options))})",
    }
    lines = [
        f"# {built.name} on {shards} tasks. Run it with: bash FILE; run it again to resume.",
        *(f"{name}={value}" for name, value in values.items()),
    ]
    script = Path(__file__).with_name("sbatch.sh").read_text(encoding="utf-8")
    print("#!/bin/bash\n" + "\n".join(lines) + f"\n{script}", end="")  # noqa: T201


def report(
    recipe: Path, store: Path | None = None, set_: list[str] = NO_NAMES, ablate: str = ""
) -> None:
    """Update the report of a finished run.

    No other step runs.
    """
    built, _, folder = _built(recipe, store, set_, ablate)
    if not any(step.name == REPORT for step in built.steps):
        raise RecipeError(
            f"{recipe}: this recipe has no report; `spyhop show STEP --recipe {recipe}` shows rows "
            f"of its steps: {', '.join(step.name for step in built.steps)}"
        )
    resolved = resolve(built, folder)
    due = [step.name for step in built.steps[:-1] if step.name not in resolved.made]
    if due:
        raise RecipeError(
            f"{recipe}: steps not finished: {', '.join(due[:3])}{', ...' if len(due) > 3 else ''}; "
            "`spyhop run` runs them"
        )
    run_and_report(built, Runtime(), resolved.root, forgets=False)
    steps = {step.name for step in built.steps}
    if left := [link.name for link in strays(resolved.root, built.name, steps)]:
        say(f"steps of the last run not in this report: {', '.join(left)}; see --ablate")


def why(
    recipe: Path,
    step: str = "",
    store: Path | None = None,
    set_: list[str] = NO_NAMES,
    ablate: str = "",
    json_: bool = False,
) -> None:
    """List the steps that would run, and why."""
    built, _, folder = _built(recipe, store, set_, ablate)
    resolved = resolve(built, folder)
    steps = [built.step(step)] if step else built.steps
    reasons = {each.name: why_step(resolved, each) for each in steps}
    if json_:
        found = [
            {"name": name, "is_finished": not some, "reasons": some}
            for name, some in reasons.items()
        ]
        print_json({"recipe": built.name, "output_folder": folder, "steps": found})
    else:
        say(*(f"{name}: {'; '.join(some) or 'up to date'}" for name, some in reasons.items()))


def show(
    artifact: str,
    recipe: Path | None = None,
    rows: int = 3,
    dropped: bool = False,
    mask: Path | None = None,
    chat_format: FormatName = "saved",
    train_on: TrainOn = "all",
    store: Path | None = None,
    set_: list[str] = NO_NAMES,
    ablate: str = "",
    json_: bool = False,
) -> None:
    """Show the record and rows of a step or artifact.

    Of a run's folder it lists the steps, of an output folder the runs.
    """
    console = Console(highlight=False, soft_wrap=True)
    found: Artifact | list[dict[str, Any]]
    if json_ and mask is not None:
        raise RecipeError("--mask shows tokens in a terminal; it has no --json")
    if recipe is None and (path := Path(artifact).expanduser()).is_dir():
        found = read_folder(path)
        if isinstance(found, list):
            if json_:
                print_json({"runs": found})
            else:
                say(*run_lines(found, has_steps=not (path / RUNS).is_dir()))
            return
    else:
        built, folder = None, output_folder(store)
        if recipe is not None:
            built, _, folder = _built(recipe, store, set_, ablate)
        found = find_artifact(existing(folder), artifact, built)
    if json_:
        print_json(artifact_values(found, rows, dropped=dropped))
    elif mask is not None:
        show_mask(found, rows, console, model=mask, chat_format=chat_format, train_on=train_on)
    else:
        show_rows(found, rows, console, dropped=dropped)


def push(
    run: Path, to: str, yes: bool = False, public: bool = False, out: Path | None = None
) -> None:
    """Push a finished run's model and data set to the Hugging Face hub.

    Without --yes it shows what would be sent, and sends nothing.
    """
    papers = {name: kind.papers for name, kind in RECIPES.items()}
    with TemporaryDirectory() as place:
        for folder, kind in write_repositories(run, out or Path(place), to, papers).items():
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            sizes = {path.relative_to(folder): path.stat().st_size for path in files}
            total = f"{len(sizes)} files, {sum(sizes.values()) / 1e6:,.1f} MB"
            say(f"{kind} {to}, {'public' if public else 'private'}: {total}")
            say(*(f"{num_bytes:>16,}  {name}" for name, num_bytes in sizes.items()))
            if yes:
                say(f"pushed: {upload(folder, kind, to, is_public=public)}")
    if not yes:
        say("nothing was sent; --yes pushes these files")


def reproduce(
    card: Path, store: Path | None = None, set_: list[str] = NO_NAMES, yes: bool = False
) -> None:
    """Repeat a published run; compare digests and scores.

    Without --yes nothing is run: the plan is shown, and what the output folder has is compared.
    """
    published, recipe = read_published(card)
    built, runtime = load(recipe, set_, {})
    folder = output_folder(store, Path(), runtime)
    if yes:
        run_and_report(built, runtime, folder)
    resolved = resolve(built, folder, without_missing=True)
    if not yes:
        print_plan(resolved, runtime)
    missing = resolved.missing or []
    say(*(f"missing input: {path}" for path in missing))
    found = [*check_steps(published, resolved), *check_scores(published, resolved)]
    say(*(f"{name}: {state}{about and f' ({about})'}" for name, state, about in found))
    if bad := [state for _, state, _ in found if state not in GOOD] + ["missing"] * len(missing):
        kinds = ", ".join(f"{bad.count(kind)} {kind}" for kind in dict.fromkeys(bad))
        raise ArtifactError(f"{card}: not reproduced: {kinds}")


def _built(
    recipe: Path, out: Path | None, set_: list[str], ablate: str, workers: int | None = None
) -> tuple[Recipe, Runtime, Path]:
    """Return the recipe of a file as its options change it, its runtime and its output folder."""
    chosen = [name.strip() for name in ablate.split(",") if name.strip()]
    changes = [*set_, f"ablate={chosen!r}"] if chosen else set_
    recipe = recipe_file(recipe)
    built, runtime = load(recipe, changes, {"workers": workers})
    return built, runtime, output_folder(out, recipe.parent, runtime)
