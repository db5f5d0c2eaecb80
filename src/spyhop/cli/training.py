"""Commands around training: train a model, publish its weight delta."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bar

from spyhop.cli.options import NO_NAMES, group
from spyhop.cli.running import built_from, places, run_task, say
from spyhop.recipes.training import MODEL, export_results
from spyhop.schema import RecipeError
from spyhop.settings import read_toml
from spyhop.stage import Progress
from spyhop.train.delta import apply_delta, make_delta


def train(
    rows: list[Path],
    base: Path,
    out: Path,
    settings: Path | None = None,
    suite: list[str] = NO_NAMES,
    data: list[str] = NO_NAMES,
    set_: list[str] = NO_NAMES,
    plan: bool = False,
) -> None:
    """Train a model on your rows.

    A stopped training resumes from its last checkpoint. Weights, tokenizer, chat template and model
    card are written to OUT/model.
    """
    named: dict[str, Any] = read_toml(settings) if settings else {}
    if (recipe := named.pop("recipe", "train")) != "train":
        raise RecipeError(
            f"{settings}: recipe = {recipe!r}: this command runs the recipe 'train' only"
        )
    inputs: dict[str, Any] = {"rows": [path.absolute() for path in rows], "base": base.absolute()}
    if suite:
        inputs["suites"] = [{"suite": name, "data": places(data)} for name in suite]
    built = built_from("train", {**named, **inputs}, set_, file=settings)
    if made := run_task(built, out, [MODEL], plan=plan):
        say(export_results(made, out))


def delta_make(base: Path, model: Path, out: Path) -> None:
    """Write the difference between MODEL and BASE, with checksums."""
    with _bar() as report:
        make_delta(base, model, out, report)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    say(f"delta: {out} ({size / 1e6:,.1f} MB)")


def delta_apply(base: Path, folder: Path, out: Path) -> None:
    """Restore the model from BASE and DELTA, bit for bit.

    A base that differs from the original one is refused.
    """
    with _bar() as report:
        apply_delta(base, folder, out, report)
    say(f"model: {out}")


delta = group(
    "Publish what training changed, without the base.", make=delta_make, apply=delta_apply
)


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    columns = "{task.description}", "{task.completed:,.0f}/{task.total:,.0f} MB"
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=1)
        yield lambda at: bar.update(task, description=at.doing, completed=at.done, total=at.total)
