"""One row of any tool's log: an item, what a model answered, and its score."""

import hashlib
from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple

from spyhop.schema import InputError

TOPICS = ("topic", "subject", "category", "subcategory", "subfield", "domain", "dataset", "type")
PASSAGES = ("passage", "context", "article", "paragraph", "story")
QUESTIONS = ("question", "query", "goal", "problem", "instruction", "input", "prompt", "sentence")
"""Names of fields under which data sets have the topic, the shared passage and the question."""


class LogRow(NamedTuple):
    """A scored answer, whichever tool wrote it."""

    task: str
    """Empty where neither the row nor the file's name says it."""
    item: str
    """Digest of the item's content; the same item of another log has the same."""
    values: Mapping[str, float | None]
    """Score by metric, the tool's first one first; None where a call or a verdict failed."""
    sample: int = 0
    """Number of the sample, where an item is asked several times."""
    prompt: str = ""
    """Digest of what the model was sent; empty where the log does not have it."""
    question: str = ""
    response: str = ""
    answer: str | None = None
    """The answer found in the response; None where there is no answer."""
    gold: str = ""
    topic: str = ""
    passage: str = ""
    """Digest or id of the text that several items share."""


def digest(*texts: str) -> str:
    """Return a short digest of texts; their boundaries count."""
    whole = "\0".join(texts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(whole).hexdigest()[:32]


def need(row: Mapping[str, Any], name: str, kinds: type | tuple[type, ...], where: str) -> Any:  # noqa: ANN401 (of one of `kinds`)
    """Return a field of a row.

    Raises:
        InputError: If it is missing or of another kind.
    """
    value = row.get(name)
    if not isinstance(value, kinds):
        found = f"is {value!r:.60}" if name in row else "is missing"
        raise InputError(f"{where}: the field {name!r} {found}")
    return value


def number(value: object, name: str, where: str) -> float:
    """Return a finite number.

    Raises:
        InputError: If it is not a number, or not finite.
    """
    if not isinstance(value, int | float) or not isfinite(value):
        raise InputError(f"{where}: {name} = {value!r:.60} is not a finite number")
    return float(value)


def first_text(fields: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Return the first of these fields that is a text, else an empty one."""
    return next((fields[name] for name in names if isinstance(fields.get(name), str)), "")
