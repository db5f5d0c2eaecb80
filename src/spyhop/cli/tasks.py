"""Commands for single tasks on a person's own files: a recipe each, with its main inputs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from spyhop.cli.options import NO_CHANGES, Changes, Plan, Settle, TaskOut
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
from spyhop.recipes.judging import QUESTIONS, RESULT_FILES
from spyhop.recipes.judging import export_results as export_figures
from spyhop.recipes.segments import export_results as export_segments
from spyhop.runtime import Runtime
from spyhop.schema import RecipeError


def answer(
    prompts: Annotated[
        Path, typer.Argument(help="JSONL or Parquet, rows of `messages`.", show_default=False)
    ],
    teacher: Annotated[
        Path, typer.Option("--teacher", help="Teacher file (TOML), or a model folder.")
    ],
    out: TaskOut,
    set_: Changes = NO_CHANGES,
    plan: Plan = False,
    settle: Settle = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Request failed rows of a finished run again.")
    ] = False,
) -> None:
    """Generate teacher answers for your prompts.

    Paid replies are journaled and never requested twice. The answers are written to
    OUT/answers.jsonl or OUT/answers.parquet, in the format of the prompts.
    """
    settings: dict[str, Any] = {"prompts": prompts, "teacher": teacher}
    built, runtime = build(given("answer", settings, set_), {})
    apart(built, out, ANSWER_FILES)
    if plan:
        _plan_of(built, runtime, out, PROMPTS)
        return
    made = run_and_report(
        built, runtime, out, frozenset([ANSWERS] if retry_errors else []), settles=settle
    )
    print(export_answers(made, out))  # noqa: T201


def segment(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="WARC archives, folders of pages, JSON lines, Parquet, or *.paths lists.",
            show_default=False,
        ),
    ],
    out: TaskOut,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, help="Processes that share the pages.")
    ] = None,
    on: Annotated[
        str | None, typer.Option("--on", help="Ray cluster: ray://host:port.", metavar="ADDRESS")
    ] = None,
    set_: Changes = NO_CHANGES,
) -> None:
    """Cut web pages into self-contained segments.

    Nothing is downloaded. The segments are written to OUT/segments.jsonl, and a report beside them.
    """
    file = given("segments", {"inputs": [path.absolute() for path in inputs]}, set_)
    built, runtime = build(file, {"processes": processes, "on": on})
    apart(built, out, [SEGMENTS_FILE])
    print(export_segments(run_and_report(built, runtime, out), out))  # noqa: T201


def backtranslate(
    segments: Annotated[Path, typer.Argument(help="JSONL or Parquet, rows of `text`.")],
    model: Annotated[Path, typer.Option("--model", help="Teacher file (TOML), or a model folder.")],
    out: TaskOut,
    set_: Changes = NO_CHANGES,
    plan: Plan = False,
    settle: Settle = False,
) -> None:
    """Generate the instruction that each text answers.

    The pairs of instruction and text are written to OUT.
    """
    settings: dict[str, Any] = {"segments": segments, "model": model}
    built, runtime = build(given("backtranslate", settings, set_), {})
    apart(built, out, [PAIRS])
    if plan:
        _plan_of(built, runtime, out, SEGMENTS)
        return
    print(export_pairs(run_and_report(built, runtime, out, settles=settle), out))  # noqa: T201


def curate(
    pairs: Annotated[Path, typer.Argument(help="Rows of `instruction` and `response`.")],
    judge: Annotated[Path, typer.Option("--judge", help="Teacher file (TOML), or a model folder.")],
    out: TaskOut,
    set_: Changes = NO_CHANGES,
    plan: Plan = False,
    settle: Settle = False,
) -> None:
    """Rate pairs with a model and keep the best.

    Pairs are kept only if the ratings pass their checks.
    """
    built, runtime = build(given("curate", {"pairs": pairs, "judge": judge}, set_), {})
    apart(built, out, [RATED_FILE, KEPT_FILE])
    if plan:
        _plan_of(built, runtime, out, GIVEN)
        return
    print(export_kept(run_and_report(built, runtime, out, settles=settle), out))  # noqa: T201


def _plan_of(recipe: Recipe, runtime: Runtime, out: Path, first: str) -> None:
    """Print the plan of a recipe that begins with the rows of a file."""
    resolved = resolve(recipe, out)
    if not plan_recipe(resolved)[0].estimate.rows:  # compressed: only reading it counts its rows
        step = recipe.step(first)
        inputs: dict[str, Any] = dict(resolved.inputs(step))
        step.stage.run(out, step.config, origins=resolved.labels(step), **inputs)
    print_plan(resolve(recipe, out), runtime)


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
    data: Annotated[
        list[str], typer.Option("--data", metavar="NAME=DIR", help="Where a suite's files are.")
    ] = NO_CHANGES,
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
) -> None:
    """Judge responses to open questions, or measure judges against people.

    Every pair is judged in both orders, a tenth of the questions twice. Figures and verdicts are
    written to OUT.
    """
    suite = suite or ("pandalm" if check else "vicuna")
    where = dict(text.partition("=")[::2] if "=" in text else (suite, text) for text in data)
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
        _plan_of(built, runtime, out, QUESTIONS)
        return
    print(export_figures(run_and_report(built, runtime, out, settles=settle), out))  # noqa: T201


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
