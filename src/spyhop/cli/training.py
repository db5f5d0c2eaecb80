"""Commands around training: train a model, publish its weight delta, chat with it."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from spyhop.cli.chat import Chat
from spyhop.cli.options import NO_CHANGES, Changes, DataPlaces, TaskOut, places
from spyhop.cli.running import apart, build, given, print_plan, run_and_report
from spyhop.models import Sampling, read_teacher
from spyhop.models.voices import voices
from spyhop.recipe import resolve
from spyhop.recipes.training import MODEL, export_results
from spyhop.runtime import Runtime
from spyhop.schema import RecipeError
from spyhop.settings import read_toml, validated
from spyhop.stage import Progress as StageProgress
from spyhop.train.delta import apply_delta, make_delta

delta = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Publish what training changed, without the base.",
)


def train(
    rows: Annotated[
        list[Path],
        typer.Argument(
            help="JSONL or Parquet, rows of `messages` that end with a response.",
            show_default=False,
        ),
    ],
    base: Annotated[Path, typer.Option("--base", help="Hugging Face model folder.")],
    out: TaskOut,
    settings: Annotated[
        Path | None,
        typer.Option("--settings", help="Settings of the recipe `train` (TOML).", metavar="FILE"),
    ] = None,
    suite: Annotated[
        list[str],
        typer.Option("--suite", help="Benchmark to measure on, such as bbh. May be repeated."),
    ] = NO_CHANGES,
    data: DataPlaces = NO_CHANGES,
    set_: Changes = NO_CHANGES,
    plan: Annotated[
        bool, typer.Option("--plan", help="Estimate tokens, memory and time; train nothing.")
    ] = False,
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
    file = given("train", {**named, **inputs}, set_)
    if settings is not None:  # errors name the file, and its paths are relative to it
        file = replace(file, path=settings, settings=file.settings)
    built, runtime = build(file, {})
    apart(built, out, [MODEL])
    if plan:
        print_plan(resolve(built, out), runtime)
        return
    print(export_results(run_and_report(built, runtime, out), out))  # noqa: T201


BaseFolder = Annotated[Path, typer.Argument(help="Hugging Face folder of the base.")]


@delta.command("make")
def make(
    base: BaseFolder,
    model: Annotated[
        Path, typer.Argument(help="Folder of a model that was trained from the base.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write the delta to.")],
) -> None:
    """Write the difference between MODEL and BASE, with checksums."""
    with _Bar() as bar:
        make_delta(base, model, out, bar.move)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    Console(highlight=False, soft_wrap=True).print(
        f"delta: {out} ({size / 1e6:,.1f} MB)", markup=False
    )


@delta.command("apply")
def apply(
    base: BaseFolder,
    folder: Annotated[Path, typer.Argument(metavar="DELTA", help="Folder of the delta.")],
    out: Annotated[Path, typer.Argument(help="Folder to write the model to.")],
) -> None:
    """Restore the model from BASE and DELTA, bit for bit.

    A base that differs from the original one is refused.
    """
    with _Bar() as bar:
        apply_delta(base, folder, out, bar.move)
    Console(highlight=False, soft_wrap=True).print(f"model: {out}", markup=False)


class _Bar(Progress):
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} MB"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self.add_task("starting", total=1)

    def move(self, progress: StageProgress) -> None:
        """Move the bar."""
        self.update(
            self._task,
            description=progress.doing,
            completed=progress.done,
            total=progress.total,
        )


def chat(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL [MODEL]",
            help="Model folder or teacher file (TOML); replies of two are shown side by side.",
            show_default=False,
        ),
    ],
    system: Annotated[str, typer.Option("--system", help="System message.")] = "",
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Maximum tokens of a response.")
    ] = 512,
    temperature: Annotated[
        float,
        typer.Option("--temperature", min=0.0, help="Sampling temperature; 0 is greedy decoding."),
    ] = 0.0,
    device: Annotated[
        str, typer.Option("--device", help="Device: auto, cpu, cuda, cuda:1.")
    ] = "auto",
) -> None:
    """Chat with one model, or compare two side by side.

    From a pipe, each line is one turn. /system TEXT changes the system message, /reset clears the
    conversation, /quit ends it. Replies are not saved.
    """
    if len(models) > 2:
        raise RecipeError(f"{len(models)} models: name one, or two to compare")
    given_runtime = {"device": device, "threads": os.cpu_count() or 1}
    runtime = validated(Path("chat"), Runtime, given_runtime, "", {})
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature)
    named = [(path.stem if path.is_file() else path.name, read_teacher(path)) for path in models]
    is_live = sys.stdin.isatty()
    console = Console(highlight=False)
    with voices(named, runtime, sampling) as found:
        Chat(found, console, system, _typed if is_live else _piped, is_live=is_live).talk()


def _typed() -> str:
    import readline  # noqa: F401 (its import gives `input` a history and arrow keys)

    return input("> ")


def _piped() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line
