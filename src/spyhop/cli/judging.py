"""`spyhop judge`: win rates and grades by judges, and judges measured against people."""

from pathlib import Path
from typing import Annotated, Any

import typer

from spyhop.cli.options import NO_CHANGES, Changes, DataPlaces, Plan, Settle, TaskOut, places
from spyhop.cli.running import apart, build, given, run_and_report
from spyhop.cli.tasks import plan_of
from spyhop.recipe.graph import models as models_of
from spyhop.recipes.judging import QUESTIONS, RESULT_FILES, export_results
from spyhop.schema import RecipeError


def judge(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Models: teacher files (TOML), model folders, or files of answers; NAME=PATH "
            "names one.",
            show_default=False,
        ),
    ] = None,
    suite: Annotated[
        str,
        typer.Option(
            "--suite",
            help="Questions: vicuna, awesome, wizardlm, mt-bench, alpaca-eval, self-instruct, a "
            "TOML file, or a file of your questions; with --check, pandalm or your labelled pairs.",
        ),
    ] = "",
    data: DataPlaces = NO_CHANGES,
    judges: Annotated[
        list[str],
        typer.Option("--judge", help="Like a model; or a file of verdicts. May be repeated."),
    ] = NO_CHANGES,
    reference: Annotated[
        str,
        typer.Option("--reference", help="Model that all others are compared with, or its name."),
    ] = "",
    form: Annotated[
        list[str],
        typer.Option("--form", help="Form: pairwise, graded_pairs or scored. Default: the suite."),
    ] = NO_CHANGES,
    teacher: Annotated[
        Path | None, typer.Option("--teacher", help="The models' teacher, to flag it as a judge.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Measure the judges against human labels.")
    ] = False,
    out: TaskOut = Path("spyhop-judge"),
    set_: Changes = NO_CHANGES,
    plan: Plan = False,
    settle: Settle = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Request failed calls of a finished run again.")
    ] = False,
) -> None:
    """Judge responses to open questions, or measure judges.

    Every pair is judged in both orders, a tenth of the questions twice. Figures and verdicts are
    written to OUT.
    """
    suite = suite or ("pandalm" if check else "vicuna")
    where = places(data)
    if not judges and not any(change.startswith("judges") for change in set_):
        raise RecipeError(
            "name at least one judge: --judge FILE, a teacher file, folder or verdicts"
        )
    named = _named(models or [])
    if reference and reference not in named:
        named = _named([*(models or []), reference])
        reference = [*named][-1]
    settings: dict[str, Any] = {
        "suite": suite,
        "models": named,
        "judges": _named(judges),
        "reference": reference,
        "check": check,
    }
    settings |= {"data": where[suite]} if suite in where else {}
    settings |= {"forms": form} if form else {}
    settings |= {"teacher": teacher} if teacher else {}
    built, runtime = build(given("judge", settings, set_), {})
    apart(built, out, RESULT_FILES)
    if plan:
        plan_of(built, runtime, out, QUESTIONS)
        return
    asking = frozenset(step.name for step in built.steps if models_of(step))
    reopen = asking if retry_errors else frozenset[str]()
    print(export_results(run_and_report(built, runtime, out, reopen, settles=settle), out))  # noqa: T201


def _named(given: list[str]) -> dict[str, Path]:
    """Return paths by name: as given, else the file's; files of one name take their folder's."""
    pairs = [text.partition("=")[::2] if "=" in text else ("", text) for text in given]
    stems = [Path(path).stem for name, path in pairs if not name]
    found: dict[str, Path] = {}
    for name, text in pairs:
        path = Path(text).expanduser()
        name = name or (path.stem if stems.count(path.stem) == 1 else path.absolute().parent.name)
        if name in found:
            raise RecipeError(f"{text}: a second model is named {name!r}; write NAME={text}")
        found[name] = path
    return found
