"""`spyhop judge`: win rates and grades by judges, and judges measured against people."""

from pathlib import Path
from typing import Any

from spyhop.cli.options import NO_NAMES
from spyhop.cli.running import build, given, places, run_task, say
from spyhop.recipes.judging import QUESTIONS, RESULT_FILES, check_verdicts, export_results
from spyhop.schema import RecipeError


def judge(
    models: list[str] = NO_NAMES,
    suite: str = "",
    data: list[str] = NO_NAMES,
    judges: list[str] = NO_NAMES,
    reference: str = "",
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
    named = _named(models)
    if reference and reference not in named:
        named = _named([*models, reference])
        reference = [*named][-1]
    settings: dict[str, Any] = {
        "suite": suite,
        "models": named,
        "judges": _named(judges),
        "reference": reference,
        "check": check,
    }
    if unknown := [name for name in where if name != suite]:
        raise RecipeError(f"--data {unknown[0]}: the questions are {suite!r}: --data {suite}=PLACE")
    settings |= {"data": where[suite]} if where else {}
    settings |= {"forms": form} if form else {}
    settings |= {"teacher": teacher} if teacher else {}
    built = build(given("judge", settings, set_), {})
    made = run_task(
        built, out, RESULT_FILES, plan=plan, first=QUESTIONS, settles=settle, reopens=retry_errors
    )
    if made:
        say(export_results(made, out))
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
