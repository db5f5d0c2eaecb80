"""YAML files of lm-eval as plain data: `include` is followed, and no tag runs any code."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spyhop.schema import RecipeError

MAX_BYTES = 1 << 20
MAX_VALUES = 50_000
"""Values of a file after its aliases are followed."""
MAX_DEPTH = 40
_PLAIN = "tag:yaml.org,2002:"
_KINDS = {"null", "bool", "int", "float", "str", "seq", "map", "merge", "timestamp", "value"}


@dataclass(frozen=True, slots=True)
class Python:
    """A value that a Python function or class would make."""

    text: str
    where: str


def read_yaml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the settings of a file, those of included files below its own; `_where` names it.

    `above` are the files that include it.

    Raises:
        RecipeError: If it is not YAML, is too large, or includes itself.
    """
    if path.resolve() in above or len(above) > MAX_DEPTH:
        raise RecipeError(f"{path}: includes itself")
    own = _single(path)
    merged: dict[str, Any] = {}
    includes = own.pop("include", None) or []
    for name in includes if isinstance(includes, list) else [includes]:
        if not isinstance(name, str):
            raise RecipeError(f"{path}: include = {name!r:.60}: name a file")
        merged |= read_yaml(path.parent / name, (*above, path.resolve()))
    return {**merged, **own, "_where": str(path)}


def _single(path: Path) -> dict[str, Any]:
    """Return the settings of one file; a tag for Python gives `Python`."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecipeError(f"{path}: more than {MAX_BYTES >> 20} MB")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(path.read_text("utf-8-sig"))
        node = loader.get_single_node()
        for number, (each, depth) in enumerate(_nodes(node)):
            if number > MAX_VALUES or depth > MAX_DEPTH:
                raise RecipeError(
                    f"{path}: line {each.start_mark.line + 1}: its aliases unfold to more than "
                    f"{MAX_VALUES:,} values, or {MAX_DEPTH} levels"
                )
            if each.tag.removeprefix(_PLAIN) not in _KINDS:  # it needs code: only say so
                value = each.value if isinstance(each, yaml.ScalarNode) else ""
                text = f"{each.tag.replace(_PLAIN, '!!')} {value}".strip()[:80]
                where = f"{path}: line {each.start_mark.line + 1}"
                loader.constructed_objects[each] = Python(text, where)
        found = loader.construct_document(node) if node is not None else None
    except (UnicodeDecodeError, OSError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise RecipeError(f"{path}: cannot be read ({reason})") from None
    except RecursionError:
        raise RecipeError(f"{path}: nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f": line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise RecipeError(f"{path}{line}: not YAML ({reason:.80})") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise RecipeError(f"{path}: no table of settings")
    return found


def _nodes(node: Any) -> Iterator[tuple[Any, int]]:  # noqa: ANN401 (yaml's nodes)
    """Yield the nodes of a document with their depths, an alias as often as it is used."""
    waiting = [(node, 0)] if node is not None else []
    while waiting:
        one, depth = waiting.pop()
        yield one, depth
        if isinstance(one, yaml.MappingNode):
            waiting += [(each, depth + 1) for pair in one.value for each in pair]
        elif isinstance(one, yaml.SequenceNode):
            waiting += [(each, depth + 1) for each in one.value]
