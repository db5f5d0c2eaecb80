"""Identity: the same settings and inputs give the same key, on any machine, for years."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

from pydantic import BaseModel

KEY_CHARS = 16
"""Hex digits of a key: 64 bits, so a billion artifacts collide with a chance of 3 %."""


def canonical(value: object) -> str:
    """Return the one JSON text of a value made of plain data and pydantic models.

    Anything else is a `TypeError`: `repr` may hold an address or hide a difference.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def key_of(value: object) -> str:
    """Return the key of a value: `KEY_CHARS` hex digits of SHA-256 of its canonical text."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:KEY_CHARS]


def row_id(*parts: str) -> str:
    """Return a stable 16-digit row id made from the row's source text.

    Parts are joined with a unit separator, so ("ab", "c") and ("a", "bc") differ.
    """
    joined = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(joined).hexdigest()[:KEY_CHARS]


def number_of(text: str) -> int:
    """Return the first 64 bits of the SHA-256 of a text: the same draw on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{value!r} has no canonical form; use None for 'not set'")
        return value
    if isinstance(value, BaseModel):
        return {
            name: _plain(getattr(value, name))
            for name, field in type(value).model_fields.items()
            if field.exclude_if is None or not field.exclude_if(getattr(value, name))
        }
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise TypeError(f"a key may only hold mappings with text names, not {value!r:.80}")
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no canonical form: {value!r:.80}")
