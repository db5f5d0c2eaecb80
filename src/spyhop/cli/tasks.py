"""Commands for single tasks on a person's own files: a recipe each, with its main inputs."""

from pathlib import Path
from typing import Any

from spyhop.cli.options import NO_NAMES
from spyhop.cli.running import built_from, places, run_task, say
from spyhop.collect.pairs import PAIRS
from spyhop.recipes import own
from spyhop.recipes.evaluating import step_name
from spyhop.recipes.judging import QUESTIONS, RESULT_FILES, check_verdicts
from spyhop.recipes.judging import export_results as export_verdicts
from spyhop.recipes.segments import SEGMENTS as SEGMENTS_FILE
from spyhop.recipes.segments import export_results as export_segments
from spyhop.schema import RecipeError


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
    built = built_from("answer", {"prompts": prompts, "teacher": teacher}, set_)
    more = {"settles": settle, "reopens": retry_errors}
    if made := run_task(built, out, own.ANSWER_FILES, plan=plan, first=own.PROMPTS, **more):
        say(own.export_answers(made, out))


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
    settings = {"inputs": [path.absolute() for path in inputs]}
    built = built_from("segments", settings, set_, {"processes": processes, "on": on})
    say(export_segments(run_task(built, out, [SEGMENTS_FILE]), out))


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
    built = built_from("backtranslate", {"segments": segments, "model": model}, set_)
    if made := run_task(built, out, [PAIRS], plan=plan, first=own.SEGMENTS, settles=settle):
        say(own.export_pairs(made, out))


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
    built = built_from("curate", {"pairs": pairs, "judge": judge}, set_)
    files = [own.RATED_FILE, own.KEPT_FILE]
    if made := run_task(built, out, files, plan=plan, first=own.GIVEN, settles=settle):
        say(own.export_kept(made, out))


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
    run_task(built_from("scale", settings, set_), out, plan=plan)


def judge(
    models: list[str] = NO_NAMES,
    suite: str = "",
    data: list[str] = NO_NAMES,
    judges: list[str] = NO_NAMES,
    reference: str = "",
    limit: int | None = None,
    form: list[str] = NO_NAMES,
    teacher: Path | None = None,
    check: bool = False,
    out: Path = Path("spyhop-judge"),
    set_: list[str] = NO_NAMES,
    plan: bool = False,
    settle: bool = False,
    retry_errors: bool = False,
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
    if unknown := [name for name in where if name != suite]:
        raise RecipeError(f"--data {unknown[0]}: the questions are {suite!r}: --data {suite}=PLACE")
    named = _named(models)
    if reference and reference not in named:
        named = _named([*models, reference])
        reference = [*named][-1]
    settings: dict[str, Any] = {
        "suite": suite,
        "models": named,
        "judges": _named(judges),
        "reference": reference,
        "limit": limit,
        "check": check,
    }
    optional = {"data": where.get(suite), "forms": form, "teacher": teacher}
    settings |= {name: value for name, value in optional.items() if value}
    built = built_from("judge", settings, set_)
    more = {"settles": settle, "reopens": retry_errors}
    if made := run_task(built, out, RESULT_FILES, plan=plan, first=QUESTIONS, **more):
        say(export_verdicts(made, out))
        check_verdicts(made)


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
