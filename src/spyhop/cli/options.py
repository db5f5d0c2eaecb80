"""Arguments and options that several commands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from spyhop.schema import RecipeError
from spyhop.settings import HUB


def _expanded(path: Path | None) -> Path | None:
    """Replace `~`, which shells leave alone in `--out=~/folder`."""
    try:
        return path and path.expanduser()
    except RuntimeError:
        raise typer.BadParameter(f"{path}: no such user's home folder") from None


RecipePath = Annotated[
    Path, typer.Argument(help="Recipe file (TOML), or a folder with one.", show_default=False)
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        callback=_expanded,
        help="Output folder. Default: `store` in [runtime], else the variable SPYHOP_STORE, else "
        "the folder of the recipe if it contains `runs`, else spyhop-out in it. Commands without "
        "a recipe take the current folder for it.",
        show_default=False,
    ),
]
TaskOut = Annotated[Path, typer.Option("--out", help="Output folder.", callback=_expanded)]
Changes = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting. May be repeated."),
]
NumWorkers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Recipe steps to run in parallel.")
]
Ablate = Annotated[
    str,
    typer.Option(
        "--ablate", help="Train ablations too, such as order,answers; `recipes NAME` lists them."
    ),
]
Plan = Annotated[
    bool, typer.Option("--plan", help="Estimate requests, tokens and cost; send nothing.")
]
Settle = Annotated[
    bool,
    typer.Option(
        "--settle",
        help="Release the budget reserved for requests that may have been billed; compare with "
        "the provider's bill first.",
    ),
]
DataPlaces = Annotated[
    list[str],
    typer.Option(
        "--data",
        metavar="NAME=PLACE",
        help="Files of a benchmark or data set: a folder, a file, or "
        "hf://datasets/OWNER/NAME@COMMIT. May be repeated.",
    ),
]
NO_CHANGES: list[str] = []


def places(given: Sequence[str]) -> dict[str, str]:
    """Return where data sets are, from `NAME=PLACE`; a relative path starts here."""
    found: dict[str, str] = {}
    for text in given:
        name, _, place = text.partition("=")
        if not name or not place:
            raise RecipeError(f"--data {text!r}: write NAME=PLACE")
        found[name] = place if place.startswith(HUB) else str(Path(place).expanduser().absolute())
    return found
