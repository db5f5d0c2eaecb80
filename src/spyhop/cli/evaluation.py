"""Commands that measure models: evaluate, read stored responses again, compare, export."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from spyhop.cli.folder import existing
from spyhop.cli.options import NO_NAMES, NO_PATHS
from spyhop.cli.running import built_from, places, print_json, print_table, run_task, say
from spyhop.collect import orca_messages
from spyhop.evaluate import rescore, score_row, seal_state, task_scores, write_scores
from spyhop.evaluate.comparison import compare_logs
from spyhop.evaluate.logs import export_scores, read_log
from spyhop.evaluate.rates import ALL
from spyhop.evaluate.sealed import DISCORDANT
from spyhop.recipe import resolve
from spyhop.recipe.load import apply_change
from spyhop.recipe.plan import plan as plan_recipe
from spyhop.recipes.evaluating import ITEMS, SAMPLED, SCORES, export_results, step_name
from spyhop.recipes.training import MODEL
from spyhop.report.comparison import comparison_page, summary_lines, terminal_table
from spyhop.report.evaluation import score_rows
from spyhop.report.html import Table as ReportTable
from spyhop.schema import InputError, RecipeError
from spyhop.statistics import detectable_difference
from spyhop.store import RUNS, Artifact, atomic_write
from spyhop.store.artifact import load
from spyhop.store.rows import read_rows

MOST_CHANGES = 50
"""Changed verdicts that are printed; all of them are in the file."""
RUN = "eval"


def eval(
    models: list[Path] = NO_PATHS,
    suite: list[str] = NO_NAMES,
    data: list[str] = NO_NAMES,
    out: Path = Path("spyhop-eval"),
    limit: int | None = None,
    shots: int | None = None,
    samples: int = 1,
    system_messages: str = "",
    rows: list[Path] = NO_PATHS,
    rescore_: Path | None = None,
    set_: list[str] = NO_NAMES,
    plan: bool = False,
) -> None:
    """Evaluate models on benchmarks.

    Every item and sample is a row of OUT/scores-NAME.jsonl; a stopped evaluation is resumed.
    """
    if rescore_ is not None:
        _rescore(rescore_, set_)
        return
    if not models or not suite:
        raise RecipeError("name at least one model and one --suite, or an evaluation to --rescore")
    settings: dict[str, Any] = {
        "models": _named(models),
        "suites": [{"suite": name, "limit": limit, "shots": shots} for name in suite],
        "data": places(data),
        "measure": {"num_samples": samples},
        "rows": [path.absolute() for path in rows],
        "system_messages": _messages(system_messages),
    }
    built = built_from("eval", settings, set_)
    made = run_task(built, out, [f"{SCORES}{n}.jsonl" for n in settings["models"]], plan=plan)
    if plan:  # the smallest difference that each suite can be expected to show
        about = f"power 80 %, alpha 0.05, if {100 * DISCORDANT:.0f} % of the items are discordant"
        for line in plan_recipe(resolve(built[0], out)):
            if line.step.name.startswith(ITEMS) and (n := line.estimate.rows):
                found = detectable_difference(n, DISCORDANT)
                shown = "no difference" if found is None else f"{100 * found:.1f} points"
                name = line.step.name.removeprefix(ITEMS)
                say(f"{name}: {n:,} items can show {shown} between two models ({about})")
        return
    files = export_results(made, out)
    scores = {n.removeprefix(SCORES): each for n, each in made.items() if n.startswith(SCORES)}
    print_table(_table(scores))
    say(seal_state(scores, made.get("sealed")), *made["report"].record.config["notes"], *files)


def _named(models: Sequence[Path]) -> dict[str, Path]:
    """Return the models by names that steps and files can have; equal ones are numbered.

    A trained model, `OUT/model`, is named by its output folder.
    """
    found: dict[str, Path] = {}
    for path in models:
        place = path.absolute()  # not `resolve`: a link has the name that people gave it
        last = place.stem if place.is_file() else place.name
        name = step_name(place.parent.name if last == MODEL else last)
        taken = [name, *(f"{name}-{n}" for n in range(2, len(models) + 1))]
        found[next(each for each in taken if each not in found)] = path.absolute()
    return found


def _messages(given_as: str) -> list[dict[str, Any]]:
    """Return system messages as settings: the paper's, or those of a file."""
    if not given_as:
        return []
    if given_as == "orca":
        return [message.model_dump() for message in orca_messages()]
    found = [row for _, row in read_rows(Path(given_as))]
    if not found:
        raise RecipeError(f"--system-messages {given_as}: no rows; each is an `id` and a `text`")
    return found


def _table(scores: Mapping[str, Artifact]) -> Table:
    """Return the suites' scores; a rate is red if its items could reverse the difference."""
    found = {
        name: [score for score in task_scores(name, each) if score.task == ALL]
        for name, each in scores.items()
    }
    rows = list(score_rows(found))
    shown = ReportTable.of(cells for cells, _ in rows)
    table = Table(*shown.headings, box=None, pad_edge=False)
    for row, (_, red) in zip(shown.rows, rows, strict=True):
        styles = ["red" if name in red else "" for name in shown.headings]
        table.add_row(*map(Text, row, styles))
    return table


def compare(
    first: Path,
    second: Path,
    task: list[str] = NO_NAMES,
    metric: str = "",
    by: Literal["task", "length", "topic"] = "task",
    html: Path | None = None,
    rows: int = 20,
    anyway: bool = False,
    json_: bool = False,
) -> None:
    """Compare two models item by item, from the logs of one tool.

    Differences are second minus first. Nothing is asked or downloaded.
    """
    logs = (read_log(path, task, metric) for path in (first, second))
    compared = compare_logs(*logs, num_rows=rows, is_anyway=anyway)
    if json_:
        print_json(compared)
    else:
        print_table(terminal_table(compared, by))
        say(*summary_lines(compared))
    if html is None:
        return
    try:
        html.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(html) as temporary:
            temporary.write_text(comparison_page(compared), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{html}: cannot be written ({error.strerror})") from None


def export(
    scores: Path,
    to: Literal["inspect", "lm-eval", "hub"],
    out: Path,
    dataset: list[str] = NO_NAMES,
) -> None:
    """Write scores for inspect, lm-eval or the Hugging Face hub."""
    named: dict[str, str] = {}
    for text in dataset:
        pattern, _, named[pattern] = text.partition("=")
        if not (pattern and named[pattern]):
            raise InputError(f"--dataset {text!r}: write TASK=ID, such as gsm8k=openai/gsm8k")
    say(*export_scores(scores, to, out, named))


def _rescore(out: Path, changes: Sequence[str]) -> None:
    """List the verdicts that the extractor of now changes, and write all scores again."""
    settings: dict[str, Any] = {}
    for change in changes:
        apply_change(settings, change)
    measure = settings.pop("measure", {})
    if settings or not isinstance(measure, dict):
        name = next(iter(settings), "measure")
        raise RecipeError(f"--set {name}: a new reading has the settings `measure.NAME` only")
    steps = _steps(existing(out) / RUNS / RUN)
    items = {name: each for name, each in steps.items() if name.startswith(ITEMS)}
    for name, scores in steps.items():
        if not name.startswith((SCORES, SAMPLED)):
            continue
        found = list(rescore(items, scores, measure))
        changed = [each for each in found if each.is_changed]
        for each in changed[:MOST_CHANGES]:
            score, end = each.before, " ".join(each.before.response.split())[-80:]
            before, after = (
                f"{read.extracted!r:.30} {'right' if read.correct else 'wrong'}"
                for read in (score, each.after)
            )
            gold = f"gold {score.target!r:.40}"
            say(f"{name}  {score.task}  {score.id}  {before} -> {after}  {gold}  {end!r}")
        before, after = (
            f"{100 * fmean(getattr(each, side).value for each in found):.2f} %"
            for side in ("before", "after")
        )
        path, model = out / f"re{name}.jsonl", name.partition("-")[2]
        write_scores(path, (score_row(model, e.item, e.after, e.protocol) for e in found))
        num = f"{len(changed):,} of {len(found):,} verdicts change"
        say(f"{name}: {num}, {before} -> {after}; all of them: {path}")


def _steps(run: Path) -> dict[str, Artifact]:
    """Return the finished steps of an evaluation."""
    links = sorted(run.iterdir()) if run.is_dir() else []
    loaded = {link.name: (link, load(link)) for link in links if link.is_dir()}
    found = {n: Artifact(link.resolve(), each.record) for n, (link, each) in loaded.items() if each}
    if not any(name.startswith(SCORES) for name in found):
        raise RecipeError(f"{run.parent.parent}: no finished evaluation; run `spyhop eval` first")
    return found
