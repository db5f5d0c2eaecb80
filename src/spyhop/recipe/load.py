"""A TOML file, with `--set` changes, to a typed config: every mistake is one clear line."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError, ValidationInfo

from spyhop.schema import Config, RecipeError
from spyhop.stage import Runtime


def _beside_file(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    path = path.expanduser()
    return folder / path if folder is not None and not path.is_absolute() else path


Settings = TypeVar("Settings", bound=BaseModel)

InputPath = Annotated[Path, AfterValidator(_beside_file)]
"""A path in a recipe file; relative ones start at the file's folder."""


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A recipe file as read: which recipe, its settings, and where to run it."""

    path: Path
    recipe: str
    settings: dict[str, Any]
    runtime: dict[str, Any]

    def config(self, config_type: type[Config]) -> Config:
        """Return the settings as the recipe's config.

        Raises:
            RecipeError: Naming the file, the key, the value and what is allowed.
        """
        named = {"name": self.path.stem.lower(), **self.settings}
        return _validated(
            self.path, config_type, named, "", {"folder": self.path.absolute().parent}
        )

    def runtime_with(self, changes: Mapping[str, Any]) -> Runtime:
        """Return the `[runtime]` table, changed by the command line."""
        given = {**self.runtime, **{k: v for k, v in changes.items() if v is not None}}
        return _validated(self.path, Runtime, given, "runtime.", {})


def read_recipe(path: Path, changes: Sequence[str] = ()) -> RecipeFile:
    """Read a recipe file and apply `key.sub=value` changes.

    Raises:
        RecipeError: If the file or a change cannot be understood.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not TOML: {error}") from None
    return recipe_file(path, settings, changes)


def recipe_file(path: Path, settings: dict[str, Any], changes: Sequence[str]) -> RecipeFile:
    """Return settings, as a file would hold them, with `key.sub=value` changes.

    Raises:
        RecipeError: If a change cannot be understood, or no recipe is named.
    """
    for change in changes:
        apply_change(settings, change)
    runtime = settings.pop("runtime", {})
    if not isinstance(runtime, dict):
        raise RecipeError(f"{path}: runtime = {runtime!r:.60}: it is a table, [runtime]")
    recipe = settings.pop("recipe", None)
    if not isinstance(recipe, str):
        raise RecipeError(f'{path}: the line `recipe = "..."` is missing; see `spyhop recipes`')
    return RecipeFile(path, recipe, settings, runtime)


def describe(config_type: type[BaseModel], depth: int = 0) -> Iterator[str]:
    """Yield a line for every setting of a config, nested ones indented: name, default, meaning."""
    for name, info in config_type.model_fields.items():
        default = info.get_default(call_default_factory=False)
        nested = next((kind for kind in _kinds(info.annotation) if _is_config(kind)), None)
        shown = "required" if info.is_required() else "" if nested else f"= {default!r:.40}"
        about = " ".join((info.description or "").split())
        yield f"{'  ' * depth}{name}  {shown}  {about}".rstrip()
        if nested is not None:
            yield from describe(nested, depth + 1)


def _is_config(kind: Any) -> bool:  # noqa: ANN401 (a type expression)
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def apply_change(settings: dict[str, Any], change: str) -> None:
    """Apply one `a.b=value` change in place; a part that is a number picks from a list.

    Raises:
        RecipeError: If the change has no `=`, or leads through something that is not a table.
    """
    name, equals, text = change.partition("=")
    if not equals or not name.strip():
        raise RecipeError(f"--set {change}: write it as key.sub=value")
    *parents, last = name.strip().split(".")
    place: Any = settings
    for part in parents:
        place = _step(place, part, change)
    if isinstance(place, list) and last.isdigit() and int(last) < len(place):
        place[int(last)] = _value(text)
    elif isinstance(place, dict):
        place[last] = _value(text)
    else:
        raise RecipeError(f"--set {change}: {last!r} is not a key of a table here")


def _step(place: Any, part: str, change: str) -> Any:  # noqa: ANN401 (plain TOML)
    if isinstance(place, dict):
        return place.setdefault(part, {})
    if isinstance(place, list) and part.isdigit() and int(part) < len(place):
        return place[int(part)]
    raise RecipeError(f"--set {change}: {part!r} leads nowhere")


def _value(text: str) -> Any:  # noqa: ANN401 (plain TOML)
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _validated(
    path: Path,
    config_type: type[Settings],
    given: Mapping[str, Any],
    prefix: str,
    context: dict[str, Any],
) -> Settings:
    try:
        return config_type.model_validate(dict(given), context=context)
    except ValidationError as error:
        raise RecipeError(_one_line(path, config_type, error, prefix)) from None


def _one_line(path: Path, config_type: Any, error: ValidationError, prefix: str) -> str:  # noqa: ANN401
    first = error.errors()[0]
    key = prefix + ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(config_type, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"; did you mean {near[0]!r}? Known: " if near else "; known: "
        return f"{path}: {key} is not a setting{hint}{', '.join(known)}{more}"
    if first["type"] == "missing":
        return f"{path}: {key} is missing{more}"
    reason = first["msg"].removeprefix("Value error, ")
    where = f"{key} = {first['input']!r:.60}: " if key.rstrip(".") else ""
    return f"{path}: {where}{reason}{more}"


def _fields_at(config_type: Any, parts: Sequence[str | int]) -> list[str]:  # noqa: ANN401
    """Return the setting names of the config found by following the parts."""
    current = config_type
    for part in parts:
        if isinstance(part, int):
            continue
        if part not in current.model_fields:
            continue  # the name of an entry, or of a kind
        annotation = current.model_fields[part].annotation
        current = next((kind for kind in _kinds(annotation) if hasattr(kind, "model_fields")), None)
        if current is None:
            return []
    return sorted(current.model_fields)


def _kinds(annotation: Any) -> list[Any]:  # noqa: ANN401 (a type expression)
    inner = getattr(annotation, "__args__", ())
    return [annotation] + [kind for each in inner for kind in _kinds(each)]
