"""Commands around a training: train, the weight delta, and talking to what came of it."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from spyhop.cli.chat import Chat, voices
from spyhop.cli.running import apart, build, given, print_plan, run_and_tell
from spyhop.models import Sampling, read_teacher
from spyhop.recipe import resolve
from spyhop.recipes.training import MODEL, hand_over
from spyhop.runtime import Runtime
from spyhop.schema import RecipeError
from spyhop.settings import read_toml, validated
from spyhop.stage import Progress as StageProgress
from spyhop.train.delta import apply_delta, make_delta

NO_CHANGES: list[str] = []

delta = typer.Typer(help="Publish what a training changed of a licensed base, not the base.")


def train(
    rows: Annotated[
        list[Path],
        typer.Argument(
            help="JSONL or Parquet, rows of `messages` that end with a response.",
            show_default=False,
        ),
    ],
    base: Annotated[Path, typer.Option("--base", help="A Hugging Face folder.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of everything that is made.")],
    settings: Annotated[
        Path | None,
        typer.Option("--settings", help="Settings of the recipe `train` (TOML).", metavar="FILE"),
    ] = None,
    set_: Annotated[
        list[str], typer.Option("--set", help="Change a setting: key.sub=value. May be repeated.")
    ] = NO_CHANGES,
    plan: Annotated[
        bool, typer.Option("--plan", help="Tell what it takes; train nothing.")
    ] = False,
) -> None:
    """Train a model on rows of your own; a killed training goes on from its last checkpoint.

    The result stands in OUT/model: weights, tokenizer, chat template and card.
    """
    named: dict[str, Any] = read_toml(settings) if settings else {}
    if (recipe := named.pop("recipe", "train")) != "train":
        raise RecipeError(f"{settings}: recipe = {recipe!r}: this command takes 'train' only")
    inputs = {"rows": [path.absolute() for path in rows], "base": base.absolute()}
    file = given("train", {**named, **inputs}, set_)
    if settings is not None:  # what is wrong in it names it, and its paths start at its folder
        file = replace(file, path=settings, settings={"name": "train", **file.settings})
    built, runtime = build(file, {})
    apart(built, out, [MODEL])
    if plan:
        print_plan(resolve(built, out), runtime)
        return
    print(hand_over(run_and_tell(built, runtime, out), out))  # noqa: T201


BaseFolder = Annotated[Path, typer.Argument(help="The base's Hugging Face folder.")]


@delta.command("make")
def make(
    base: BaseFolder,
    model: Annotated[Path, typer.Argument(help="A folder of what was trained from it.")],
    out: Annotated[Path, typer.Argument(help="Folder of the delta.")],
) -> None:
    """Write what MODEL has and BASE has not, with checksums of both."""
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
    out: Annotated[Path, typer.Argument(help="Folder of the model.")],
) -> None:
    """Write the model that the delta was made of, bit by bit; another base is refused."""
    with _Bar() as bar:
        apply_delta(base, folder, out, bar.move)
    Console(highlight=False, soft_wrap=True).print(f"model: {out}", markup=False)


class _Bar(Progress):
    """A moving line on a terminal, nothing elsewhere."""

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
        """Show how far it is."""
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
            help="A model's folder or a teacher's file (TOML); two stand side by side.",
            show_default=False,
        ),
    ],
    system: Annotated[str, typer.Option("--system", help="The system message.")] = "",
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Tokens of a response at most.")
    ] = 512,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="0 takes the likeliest token.")
    ] = 0.0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1.")] = "auto",
) -> None:
    """Talk to a model, or to two side by side; lines from a pipe are asked one after another.

    /system TEXT changes the system message, /reset forgets what was said, /quit ends.
    """
    if len(models) > 2:
        raise RecipeError(f"{len(models)} models: name one, or two to stand side by side")
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
