"""Data that ships with spyhop as TOML: word lists, prompts, families of problems."""

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any


@cache
def table(name: str) -> dict[str, Any]:
    """Return the TOML file of that path within the package, such as `text/words.toml`."""
    return tomllib.loads((Path(__file__).parents[1] / name).read_text(encoding="utf-8"))


def word_set(name: str) -> frozenset[str]:
    """Return the words of a list of `text/words.toml`."""
    return frozenset(table("text/words.toml")[name].split())


def pattern(name: str) -> re.Pattern[str]:
    """Return a pattern of `text/patterns.toml`."""
    return re.compile(source(name))


def source(name: str) -> str:
    """Return the text of a pattern of `text/patterns.toml`, for use in others."""
    lines = table("text/patterns.toml")[name].splitlines()
    return re.sub("@([a-z_]+)@", lambda found: source(found[1]), "".join(lines))
