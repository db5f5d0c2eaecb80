"""Commands for single tasks on a person's own files: a recipe each, with its main inputs."""

from pathlib import Path
from typing import Any

from spyhop.cli.options import NO_NAMES
from spyhop.cli.running import apart, build, given, print_plan, run_and_report
from spyhop.collect.pair_files import PAIRS
from spyhop.corpus.stages import SEGMENTS as SEGMENTS_FILE
from spyhop.recipe import Recipe, resolve
from spyhop.recipe.plan import plan as plan_recipe
from spyhop.recipes.answering import ANSWER_FILES, ANSWERS, PROMPTS
from spyhop.recipes.answering import export_results as export_answers
from spyhop.recipes.backtranslating import SEGMENTS
from spyhop.recipes.backtranslating import export_results as export_pairs
from spyhop.recipes.curating import GIVEN, KEPT_FILE, RATED_FILE
from spyhop.recipes.curating import export_results as export_kept
from spyhop.recipes.segments import export_results as export_segments
from spyhop.runtime import Runtime


def answer(
    prompts: Path,
    teacher: Path,
    out: Path,
    set_: list[str] = NO_NAMES,
    plan: bool = False,
    settle: bool = False,
    retry_errors: bool = False,
) -> None:
    """Generate teacher answers for your prompts.

    Paid replies are journaled and never requested twice. The answers are written to
    OUT/answers.jsonl or OUT/answers.parquet, in the format of the prompts.
    """
    settings: dict[str, Any] = {"prompts": prompts, "teacher": teacher}
    built, runtime = build(given("answer", settings, set_), {})
    apart(built, out, ANSWER_FILES)
    if plan:
        plan_of(built, runtime, out, PROMPTS)
        return
    made = run_and_report(
        built, runtime, out, frozenset([ANSWERS] if retry_errors else []), settles=settle
    )
    print(export_answers(made, out))  # noqa: T201


def segment(
    inputs: list[Path],
    out: Path,
    processes: int | None = None,
    on: str | None = None,
    set_: list[str] = NO_NAMES,
) -> None:
    """Cut web pages into self-contained segments.

    Nothing is downloaded. The segments are written to OUT/segments.jsonl, and a report beside them.
    """
    file = given("segments", {"inputs": [path.absolute() for path in inputs]}, set_)
    built, runtime = build(file, {"processes": processes, "on": on})
    apart(built, out, [SEGMENTS_FILE])
    print(export_segments(run_and_report(built, runtime, out), out))  # noqa: T201


def backtranslate(
    segments: Path,
    model: Path,
    out: Path,
    set_: list[str] = NO_NAMES,
    plan: bool = False,
    settle: bool = False,
) -> None:
    """Generate the instruction that each text answers.

    The pairs of instruction and text are written to OUT.
    """
    settings: dict[str, Any] = {"segments": segments, "model": model}
    built, runtime = build(given("backtranslate", settings, set_), {})
    apart(built, out, [PAIRS])
    if plan:
        plan_of(built, runtime, out, SEGMENTS)
        return
    print(export_pairs(run_and_report(built, runtime, out, settles=settle), out))  # noqa: T201


def curate(
    pairs: Path,
    judge: Path,
    out: Path,
    set_: list[str] = NO_NAMES,
    plan: bool = False,
    settle: bool = False,
) -> None:
    """Rate pairs with a model and keep the best.

    Pairs are kept only if the ratings pass their checks.
    """
    built, runtime = build(given("curate", {"pairs": pairs, "judge": judge}, set_), {})
    apart(built, out, [RATED_FILE, KEPT_FILE])
    if plan:
        plan_of(built, runtime, out, GIVEN)
        return
    print(export_kept(run_and_report(built, runtime, out, settles=settle), out))  # noqa: T201


def plan_of(recipe: Recipe, runtime: Runtime, out: Path, first: str) -> None:
    """Print the plan of a recipe that begins with the rows of a file."""
    resolved = resolve(recipe, out)
    if not plan_recipe(resolved)[0].estimate.rows:  # compressed: only reading it counts its rows
        step = recipe.step(first)
        inputs: dict[str, Any] = dict(resolved.inputs(step))
        step.stage.run(out, step.config, origins=resolved.labels(step), **inputs)
    print_plan(resolve(recipe, out), runtime)
