"""The command that compares data sets by what they gain as they grow."""

from pathlib import Path
from typing import Any

from spyhop.cli.options import NO_NAMES
from spyhop.cli.running import build, given, places, run_task
from spyhop.recipes.evaluating import step_name
from spyhop.schema import RecipeError


def scale(
    sets: list[Path],
    base: Path,
    out: Path,
    held_out: Path | None = None,
    suite: list[str] = NO_NAMES,
    data: list[str] = NO_NAMES,
    judge: Path | None = None,
    seeds: int = 3,
    set_: list[str] = NO_NAMES,
    plan: bool = False,
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
    run_task(build(given("scale", settings, set_), {}), out, plan=plan)
