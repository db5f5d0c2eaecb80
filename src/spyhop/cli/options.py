"""Arguments and options of commands: a function has their types and defaults, a table the rest."""

import tomllib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

NO_NAMES: list[str] = []
NO_PATHS: list[Path] = []


def described(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command's function the arguments and options that `options.toml` describes."""
    name = function.__name__
    parameters = signature(function, eval_str=True).parameters.values()
    found = [_described(name, each) for each in parameters]
    function.__annotations__ = {each.name: each.annotation for each in found}
    function.__signature__ = signature(function).replace(parameters=found)  # type: ignore[attr-defined]
    return function


def group(text: str, **functions: Callable[..., Any]) -> typer.Typer:
    """Return commands by name, of functions that `options.toml` describes."""
    found = typer.Typer(add_completion=False, rich_markup_mode=None, help=text or None)
    for name, function in functions.items():
        found.command(name)(described(function))
    return found


def _described(command: str, parameter: Parameter) -> Parameter:
    name, kind = parameter.name, parameter.annotation
    if any(isinstance(each, typer.models.ParameterInfo) for each in get_args(kind)):
        return parameter
    given, role = next(
        (owner[role][name], role)
        for owner in (table().get(command, {}), table()["shared"])
        for role in ("arguments", "options")
        if name in owner.get(role, {})
    )
    info: dict[str, Any] = {"help": given} if isinstance(given, str) else dict(given)
    if Path in (kind, *get_args(kind)) and name in ("out", "store"):
        info["callback"] = _expanded
    if kind_of_words := info.pop("complete", ""):  # imported when a shell asks
        info["autocompletion"] = lambda ctx: import_module("spyhop.cli.running").words(
            kind_of_words, ctx
        )
    if role == "arguments":
        described: Any = typer.Argument(show_default=False, **info)
    else:
        flags = info.pop("names", [f"--{name.strip('_').replace('_', '-')}"])
        described = typer.Option(*flags, **info)
    return parameter.replace(annotation=Annotated[kind, described])


@cache
def table() -> dict[str, Any]:
    """Return the table of commands, arguments and options."""
    return tomllib.loads(Path(__file__).with_name("options.toml").read_text(encoding="utf-8"))


def _expanded(path: Path | None) -> Path | None:
    """Replace `~`, which shells leave alone in `--out=~/folder`."""
    try:
        return path and path.expanduser()
    except RuntimeError:
        raise typer.BadParameter(f"{path}: no such user's home folder") from None
