"""The command that compares data sets by what they gain as they grow."""

from pathlib import Path
from typing import Annotated, Any

import typer

from spyhop.cli.evaluation import NO_NAMES
from spyhop.cli.options import NO_CHANGES, Changes, DataPlaces, Plan, TaskOut, places
from spyhop.cli.running import apart, build, given, print_plan, run_and_report
from spyhop.recipe import resolve
from spyhop.recipes.evaluating import step_name
from spyhop.schema import RecipeError


def scale(
    sets: Annotated[
        list[Path],
        typer.Argument(metavar="ROWS...", help="Data sets: rows that `train` reads too."),
    ],
    base: Annotated[Path, typer.Option("--base", help="Hugging Face model folder.")],
    out: TaskOut,
    held_out: Annotated[
        Path | None,
        typer.Option("--held-out", help="Rows of none of the sets, to measure by likelihood."),
    ] = None,
    suite: Annotated[
        list[str],
        typer.Option("--suite", help="Benchmark to measure by. May be repeated."),
    ] = NO_NAMES,
    data: DataPlaces = NO_CHANGES,
    judge: Annotated[
        Path | None,
        typer.Option("--judge", help="Model that judges answers to the suite, for a win rate."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Students of each size.")] = 3,
    set_: Changes = NO_CHANGES,
    plan: Plan = False,
) -> None:
    """Compare data sets by what they gain as they grow.

    Students of N rows are trained for the same steps at the same N. The report fits
    w = alpha log N + C for each data set and tests whether the slopes are equal.
    """
    names = [step_name(path.stem if path.is_file() else path.resolve().name) for path in sets]
    if len(set(names)) < len(names):
        raise RecipeError(f"two data sets are called {max(names, key=names.count)!r}; rename one")
    settings: dict[str, Any] = {
        "sets": dict(zip(names, (path.absolute() for path in sets), strict=True)),
        "base": base.absolute(),
        "suites": [{"suite": name, "data": places(data)} for name in suite],
        "held_out": held_out and held_out.absolute(),
        "judge": judge and judge.absolute(),
        "seeds": list(range(seeds)),
    }
    built, runtime = build(given("scale", settings, set_), {})
    apart(built, out)
    if plan:
        print_plan(resolve(built, out), runtime)
        return
    run_and_report(built, runtime, out)
