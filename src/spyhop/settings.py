"""Settings files: TOML to a typed config, and every mistake is one clear line."""

import difflib
import html
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, time
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, ValidationError, ValidationInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import NullableSchema

from spyhop.schema import RecipeError, models_in

Settings = TypeVar("Settings", bound=BaseModel)
MAX_NAME_BYTES = 255
HUB = "hf://"
"""Beginning of the addresses of data sets on the hub."""
MAX_DEPTH = 50
"""Tables and lists inside one another in a settings file."""


def beside_file(path: Path, info: ValidationInfo) -> Path:
    """Return a path of a settings file; a relative one starts at the file's folder."""
    folder = (info.context or {}).get("folder")
    path = expanded(path)
    if "\0" in str(path) or any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in path.parts):
        raise ValueError("no file can have this name")
    return folder / path if folder is not None and not path.is_absolute() else path


def expanded(path: Path) -> Path:
    """Return the path with `~` and `~user` replaced."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path.parts[0]} has no home folder here") from None


InputPath = Annotated[Path, AfterValidator(beside_file)]
"""A path in a settings file; relative ones start at the file's folder."""


_UNSHOWN = "unshown"
_SHAPES = {
    "dict_type": "write a table",
    "model_type": "write a table",
    "path_type": "write a path as text",
    "tuple_type": "write a list",
}
"""Reasons for values of another type than the setting, by pydantic's name of the error."""
_UNION_MEMBER = re.compile(r"constrained-\w+|literal\[.*\]|kind-\w+")
"""What pydantic appends to the name of a setting that takes values of several types."""


def unshown(reason: str) -> PydanticCustomError:
    """Return the error of a value that may be a secret: no message repeats it."""
    return PydanticCustomError(_UNSHOWN, "{reason}", {"reason": reason})


def mask_secret(raw: bytes, secret: str, name: str) -> bytes:
    """Replace a secret by `<name>`, also where JSON, a URL or HTML spells it otherwise."""
    for form in secret_forms(secret):
        raw = raw.replace(form, f"<{name}>".encode())
    return raw


def secret_forms(secret: str) -> list[bytes]:
    """Return the spellings of a secret in text, JSON, a URL and HTML, longest first."""
    in_json = json.dumps(secret)[1:-1]
    forms = {secret, in_json, in_json.replace("/", "\\/"), quote(secret, ""), html.escape(secret)}
    return [form.encode() for form in sorted(forms - {""}, key=len, reverse=True)]


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file."""
    try:
        return parse_toml(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not TOML: {error}") from None
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of a TOML text; all values can be written as JSON.

    Raises:
        TOMLDecodeError: If it is not TOML.
        ValueError: If it contains a date, an infinite number, an integer of more
            than 64 bits, or very deep nesting.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise ValueError("value: nested too deeply") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise ValueError("value: an integer of more than 64 bits") from None
    _check_value(tables, ())
    return tables


def _check_value(value: Any, key: tuple[str, ...]) -> None:  # noqa: ANN401 (plain TOML)
    inner: Iterable[tuple[object, Any]] = ()
    fault = ""
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        fault = "nested too deeply" if len(key) >= MAX_DEPTH else ""
    elif isinstance(value, date | time):
        fault = f"{value} is a date or time; write it in quotes"
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        fault = "an integer of more than 64 bits"
    elif isinstance(value, float) and not isfinite(value):
        fault = f"{value} is not a finite number"
    if fault:
        raise ValueError(f"{'.'.join(key):.200}: {fault}")
    for name, each in inner:
        _check_value(each, (*key, str(name)))


def validated(
    path: Path,
    config_type: type[Settings],
    given: Mapping[str, Any],
    prefix: str,
    context: dict[str, Any],
) -> Settings:
    """Return settings of that type, made from plain data of a file.

    Raises:
        RecipeError: One line that names the file, the key, the value and what is allowed.
    """
    try:
        return config_type.model_validate(dict(given), context=context)
    except ValidationError as error:
        raise RecipeError(_one_line(path, config_type, error, prefix)) from None


def _one_line(path: Path, config_type: Any, error: ValidationError, prefix: str) -> str:  # noqa: ANN401
    first = error.errors()[0]
    parts = [part for part in map(str, first["loc"]) if not _UNION_MEMBER.fullmatch(part)]
    key = prefix + ".".join(parts)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(config_type, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"; did you mean {near[0]!r}? Known: " if near else "; known: "
        return f"{path}: {key} is not a setting{hint}{', '.join(known)}{more}"
    if first["type"] == "missing":
        return f"{path}: {key} is missing{more}"
    reason = _SHAPES.get(first["type"], first["msg"].removeprefix("Value error, "))
    where = f"{key} = {first['input']!r:.60}: " if key.rstrip(".") else ""
    if first["type"] == _UNSHOWN:
        where = f"{key}: "
    return f"{path}: {where}{reason}{more}"


def _fields_at(config_type: Any, parts: Sequence[str | int]) -> list[str]:  # noqa: ANN401
    """Return the setting names of the config found by following the parts."""
    fields = config_type.model_fields
    for part in parts:
        if part in fields:  # else it is a place, the name of an entry, or of a kind
            kinds = models_in(fields[part].annotation)
            fields = {name: info for kind in kinds for name, info in kind.model_fields.items()}
    return sorted(fields)


def _kinds(annotation: Any) -> list[Any]:  # noqa: ANN401 (a type expression)
    inner = getattr(annotation, "__args__", ())
    return [annotation] + [kind for each in inner for kind in _kinds(each)]


def describe(
    config_type: type[BaseModel], depth: int = 0, given: BaseModel | None = None
) -> Iterator[str]:
    """Yield a line for every setting of a config, nested ones indented: name, default, meaning.

    Where `given` is the default of a whole table, its values are the defaults.
    """
    for name, info in config_type.model_fields.items():
        is_required = given is None and info.is_required()
        default = info.get_default(call_default_factory=True)
        if given is not None:
            default = getattr(given, name)
        nested, table = models_in(info.annotation), ""
        if nested:  # written once, several times, by name, or perhaps not at all
            kinds = _kinds(info.annotation)
            origins = {get_origin(kind) for kind in kinds}
            forms = {tuple: "list of tables", dict: "tables by name"}
            table = next((form for kind, form in forms.items() if kind in origins), "table")
            table += ", or false" if type(None) in kinds else ""
        value = "required" if is_required else "" if nested else f"= {_as_toml(default):.40}"
        about = " ".join((info.description or "").split())
        parts = (name, table, value + _options(info.annotation, default), about)
        yield "  " * depth + "  ".join(part for part in parts if part)
        for each in nested:
            whole = default if isinstance(default, each) else None
            yield from describe(each, depth + 1, whole)


class TomlSchema(GenerateJsonSchema):
    """JSON Schema of a settings file: TOML has no null, and `false` switches a table off."""

    def nullable_schema(self, schema: NullableSchema) -> JsonSchemaValue:
        """Take `false` in the place of null."""
        return {"anyOf": [self.generate_inner(schema["schema"]), {"const": False}]}


def _as_toml(value: Any) -> str:  # noqa: ANN401 (a default of any type)
    """Return a default as a settings file spells it; TOML has no null."""
    if value is None:
        return "unset"
    if isinstance(value, bool | str | Path):
        text = json.dumps(value if isinstance(value, bool) else str(value), ensure_ascii=False)
        return text.replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_as_toml, value))}]"
    if isinstance(value, Mapping | BaseModel):
        pairs = value.items() if isinstance(value, Mapping) else iter(value)
        return f"{{{', '.join(f'{_key(name)} = {_as_toml(each)}' for name, each in pairs)}}}"
    return str(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else _as_toml(name)


def to_toml(tables: Mapping[str, Any]) -> str:
    """Return settings as a TOML file."""
    return "".join(f"{_key(name)} = {_as_toml(value)}\n" for name, value in tables.items())


def _options(annotation: Any, default: Any) -> str:  # noqa: ANN401 (a type expression)
    """Return the words that a setting may have, where its type names them."""
    named = [kind for kind in _kinds(annotation) if get_origin(kind) is Literal]
    words = [str(word) or '""' for kind in named for word in get_args(kind)]
    if len(words) < 2:
        return "".join(f", or {word}" for word in words if word != default)
    how = "any" if get_origin(annotation) in (tuple, dict) else "one"
    return f", {how} of {', '.join(words)}"
