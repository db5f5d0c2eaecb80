"""Commands for single tasks on a person's own files: a recipe each, with its main inputs."""

from pathlib import Path

from spyhop.cli.options import NO_NAMES
from spyhop.cli.running import build, given, run_task, say
from spyhop.collect.pair_files import PAIRS
from spyhop.recipes.answering import ANSWER_FILES, PROMPTS
from spyhop.recipes.answering import export_results as export_answers
from spyhop.recipes.backtranslating import SEGMENTS
from spyhop.recipes.backtranslating import export_results as export_pairs
from spyhop.recipes.curating import GIVEN, KEPT_FILE, RATED_FILE
from spyhop.recipes.curating import export_results as export_kept
from spyhop.recipes.segments import SEGMENTS as SEGMENTS_FILE
from spyhop.recipes.segments import export_results as export_segments


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
    built = build(given("answer", {"prompts": prompts, "teacher": teacher}, set_), {})
    made = run_task(
        built, out, ANSWER_FILES, plan=plan, first=PROMPTS, settles=settle, reopens=retry_errors
    )
    if made:
        say(export_answers(made, out))


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
    built = build(file, {"processes": processes, "on": on})
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
    built = build(given("backtranslate", {"segments": segments, "model": model}, set_), {})
    if made := run_task(built, out, [PAIRS], plan=plan, first=SEGMENTS, settles=settle):
        say(export_pairs(made, out))


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
    built = build(given("curate", {"pairs": pairs, "judge": judge}, set_), {})
    files = [RATED_FILE, KEPT_FILE]
    if made := run_task(built, out, files, plan=plan, first=GIVEN, settles=settle):
        say(export_kept(made, out))
