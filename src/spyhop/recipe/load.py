"""A recipe file with its `--set` changes, as typed settings."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spyhop.runtime import Runtime
from spyhop.schema import Config, RecipeError
from spyhop.settings import parse_toml, read_toml, validated


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A recipe file as read: which recipe, its settings, and where to run it."""

    path: Path
    recipe: str
    settings: dict[str, Any]
    runtime: dict[str, Any]
    name: str
    """Run name; results are linked under `runs/<name>`. Default: the recipe file's name."""
    dtype: str = "auto"
    """Precision of local models that answer or score: `float32`, `bfloat16`, or as they are stored.
    """

    def tables(self) -> dict[str, Any]:
        """Return the settings as a recipe file states them, without `[runtime]`."""
        return {"recipe": self.recipe, "name": self.name, "dtype": self.dtype, **self.settings}

    def config(self, config_type: type[Config]) -> Config:
        """Return the settings as the recipe's config."""
        folder = self.path.absolute().parent
        return validated(self.path, config_type, self.settings, "", {"folder": folder})

    def runtime_with(self, changes: Mapping[str, Any]) -> Runtime:
        """Return the `[runtime]` table, changed by the command line."""
        given = {**self.runtime, **{k: v for k, v in changes.items() if v is not None}}
        folder = self.path.absolute().parent
        return validated(self.path, Runtime, given, "runtime.", {"folder": folder})


def read_recipe(path: Path, changes: Sequence[str] = ()) -> RecipeFile:
    """Read a recipe file and apply `key.sub=value` changes."""
    return given(path, read_toml(path), changes)


def given(path: Path, settings: dict[str, Any], changes: Sequence[str]) -> RecipeFile:
    """Return the changed settings of a recipe file; of a command, `path` is its name."""
    for change in changes:
        apply_change(settings, change)
    runtime = settings.pop("runtime", {})
    if not isinstance(runtime, dict):
        raise RecipeError(f"{path}: runtime = {runtime!r:.60}: it is a table, [runtime]")
    recipe = settings.pop("recipe", None)
    if not isinstance(recipe, str):
        raise RecipeError(f'{path}: the line `recipe = "..."` is missing; see `spyhop recipes`')
    name = settings.pop("name", path.stem.lower())  # no part of any artifact's identity
    if not isinstance(name, str):
        raise RecipeError(f"{path}: name = {name!r:.60}: it is a text")
    return RecipeFile(path, recipe, settings, runtime, name, settings.pop("dtype", "auto"))


def apply_change(settings: dict[str, Any], change: str) -> None:
    """Apply one `a.b=value` change in place; a number in the key selects an entry of a list.

    A part of the key that contains a dot is quoted: `runtime.steps."core.teacher".threads=2`.
    """
    name, equals, text = change.partition("=")
    *parents, last = _parts(name) if equals else [""]
    if not last:
        raise RecipeError(f"--set {change:.200}: write it as key.sub=value")
    table: Any = settings
    for part in parents:
        if isinstance(table, dict):
            table = table.setdefault(part, {})
        elif isinstance(table, list) and _is_index(part, table):
            table = table[int(part)]
        else:
            raise RecipeError(f"--set {change:.200}: no setting has the part {part!r:.60}")
    if isinstance(table, list) and _is_index(last, table):
        table[int(last)] = _value(text, change)
    elif isinstance(table, dict):
        table[last] = _value(text, change)
    else:
        raise RecipeError(f"--set {change:.200}: {last!r:.60} is not a key of a table here")


def _parts(name: str) -> list[str]:
    """Return the parts of a dotted key; a single empty one if it is no key."""
    try:
        inner: Any = tomllib.loads(f"{name} = 0") if name.isprintable() else 0
    except (tomllib.TOMLDecodeError, RecursionError):
        return [""]
    parts = []
    while isinstance(inner, dict):
        ((part, inner),) = inner.items()
        parts.append(part)
    return parts or [""]


def _is_index(part: str, entries: list[Any]) -> bool:
    return part.isascii() and part.isdigit() and len(part) < 9 and int(part) < len(entries)


def _value(text: str, change: str) -> Any:  # noqa: ANN401 (plain TOML)
    """Return a TOML value; a text that is not TOML is taken as it is."""
    try:
        return parse_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except ValueError as error:
        key = change.partition("=")[0].strip()
        raise RecipeError(f"--set {key:.200}{str(error).removeprefix('value')}") from None
